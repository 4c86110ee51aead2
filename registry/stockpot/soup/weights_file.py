"""An open weights file, read by offset: what the readers of the formats have in common.

No memory map: a file that shrinks under one kills the process.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import TensorSpec
from stockpot.errors import BadCheckpoint
from stockpot.prose import counted
from stockpot.soup.canonical import ITEM_SIZES, RESERVED_NAME, byte_length
from stockpot.soup.disk_faults import unreadable

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 20
"""Bytes read at once: they stay in the processor's cache from one operation to the next."""

_NAME_LIMIT = 1024
_SIZE_LIMIT = 1 << 63
_FAULT_LIMIT = 20
_MEND = "log the weights again with safetensors.torch.save_file(model.state_dict(), path)"


def damaged(path: Path, what: str, faults: Sequence[str] = (), mend: str = _MEND) -> BadCheckpoint:
    """Say what is wrong with a file: of very many faults, the first twenty and the number."""
    shown = list(faults[:_FAULT_LIMIT])
    if len(faults) > len(shown):
        shown.append(f"and {len(faults) - len(shown)} more")
    return BadCheckpoint(f"{path}: {what}", faults=shown, mend=mend)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file a tensor's elements lie."""

    spec: TensorSpec
    offset: int
    """Bytes from the file's start to the first element."""
    strides: tuple[int, ...] | None = None
    """In elements. None: row by row without gaps."""

    @property
    def end(self) -> int:
        """Where the elements end, if they lie row by row."""
        return self.offset + byte_length(self.spec)


class RegularFile:
    """A regular file, open for reading at any offset from any thread."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def fill(self, buffer: memoryview, offset: int) -> None:
        """Read exactly as many bytes as the buffer holds. Raises BadCheckpoint when the file ends."""
        if not 0 <= offset <= self.size - len(buffer):
            raise damaged(self.path, f"is truncated by {counted(len(buffer), 'byte')} at byte {offset:,}")
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self.descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                raise unreadable(self.path, error) from error
            if not count:
                raise damaged(self.path, f"shrank while it was read: it ends at byte {offset + done}")
            done += count

    def read(self, offset: int, length: int) -> bytearray:
        """These bytes. Raises BadCheckpoint when the file ends before."""
        content = bytearray(length)
        self.fill(memoryview(content), offset)
        return content

    def pieces(self, offset: int, end: int) -> Iterator[memoryview]:
        """These bytes in pieces, each of which is valid until the next is asked for."""
        buffer = memoryview(bytearray(min(PIECE, end - offset)))
        for begin in range(offset, end, PIECE):
            piece = buffer[: end - begin]
            self.fill(piece, begin)
            yield piece

    def sha256(self) -> str:
        """The whole file's SHA-256 in hexadecimal digits."""
        sha256 = hashlib.sha256()
        for piece in self.pieces(0, self.size):
            sha256.update(piece)
        return sha256.hexdigest()


@contextmanager
def open_regular(path: Path) -> Iterator[RegularFile]:
    """Open a file that is a file: no link, pipe, device or folder.

    Raises BadCheckpoint for one that is not, StockpotError where the system cannot open it.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise damaged(path, "is not a regular file")
        # The two flags matter when the path changes under us: fail on a link, do not wait on a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise damaged(path, "is not a regular file")
        yield RegularFile(path, descriptor)
    finally:
        os.close(descriptor)


class WeightsFile:
    """The tensors of an open file, whatever its format."""

    def __init__(self, file: RegularFile, places: Sequence[Place]) -> None:
        self.file = file
        self.places = {place.spec.name: place for place in sorted(places, key=lambda place: place.spec.name)}

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """What the file holds, by name."""
        return tuple(place.spec for place in self.places.values())

    def sha256(self) -> str:
        """The whole file's, in hexadecimal digits."""
        return self.file.sha256()

    def read(self, name: str) -> "Tensor":
        """One tensor, contiguous, in memory of its own."""
        from stockpot.soup import arithmetic

        place = self.places[name]
        if place.strides is None:
            tensor = arithmetic.empty(place.spec)
            self.file.fill(arithmetic.bytes_of(tensor), place.offset)
            return tensor
        return self._view(place, place.strides).contiguous()

    def pieces(self, name: str) -> Iterator[memoryview]:
        """One tensor's bytes, row by row, in pieces: each is valid until the next is asked for.

        Of a tensor that does not lie row by row, what it spans in the file is in memory meanwhile, and never
        the tensor: an expanded one may be many times larger.
        """
        place = self.places[name]
        if place.strides is None:
            yield from self.file.pieces(place.offset, place.end)
        else:
            from stockpot.soup.arithmetic import bytes_of, row_by_row

            yield from map(bytes_of, row_by_row(self._view(place, place.strides), PIECE))

    def _view(self, place: Place, strides: tuple[int, ...]) -> "Tensor":
        """The tensor as a view of what it spans."""
        from stockpot.soup import arithmetic

        span = TensorSpec(place.spec.name, place.spec.dtype, (span_of(place.spec.shape, strides),))
        elements = arithmetic.empty(span)
        self.file.fill(arithmetic.bytes_of(elements), place.offset)
        return elements.as_strided(place.spec.shape, strides)


def collect_places(
    path: Path, entries: Mapping[str, object], place: Callable[[str, object], Place]
) -> list[Place]:
    """Read every tensor's entry in a header by `place`, which raises ValueError for a bad one.

    Raises BadCheckpoint with the faults of all entries.
    """
    places, faults = [], []
    for name, entry in entries.items():
        try:
            places.append(place(name, entry))
        except ValueError as error:
            faults.append(f"tensor {name[:100]!a}: {error}")
    if faults:
        raise damaged(path, "its header is wrong", faults)
    if not places:
        raise damaged(path, "it holds no tensors")
    return places


def spec_from(name: str, dtype: object, shape: object) -> TensorSpec:
    """A tensor as a header describes it. Raises ValueError where that makes no sense."""
    if not name.isprintable() or not 0 < len(name) <= _NAME_LIMIT or name == RESERVED_NAME:
        raise ValueError(f"a name has 1 to {_NAME_LIMIT} printable characters")
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise ValueError(f"dtype {str(dtype)[:100]!a} is not supported; these are: {', '.join(ITEM_SIZES)}")
    sizes = counts_from(shape)
    product = ITEM_SIZES[dtype]
    for size in sizes:
        # Zeros count as one: torch multiplies the others all the same. Checked at each step, since the
        # product of very many sizes takes minutes.
        product *= max(size, 1)
        if product >= _SIZE_LIMIT:
            raise ValueError("its size is out of range")
    return TensorSpec(name, dtype, sizes)


def counts_from(value: object) -> tuple[int, ...]:
    """A list of sizes, strides or offsets. Raises ValueError for anything else."""
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < _SIZE_LIMIT for n in value):
        raise ValueError(f"{str(value)[:100]!a} is no list of counts")
    return tuple(value)


def span_of(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from a strided tensor's first to its last, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
