"""Model Stock: how far to go from the starting point to the mean of models that were fine-tuned from it, told
for each tensor by the angles between their updates.

Source: Jang, Yun, Han, "Model Stock: All we need is just a few fine-tuned models" (ECCV 2024).

numpy alone, in float64, in an order that depends on nothing but the shapes: the same bits on each machine,
since what is told here names a soup. So no sum is left to numpy, whose order depends on the processor.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stockpot.errors import NotFinite
from stockpot.soup.canonical import FLOATS, ITEM_SIZES
from stockpot.soup.coefficients import Factors
from stockpot.soup.weights_file import Place, WeightsFile

LANES = 1 << 14
"""Elements that are worked on at once, and sums that are kept of every tensor, until they are added up."""

Numbers = NDArray[np.float64]


def ratio(cosine: float, count: int) -> float:
    """The paper's t for so many models whose updates have this cosine: the share of their mean.

    That is where the line from the starting point through the mean passes nearest to the centre of all such
    models, if their updates are equally long and equally far apart. Updates that share no direction, a cosine
    of zero or less, tell nothing of the centre: the tensor stays where it started.
    """
    cosine = min(cosine, 1.0)  # rounding may lead beyond it
    return count * cosine / ((count - 1) * cosine + 1) if cosine > 0 else 0.0


def coefficients(models: Sequence[WeightsFile], base: WeightsFile) -> Factors:
    """For each tensor: t / n for every one of the n models, in this order, and 1 - t for the base, last.

    The files are in canonical form and of one layout. Raises NotFinite for updates whose squares overflow.
    """
    count, cosines = len(models), mean_cosines(models, base)
    shares = {place.spec.name: ratio(cosines.get(place.spec.name, 0.0), count) for place in _floats(models)}
    return {name: (*[t / count] * count, 1 - t) for name, t in shares.items()}


def mean_cosines(
    models: Sequence[WeightsFile], base: WeightsFile | None = None, *, most: int | None = None
) -> dict[str, float]:
    """For each floating-point tensor, the mean cosine of two models' updates from the base, over all pairs;
    of their very weights without a base. An update of zero has a cosine of zero with any other. A tensor with
    fewer than two other updates has no cosine, and is left out.

    Reads each file twice, and keeps 128 KiB of sums for each. `most`: look at no more than these first
    elements of each tensor. Raises NotFinite as `coefficients` does.
    """
    found = {
        place.spec.name: _mean_cosine(models, base, _beginning(place, most)) for place in _floats(models)
    }
    return {name: cosine for name, cosine in found.items() if cosine is not None}


def _floats(models: Sequence[WeightsFile]) -> list[Place]:
    return [place for place in models[0].places.values() if place.spec.dtype in FLOATS]


def _beginning(place: Place, most: int | None) -> Place:
    count = math.prod(place.spec.shape)
    return place if most is None or count <= most else replace(place, spec=replace(place.spec, shape=(most,)))


def _mean_cosine(models: Sequence[WeightsFile], base: WeightsFile | None, place: Place) -> float | None:
    """Of unit vectors u: the square of their sum is their number, and twice the cosine of each pair."""
    count = len(models)
    squares = [_Sum() for _ in models]
    with np.errstate(over="ignore"):  # it is told by name
        for updates in _updates(models, base, place):
            for update, square in zip(updates, squares, strict=True):
                square.add(update * update)
    lengths = [math.sqrt(square.total()) for square in squares]
    if not all(map(math.isfinite, lengths)):
        raise NotFinite(
            f"the update of tensor {place.spec.name} is too long to be measured",
            mend="leave out the run with values near the dtype's largest",
        )
    if sum(map(bool, lengths)) < 2:
        return None
    scales = [1 / length if length else 0.0 for length in lengths]
    together = _Sum()
    for updates in _updates(models, base, place):
        total = np.zeros(0)
        for update, scale in zip(updates, scales, strict=True):
            unit = update * scale
            total = unit if not len(total) else total + unit
        together.add(total * total)
    return (together.total() - sum(map(bool, lengths))) / (count * (count - 1))


def _updates(
    models: Sequence[WeightsFile], base: WeightsFile | None, place: Place
) -> Iterator[Iterator[Numbers]]:
    """Part by part, each model's update in turn: valid until the next is asked for."""
    size, convert = ITEM_SIZES[place.spec.dtype], _WIDE[place.spec.dtype]
    buffer = bytearray(LANES * size)
    for begin in range(place.offset, place.end, LANES * size):
        part = memoryview(buffer)[: min(LANES * size, place.end - begin)]

        def read(file: WeightsFile, begin: int = begin, part: memoryview = part) -> Numbers:
            file.file.fill(part, begin)
            return convert(part)

        start = read(base) if base is not None else 0.0
        yield (read(model) - start for model in models)


def _of_bfloat16(part: memoryview) -> Numbers:
    wide = np.frombuffer(part, dtype="<u2").astype("<u4") << np.uint32(16)
    return wide.view("<f4").astype(np.float64)


def _as(dtype: str) -> Callable[[memoryview], Numbers]:
    return lambda part: np.frombuffer(part, dtype=dtype).astype(np.float64)


_WIDE = {"F64": _as("<f8"), "F32": _as("<f4"), "F16": _as("<f2"), "BF16": _of_bfloat16}
"""A part's bytes as new float64 numbers, exactly."""


class _Sum:
    """Of numbers that come in parts: by lanes first, each in the order of its numbers, then by halves."""

    def __init__(self) -> None:
        self._lanes = np.zeros(0)

    def add(self, numbers: Numbers) -> None:
        if len(self._lanes) < len(numbers):  # the first part is the longest
            self._lanes = numbers
        else:
            self._lanes[: len(numbers)] += numbers

    def total(self) -> float:
        lanes = self._lanes
        while len(lanes) > 1:
            half = (len(lanes) + 1) // 2
            folded = lanes[:half].copy()
            folded[: len(lanes) - half] += lanes[half:]
            lanes = folded
        return float(lanes[0]) if len(lanes) else 0.0
