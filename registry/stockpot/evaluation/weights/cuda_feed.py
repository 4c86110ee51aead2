"""Checkpoints in blocks on a CUDA device: file to pinned memory, and from there beside the arithmetic."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle

import torch
from torch import Tensor

from stockpot.entities import Digest
from stockpot.evaluation.devices.host_memory import available_memory
from stockpot.evaluation.weights.block_feed import Block, Work
from stockpot.ports import Checkpoints
from stockpot.soup.arithmetic import bytes_of
from stockpot.soup.weights_file import PIECE

_SLOTS = 3  # one is read from the file, one is copied, one is added

Read = Callable[["_Slot", Block], Tensor]
"""A block's bytes in pinned memory, which may be the slot's own."""


class _Slot:
    """Room for one block, in pinned memory and on the device."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.pinned = _pinned(size)
        self.content = torch.empty(size, dtype=torch.uint8, device=device)
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not type it
        """What was in pinned memory is on the device: the former may be written again."""
        self.used = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not type it
        """The work on the content is done: it may be written again."""


class CudaFeed:
    """Copies block by block on a stream of its own, while the current stream works on the one before.

    A prepared checkpoint is loaded by a thread, whole, into pinned memory where there is room: beside the
    slots, that is one checkpoint's size, and used again for the next.
    """

    def __init__(self, checkpoints: Checkpoints, device: torch.device) -> None:
        self._checkpoints = checkpoints
        self._device = device
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch does not type it
        self._slots: list[_Slot] = []
        self._beside = ThreadPoolExecutor(1, "next-weights")
        self._ahead: tuple[Digest, Future[dict[str, int]]] | None = None
        self._whole = torch.empty(0, dtype=torch.uint8)
        self._left = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not type it
        """All that was asked of the prepared checkpoint is on the device."""

    def each(
        self,
        digest: Digest,
        blocks: Sequence[Block],
        work: Work,
        *,
        overwrites: bool,  # noqa: ARG002 - what is copied while a block is worked on needs room of its own
    ) -> list[tuple[Block, Tensor]]:
        """Do the work for every block, in order. Returns what it returned, with its block.

        The work is begun, not done, when this returns: on the device's current stream.
        """
        results = []
        with torch.inference_mode(), torch.cuda.device(self._device), self._open(digest) as read:
            self._make_room(max((block.size for block in blocks), default=1))
            arithmetic = torch.cuda.current_stream()
            for slot, block in zip(cycle(self._slots), blocks, strict=False):
                source = read(slot, block)
                content = slot.content[: block.size]
                with torch.cuda.stream(self._copies):
                    self._copies.wait_event(slot.used)
                    content.copy_(source, non_blocking=True)
                    slot.copied.record(self._copies)
                arithmetic.wait_event(slot.copied)
                result = work(block, content.view(block.dtype))
                slot.used.record(arithmetic)
                if result is not None:
                    results.append((block, result))
        return results

    def prepare(self, digest: Digest) -> None:
        """Begin to load this checkpoint into pinned memory. What fails here, `each` meets again and tells."""
        if self._ahead is None or self._ahead[0] != digest:
            self._ahead = digest, self._beside.submit(self._load, digest)

    def _load(self, digest: Digest) -> dict[str, int]:
        """Returns the offset of each tensor in what is now in pinned memory: the whole file."""
        with self._checkpoints.open(digest) as weights:
            self._left.synchronize()
            if len(self._whole) < weights.file.size:
                self._whole = torch.empty(0, dtype=torch.uint8)
                require_room_to_pin(weights.file.size, available_memory())
                self._whole = _pinned(weights.file.size)
            for begin in range(0, weights.file.size, PIECE):
                end = min(begin + PIECE, weights.file.size)
                weights.file.fill(bytes_of(self._whole[begin:end]), begin)
            return {name: place.offset for name, place in weights.places.items()}

    @contextmanager
    def _open(self, digest: Digest) -> Iterator[Read]:
        offsets = self._prepared(digest)
        if offsets is None:
            with self._checkpoints.open(digest) as weights:

                def read(slot: _Slot, block: Block) -> Tensor:
                    slot.copied.synchronize()
                    pinned = slot.pinned[: block.size]
                    weights.file.fill(bytes_of(pinned), weights.places[block.name].offset + block.begin)
                    return pinned

                yield read
            return
        try:
            yield lambda _, block: self._whole[offsets[block.name] + block.begin :][: block.size]
        finally:
            self._left.record(self._copies)

    def _prepared(self, digest: Digest) -> dict[str, int] | None:
        """Where its tensors lie in pinned memory, once they do; None where that failed, or is of another."""
        if self._ahead is None or self._ahead[0] != digest:
            return None
        loading = self._ahead[1]
        if loading.exception() is not None:
            self._ahead = None
            return None
        return loading.result()

    def _make_room(self, size: int) -> None:
        if not self._slots or len(self._slots[0].pinned) < size:
            torch.cuda.synchronize()  # the old room may be in use, and the new one's memory too
            self._slots = [_Slot(size, self._device) for _ in range(_SLOTS)]


def require_room_to_pin(size: int, available: int) -> None:
    """Raises MemoryError where so many bytes would take more than half of what is available.

    torch rounds pinned memory up to a power of two, and nobody can swap it out.
    """
    taken = 1 << (size - 1).bit_length()
    if taken > available / 2:
        raise MemoryError(f"{taken} bytes to be pinned, {available} available")


def _pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)
