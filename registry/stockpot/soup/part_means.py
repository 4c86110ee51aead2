"""The arithmetic of recipes on a part of every file at once, in memory that is taken once.

F32 and F64 by numpy, which is imported in a tenth of torch's time; 16-bit dtypes by torch, which numpy lacks
or is slow at. The bits are those of `arithmetic.RunningSum`: the same correctly rounded operations, in order.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stockpot.entities import TensorSpec
from stockpot.soup.canonical import ITEM_SIZES

WITH_TORCH = frozenset({"F16", "BF16"})

Take = Callable[[int, memoryview], None]
"""Fills a buffer from the file of this number."""


class PartMeans:
    """Means of parts of at most `limit` elements. One for each thread. `scale`: `Recipe.scale`."""

    def __init__(self, limit: int, scale: float) -> None:
        # Pages that are never touched take no memory: 8 bytes per element are needed for F64 alone.
        self._memory = [np.empty(limit * 8, dtype=np.uint8) for _ in range(3)]
        self._scale = scale

    def mean(self, part: TensorSpec, take: Take, factors: Sequence[float]) -> tuple[memoryview, bool]:
        """The bytes of the mean, valid until the next is asked for, and whether all of it is finite.

        `factors`: what each file is multiplied by.
        """
        return (self._narrow if part.dtype in WITH_TORCH else self._wide)(part, take, factors)

    def copy(self, part: TensorSpec, take: Take, *, files: int) -> memoryview:
        """The bytes of the part in the first file; so many files are read."""
        content, others, _ = (cut.data for cut in self._cut(part, ITEM_SIZES[part.dtype]))
        take(0, content)
        for index in range(1, files):
            take(index, others)
        return content

    def _wide(self, part: TensorSpec, take: Take, factors: Sequence[float]) -> tuple[memoryview, bool]:
        dtype = np.float64 if part.dtype == "F64" else np.float32
        incoming_bytes, total_bytes, _ = self._cut(part, ITEM_SIZES[part.dtype])
        incoming, total = incoming_bytes.view(dtype), total_bytes.view(dtype)
        take(0, total_bytes.data)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported by name
            _multiply(total, factors[0])
            for index, factor in enumerate(factors[1:], start=1):
                take(index, incoming_bytes.data)
                _multiply(incoming, factor)
                np.add(total, incoming, out=total)
            _multiply(total, self._scale)
            # A sum stays NaN or infinite once it is. An infinite one may be an overflow: then look again.
            finite = math.isfinite(total.sum()) or bool(np.isfinite(total).all())
        return total_bytes.data, finite

    def _narrow(self, part: TensorSpec, take: Take, factors: Sequence[float]) -> tuple[memoryview, bool]:
        import torch

        from stockpot.soup.arithmetic import DTYPES, RunningSum, is_finite

        incoming_bytes = self._cut(part, ITEM_SIZES[part.dtype])[0]
        incoming = torch.from_numpy(incoming_bytes).view(DTYPES[part.dtype])
        _, total, wide = (torch.from_numpy(cut).view(torch.float32) for cut in self._cut(part, 4))
        take(0, incoming_bytes.data)
        running = RunningSum(incoming, factor=factors[0], total=total, wide=wide)
        for index, factor in enumerate(factors[1:], start=1):
            take(index, incoming_bytes.data)
            running.add(incoming, factor)
        return incoming_bytes.data, is_finite(running.mean(self._scale, out=incoming))

    def _cut(self, part: TensorSpec, size: int) -> list[NDArray[np.uint8]]:
        (count,) = part.shape
        return [memory[: count * size] for memory in self._memory]


def _multiply(values: NDArray[Any], factor: float) -> None:
    """By the factor as their dtype holds it; by one it would change nothing."""
    if factor != 1.0:
        np.multiply(values, values.dtype.type(factor), out=values)
