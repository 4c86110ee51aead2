"""Strict reading of safetensors files: one meaning, checked in full before a byte of data is used.

The format: https://huggingface.co/docs/safetensors (eight bytes of header length, little-endian; a
JSON header; the data). The library itself accepts duplicate keys, odd names and leading space.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stockpot.entities import TensorSpec
from stockpot.prose import counted
from stockpot.soup import strict_json
from stockpot.soup.canonical import RESERVED_NAME, byte_length
from stockpot.soup.weights_file import (
    Place,
    RegularFile,
    WeightsFile,
    collect_places,
    counts_from,
    damaged,
    open_regular,
    spec_from,
)

HEADER_LIMIT = strict_json.LIMIT
"""Bytes. The library's own limit is 100 MB, which takes gigabytes to parse."""

_PREFIX = 8


@contextmanager
def open_safetensors(path: Path) -> Iterator[WeightsFile]:
    """Open a safetensors file whose header is right in every respect.

    Raises BadCheckpoint naming every fault that can be told from the others.
    """
    with open_regular(path) as file:
        yield parsed(file)


def parsed(file: RegularFile) -> WeightsFile:
    """An open safetensors file. Raises BadCheckpoint as `open_safetensors` does."""
    return WeightsFile(file, _read_places(file))


@dataclass(frozen=True)
class Head:
    """The first bytes of a file that is elsewhere."""

    path: Path
    """What errors call the file."""
    size: int
    """Bytes of the whole file."""
    content: bytes

    @property
    def header_end(self) -> int:
        """Where the header ends: so many bytes are enough for `tensors`."""
        return _PREFIX + int.from_bytes(self.content[:_PREFIX], "little")

    def tensors(self) -> tuple[TensorSpec, ...]:
        """What the file holds. Raises BadCheckpoint as `open_safetensors` does."""
        return tuple(place.spec for place in self.places())

    def places(self) -> list[Place]:
        """Where in the file its tensors lie. Raises BadCheckpoint as `open_safetensors` does."""
        return _read_places(self)

    def read(self, offset: int, length: int) -> bytes:
        """These bytes. Raises BadCheckpoint where they are not among the first."""
        if offset + length > len(self.content):
            raise damaged(self.path, f"only the beginning is here: {counted(len(self.content), 'byte')}")
        return self.content[offset : offset + length]


def _read_places(file: RegularFile | Head) -> list[Place]:
    header, begin = _read_header(file)
    metadata = header.pop(RESERVED_NAME, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise damaged(file.path, f"{RESERVED_NAME} is no map from text to text")
    places = collect_places(file.path, header, partial(_place, begin=begin))
    if faults := list(_gaps(places, begin, file.size)):
        raise damaged(file.path, "its tensors do not fill the data exactly", faults)
    return places


def _read_header(file: RegularFile | Head) -> tuple[dict[str, object], int]:
    if file.size < _PREFIX:
        raise damaged(file.path, f"is truncated: {counted(file.size, 'byte')}, which is no safetensors file")
    length = int.from_bytes(file.read(0, _PREFIX), "little")
    if length > HEADER_LIMIT:
        raise damaged(
            file.path, f"its header claims {length:,} bytes, more than the limit of {HEADER_LIMIT:,}"
        )
    if length > file.size - _PREFIX:
        left = file.size - _PREFIX
        raise damaged(
            file.path, f"is truncated: its header takes {counted(length, 'byte')}, {left:,} are left"
        )
    try:
        header = strict_json.parse(file.read(_PREFIX, length))
    except ValueError as error:
        raise damaged(file.path, f"its header is no JSON: {error}") from error
    return header, _PREFIX + length


def _place(name: str, entry: object, begin: int) -> Place:
    if not isinstance(entry, Mapping) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("an entry has dtype, shape and data_offsets, and nothing else")
    spec = spec_from(name, entry["dtype"], entry["shape"])
    offsets = counts_from(entry["data_offsets"])
    if len(offsets) != 2 or offsets[1] - offsets[0] != byte_length(spec):
        length = byte_length(spec)
        raise ValueError(f"data_offsets {offsets} do not span what it takes: {counted(length, 'byte')}")
    return Place(spec, begin + offsets[0])


def _gaps(places: list[Place], begin: int, size: int) -> Iterator[str]:
    at = begin
    for place in sorted(places, key=lambda place: (place.offset, place.end)):
        if place.offset > at:
            yield f"belongs to no tensor: {counted(place.offset - at, 'byte')} before {place.spec.name!a}"
        elif place.offset < at:
            yield f"tensor {place.spec.name!a} overlaps another"
        at = max(at, place.end)
    if at > size:
        yield f"the file is truncated by {counted(at - size, 'byte')}"
    elif at < size:
        yield f"belongs to no tensor: {counted(size - at, 'byte')} after the last one"
