"""Tensors that are views of stored elements: where they lie, and how much they may claim."""

import math
from collections.abc import Sequence

from stockpot.entities import TensorSpec
from stockpot.prose import counted
from stockpot.soup.canonical import ITEM_SIZES, byte_length
from stockpot.soup.weights_file import Place, RegularFile, counts_from, damaged, span_of

_COPIES_LIMIT = 64
"""Names per byte of the file on average, and reads of it: tied and expanded weights, but no bomb."""
_SMALL = 1 << 20
"""Bytes of a file that are not worth a stricter limit: a mask in it may be expanded from one element."""


def strided_place(spec: TensorSpec, skipped: object, strides: object, payload: tuple[int, int]) -> Place:
    """Where a view of a payload lies. `skipped` and `strides` count elements, `payload` is offset and size
    in bytes. Raises ValueError where the view leaves its payload.
    """
    offset, size = payload
    steps, (passed,) = counts_from(strides), counts_from([skipped])
    if len(steps) != len(spec.shape):
        raise ValueError(f"{len(steps)} strides for {len(spec.shape)} sizes")
    needed = (passed + span_of(spec.shape, steps)) * ITEM_SIZES[spec.dtype]
    if needed > size:
        raise ValueError(f"its payload has {counted(size, 'byte')}, and its tensor takes {needed:,}")
    by_row = math.prod(spec.shape) == 0 or _lies_by_row(spec, steps)
    return Place(spec, offset + passed * ITEM_SIZES[spec.dtype], None if by_row else steps)


def require_moderate(file: RegularFile, places: Sequence[Place]) -> None:
    """Bound what ingesting takes: the disk by what the tensors hold, the time by what they span as well."""
    held = {place.spec.name: max(byte_length(place.spec), _spanned(place)) for place in places}
    if sum(held.values()) > _COPIES_LIMIT * max(file.size, _SMALL):
        name = max(held, key=lambda name: held[name])
        raise damaged(
            file.path,
            f"its tensors are many times larger than the file: {sum(held.values()):,} bytes in {file.size:,}",
            [f"tensor {name[:100]!a}: holds or spans {counted(held[name], 'byte')}"],
        )


def _spanned(place: Place) -> int:
    """Bytes from the tensor's first element to its last."""
    strides = place.strides
    return 0 if strides is None else span_of(place.spec.shape, strides) * ITEM_SIZES[place.spec.dtype]


def _lies_by_row(spec: TensorSpec, strides: tuple[int, ...]) -> bool:
    expected = 1
    for n, stride in zip(reversed(spec.shape), reversed(strides), strict=True):
        if n != 1 and stride != expected:
            return False
        expected *= n
    return True
