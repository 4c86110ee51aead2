"""Checkpoints in blocks: from a file, through a small buffer, to the work that is done on each."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from stockpot.entities import Digest
from stockpot.ports import Checkpoints
from stockpot.soup.arithmetic import RunningSum, bytes_of, single_threaded
from stockpot.soup.weights_file import WeightsFile


@dataclass(eq=False, slots=True)
class Block:
    """Some elements of a tensor: where a file holds them, and where the module does."""

    name: str
    dtype: torch.dtype
    """In the file."""
    begin: int
    """Bytes from the tensor's start in the file."""
    target: Tensor
    """A view of the module's own tensor, of as many elements; not always contiguous."""
    own: tuple[Tensor, memoryview] | None
    """The target, flat, and its bytes, where these are laid out as in the file, in this process's memory."""
    sums: list[RunningSum | None] = field(default_factory=list)
    """Of the blocks added so far, in the target's shape; see `GroupSums`."""

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.target.numel() * self.dtype.itemsize


Work = Callable[[Block, Tensor], Tensor | None]
"""Does something with a block and what a file holds for it: a flat tensor on the block's device, valid
until the work returns, which may write into it. Where the work overwrites the module, it may be the block's
own target."""


class Feed(Protocol):
    """Hands out a checkpoint in blocks. For one thread at a time."""

    def each(
        self, digest: Digest, blocks: Sequence[Block], work: Work, *, overwrites: bool
    ) -> list[tuple[Block, Tensor]]:
        """Do the work for every block, in any order. Returns what it returned, with its block.

        `overwrites`: the work puts something else into the module, which may be read to at once.
        """
        ...

    def prepare(self, digest: Digest) -> None:
        """This checkpoint is likely the next: may begin to load it, beside whatever goes on. Never fails."""
        ...


class ThreadedFeed:
    """Reads, and does the work, in as many threads as torch uses, while a block is in the cache."""

    def __init__(self, checkpoints: Checkpoints, device: torch.device) -> None:
        self._checkpoints = checkpoints
        self._device = device
        self._threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._pool = single_threaded(self._threads)
        self._own = threading.local()

    def each(
        self, digest: Digest, blocks: Sequence[Block], work: Work, *, overwrites: bool
    ) -> list[tuple[Block, Tensor]]:
        """Do the work for every block, in any order. Returns what it returned, with its block."""
        shared = iter(blocks)
        drain = partial(self._drain, shared, work=work, overwrites=overwrites)
        with self._checkpoints.open(digest) as weights:
            running = [self._pool.submit(drain, weights) for _ in range(self._threads)]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                # After an error or Ctrl-C, none of them reads on once the file is closed.
                deque(shared, maxlen=0)
                wait(running)
        return [pair for done in running for pair in done.result()]

    def prepare(self, digest: Digest) -> None:
        """Its file may be fetched; from there it is read fast enough."""
        self._checkpoints.prefetch(digest)

    def _drain(
        self, shared: Iterator[Block], weights: WeightsFile, *, work: Work, overwrites: bool
    ) -> list[tuple[Block, Tensor]]:
        results, cut = [], None
        with torch.inference_mode():
            for block in shared:
                # Every call gives the interpreter away, and waits to get it back: as few as can be.
                if overwrites and block.own is not None:
                    content, view = block.own
                else:
                    if cut != (block.size, block.dtype):
                        cut = block.size, block.dtype
                        buffer = self._buffer(block.size)
                        buffered = buffer.view(block.dtype), bytes_of(buffer)
                    content, view = buffered
                weights.file.fill(view, weights.places[block.name].offset + block.begin)
                result = work(block, content.to(self._device))
                if result is not None:
                    results.append((block, result))
        return results

    def _buffer(self, size: int) -> Tensor:
        """The thread's own bytes: always the same ones, which stay in its processor's cache."""
        buffer: Tensor | None = getattr(self._own, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._own.buffer = torch.empty(size, dtype=torch.uint8)
        return buffer[:size]
