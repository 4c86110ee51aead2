"""Average canonical files in one pass over their bytes: read, hash, add, check, write.

What it costs is moving bytes, so a part stays in the processor's own cache from the read to the write, and
no memory is taken after the start. Each worker takes a part through all files; a file's digest takes its
parts in order, so that a second worker follows the first at the distance of one file.
"""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import groupby
from queue import SimpleQueue
from threading import Condition, Event, Lock

from stockpot.entities import Digest, GroupSum, TensorSpec
from stockpot.soup.canonical import FLOATS, ITEM_SIZES
from stockpot.soup.coefficients import Factors
from stockpot.soup.overlay import Overlay
from stockpot.soup.part_means import WITH_TORCH, PartMeans
from stockpot.soup.waiting import next_from
from stockpot.soup.weights_file import Place, WeightsFile
from stockpot.soup.whole_file import UnfinishedFile

_PART = 1 << 18  # elements: the fewest calls at which what is read and the sum stay in a core's cache
_FLUSHED = 1 << 24  # bytes after which the disk shall take what there is
_WORKERS = 8  # more only wait for each other: a digest takes one part at a time


class _Stopped(Exception):
    """Another worker failed."""


class _OrderedSha256:
    """The SHA-256 of a file whose parts several threads bring, each waiting for its turn."""

    def __init__(self, head: bytes) -> None:
        self._sha256 = hashlib.sha256(head)
        self._turn = Condition()
        self._next: float = 0

    def update(self, number: int, content: memoryview) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._next >= number)
            if self._next > number:
                raise _Stopped
        self._sha256.update(content)
        with self._turn:
            self._next += 1
            self._turn.notify_all()

    def stop(self) -> None:
        """Turn everybody away who waits, now or later."""
        with self._turn:
            self._next = float("inf")
            self._turn.notify_all()

    @property
    def digest(self) -> Digest:
        return Digest(f"sha256:{self._sha256.hexdigest()}")


class OnePass:
    """The average of files of one layout, written into a file of the same layout: by factors for each tensor
    and `Recipe.sums`. `overlay`: what is laid over it.
    """

    def __init__(
        self,
        files: Sequence[WeightsFile],
        factors: Factors,
        sums: Sequence[GroupSum],
        target: UnfinishedFile,
        *,
        overlay: Overlay | None,
        hashing: bool,
    ) -> None:
        self.offenders: set[str] = set()
        """Afterwards: the tensors whose sums overflow."""
        self._files = [file.file for file in files]
        self._sums = sums
        self._overlay, self._named = overlay, files[0].places
        self._target = target
        self._places = sorted(files[0].places.values(), key=lambda place: (place.offset, place.end))
        self._parts = enumerate(_parts(self._places, factors))
        self._lock = Lock()  # for the two that change: offenders and parts
        self._ends: SimpleQueue[None] = SimpleQueue()
        self._due = Event()  # for a flush, or the end
        self._stopped = True  # until all workers are there
        self._header = bytes(self._files[0].read(0, self._places[0].offset))
        heads = [bytes(file.read(0, len(self._header))) for file in self._files] + [self._header]
        self._digests = [_OrderedSha256(head) for head in heads] if hashing else []

    def run(self) -> list[Digest]:
        """Do it. Returns the digests of the files, and last the target's, if hashing."""
        self._target.put(self._header, 0)
        workers = min(_WORKERS, len(os.sched_getaffinity(0)))
        with self._pool(workers + 1) as pool:
            try:
                with self._lock:  # nobody begins before: an interrupt may keep a worker from the pool's list
                    workings = [pool.submit(self._work) for _ in range(workers)]
                    workings.append(pool.submit(self._flush))
                    self._stopped = False
                for _ in range(workers):
                    next_from(self._ends)
            finally:
                self._stop()
        for working in workings:
            working.result()
        return [stream.digest for stream in self._digests]

    def _pool(self, workers: int) -> AbstractContextManager[ThreadPoolExecutor]:
        if WITH_TORCH.isdisjoint(place.spec.dtype for place in self._places):
            return ThreadPoolExecutor(workers)
        from stockpot.soup.arithmetic import single_threaded

        return single_threaded(workers)

    def _work(self) -> None:
        try:
            means = PartMeans(_PART, self._sums)
            while (numbered := self._next_part()) is not None:
                number, (part, factors) = numbered
                self._average(number, part, factors, means)
        except _Stopped:
            pass
        except BaseException:
            self._stop()
            raise
        finally:
            self._ends.put(None)

    def _flush(self) -> None:
        """Meanwhile, let the disk take what is there."""
        try:
            while self._due.wait() and not self._stopped:
                self._due.clear()
                self._target.flush()
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        self._stopped = True
        self._due.set()
        for stream in self._digests:
            stream.stop()

    def _next_part(self) -> "tuple[int, tuple[Place, tuple[float, ...]]] | None":
        with self._lock:
            return None if self._stopped else next(self._parts, None)

    def _average(self, number: int, part: Place, factors: Sequence[float], means: PartMeans) -> None:
        take = partial(self._take, number, part.offset)
        if part.spec.dtype in FLOATS:
            content, finite = means.mean(part.spec, take, factors)
        else:
            content, finite = (
                means.copy(part.spec, take, files=len(self._files) if self._digests else 1),
                True,
            )
        if self._overlay is not None:
            self._overlay.lay_over(content, part.offset, self._named)
        if not finite:
            self._find_offenders(part, content)
        self._put(number, part, content)

    def _take(self, number: int, offset: int, index: int, content: memoryview) -> None:
        self._files[index].fill(content, offset)
        if self._digests:
            self._digests[index].update(number, content)

    def _put(self, number: int, part: Place, content: memoryview) -> None:
        self._target.put(content, part.offset)
        if part.offset // _FLUSHED < part.end // _FLUSHED:
            self._due.set()
        if self._digests:
            self._digests[-1].update(number, content)

    def _find_offenders(self, part: Place, content: memoryview) -> None:
        from stockpot.soup.arithmetic import holds_finite

        for place in self._places[bisect_right(self._places, part.offset, key=lambda place: place.end) :]:
            if place.offset >= part.end:
                return
            piece = content[max(place.offset - part.offset, 0) : place.end - part.offset]
            if piece and not holds_finite(piece, part.spec.dtype):
                with self._lock:
                    self.offenders.add(place.spec.name)


def _parts(places: Sequence[Place], factors: Factors) -> Iterator[tuple[Place, tuple[float, ...]]]:
    """The data in parts of one dtype and the same factors, without regard to where tensors end."""
    kinds = groupby(places, key=lambda place: (place.spec.dtype, factors.get(place.spec.name, ())))
    for (dtype, same), group in kinds:
        run = list(group)
        size = ITEM_SIZES[dtype]
        for begin in range(run[0].offset, run[-1].end, _PART * size):
            count = min(_PART, (run[-1].end - begin) // size)
            yield Place(TensorSpec("", dtype, (count,)), begin), same
