"""The arithmetic of recipes on a part of every file at once, in memory that is taken once.

F32 and F64 by numpy, which is imported in a tenth of torch's time; 16-bit dtypes by torch, which numpy lacks
or is slow at. The bits are those of `arithmetic.RunningSum`: the same correctly rounded operations, in order.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stockpot.entities import GroupSum, TensorSpec
from stockpot.soup.canonical import ITEM_SIZES

WITH_TORCH = frozenset({"F16", "BF16"})

Take = Callable[[int, memoryview], None]
"""Fills a buffer from the file of this number."""


class PartMeans:
    """Means of parts of at most `limit` elements. One for each thread. `sums`: `Recipe.sums`."""

    def __init__(self, limit: int, sums: Sequence[GroupSum]) -> None:
        # Pages that are never touched take no memory: 8 bytes per element are needed for F64 alone, and the
        # last one where there is more than one sum.
        self._memory = [np.empty(limit * 8, dtype=np.uint8) for _ in range(4)]
        self._sums = sums

    def mean(self, part: TensorSpec, take: Take, factors: Sequence[float]) -> tuple[memoryview, bool]:
        """The bytes of the mean, valid until the next is asked for, and whether all of it is finite.

        `factors`: what each file is multiplied by.
        """
        return (self._narrow if part.dtype in WITH_TORCH else self._wide)(part, take, factors)

    def copy(self, part: TensorSpec, take: Take, *, files: int) -> memoryview:
        """The bytes of the part in the first file; so many files are read."""
        content, others, *_ = (cut.data for cut in self._cut(part, ITEM_SIZES[part.dtype]))
        take(0, content)
        for index in range(1, files):
            take(index, others)
        return content

    def _wide(self, part: TensorSpec, take: Take, factors: Sequence[float]) -> tuple[memoryview, bool]:
        dtype = np.float64 if part.dtype == "F64" else np.float32
        memory = self._cut(part, ITEM_SIZES[part.dtype])
        incoming, total, _, another = (cut.view(dtype) for cut in memory)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported by name
            for group, (places, scale) in enumerate(self._sums):
                own = another if group else total
                for index in places:
                    values = incoming if index > places.start else own
                    take(index, values.view(np.uint8).data)
                    _multiply(values, factors[index])
                    if values is incoming:
                        np.add(own, incoming, out=own)
                _multiply(own, scale)
                if group:
                    np.add(total, own, out=total)
            # A sum stays NaN or infinite once it is. An infinite one may be an overflow: then look again.
            finite = math.isfinite(total.sum()) or bool(np.isfinite(total).all())
        return total.view(np.uint8).data, finite

    def _narrow(self, part: TensorSpec, take: Take, factors: Sequence[float]) -> tuple[memoryview, bool]:
        import torch

        from stockpot.soup.arithmetic import DTYPES, RunningSum, is_finite

        incoming_bytes = self._cut(part, ITEM_SIZES[part.dtype])[0]
        incoming = torch.from_numpy(incoming_bytes).view(DTYPES[part.dtype])
        _, total, wide, another = (torch.from_numpy(cut).view(torch.float32) for cut in self._cut(part, 4))
        for group, (places, scale) in enumerate(self._sums):
            take(places.start, incoming_bytes.data)
            own = another if group else total
            running = RunningSum(incoming, factor=factors[places.start], total=own, wide=wide)
            for index in places[1:]:
                take(index, incoming_bytes.data)
                running.add(incoming, factors[index])
            running.mean(scale, out=own)
            if group:
                total.add_(own)
        return incoming_bytes.data, is_finite(incoming.copy_(total))

    def _cut(self, part: TensorSpec, size: int) -> list[NDArray[np.uint8]]:
        (count,) = part.shape
        return [memory[: count * size] for memory in self._memory]


def _multiply(values: NDArray[Any], factor: float) -> None:
    """By the factor as their dtype holds it; by one it would change nothing."""
    if factor != 1.0:
        np.multiply(values, values.dtype.type(factor), out=values)
