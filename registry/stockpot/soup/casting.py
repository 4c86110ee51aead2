"""Floating-point tensors in another dtype than a file holds, on their way into canonical form."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from stockpot.entities import Dtype, TensorSpec
from stockpot.errors import Incompatible
from stockpot.prose import counted
from stockpot.soup.canonical import FLOATS

CODES = {Dtype.FLOAT32: "F32", Dtype.BFLOAT16: "BF16", Dtype.FLOAT16: "F16"}
"""Of safetensors."""
NAMES = {code: dtype.value for dtype, code in CODES.items()} | {"F64": "float64"}
"""As torch calls the dtypes that are averaged."""
MORE_ROOM = {
    "F16": "--dtype bfloat16 and --dtype float32 hold larger numbers; else leave the run out with --filter",
    "BF16": "--dtype float32 holds larger numbers; else leave the run out with --filter",
    "F32": "leave the run out with --filter",
}


def cast_tensors(tensors: Iterable[TensorSpec], code: str) -> tuple[TensorSpec, ...]:
    """The same, all floating-point ones in the dtype of this safetensors code."""
    return tuple(replace(spec, dtype=code) if spec.dtype in FLOATS else spec for spec in tensors)


class _Weights(Protocol):
    """A `WeightsFile`, or a `ShardedFile`."""

    @property
    def tensors(self) -> tuple[TensorSpec, ...]: ...

    def pieces(self, name: str) -> Iterator[memoryview]: ...

    def sha256(self) -> str: ...


class CastFile:
    """Another file's tensors, the floating-point ones cast as torch's ``Tensor.to`` does: to the nearest
    number, of two the even one; float64 by way of float32. Integer and boolean ones are untouched.
    """

    def __init__(self, weights: _Weights, code: str) -> None:
        self._weights = weights
        self._code = code
        self._found = {spec.name: spec.dtype for spec in weights.tensors}
        self._overflowing: dict[str, None] = {}

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """By name."""
        return cast_tensors(self._weights.tensors, self._code)

    @property
    def cast_from(self) -> tuple[str, ...]:
        """The dtypes that are cast to another one, by name."""
        return tuple(sorted(FLOATS.intersection(self._found.values()) - {self._code}))

    def sha256(self) -> str:
        """Of the file as it is, in hexadecimal digits."""
        return self._weights.sha256()

    def pieces(self, name: str) -> Iterator[memoryview]:
        """One tensor's bytes, row by row, in pieces: each is valid until the next is asked for."""
        found = self._found[name]
        if found not in FLOATS or found == self._code:
            yield from self._weights.pieces(name)
            return
        import torch

        from stockpot.soup.arithmetic import DTYPES, bytes_of, holds_finite, is_finite

        for piece in self._weights.pieces(name):
            cast = torch.frombuffer(piece, dtype=DTYPES[found]).to(DTYPES[self._code])
            if not is_finite(cast) and holds_finite(piece, found):
                self._overflowing[name] = None
            yield bytes_of(cast)

    def with_room(self, parts: Iterable[memoryview]) -> Iterator[memoryview]:
        """The parts, which are this file's. Raises Incompatible at their end, naming all tensors with finite
        numbers that became infinite.
        """
        yield from parts
        if self._overflowing:
            count = counted(len(self._found), "tensor")
            raise Incompatible(
                f"numbers too large for {NAMES[self._code]} in {len(self._overflowing)} of {count}",
                faults=tuple(self._overflowing),
                mend=MORE_ROOM[self._code],
            )


def only_float_dtypes_differ(one: Sequence[TensorSpec], other: Sequence[TensorSpec]) -> bool:
    """Whether two layouts that differ would be one, were they cast to one dtype."""
    return cast_tensors(one, "F32") == cast_tensors(other, "F32")
