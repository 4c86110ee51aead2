"""What a task tells of its examples before a model answers, looked at: arrays of numbers, by split."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from stockpot.prose import counted

MOST = 1e150
"""A greater number's square, summed over a row, may be none."""


def feature_faults(found: Mapping[str, NDArray[Any] | None], examples: Mapping[str, int]) -> Iterator[str]:
    """All that is wrong with them, where one split at least has some. `examples`: how many each split has."""
    wide = {split: array.shape[1] for split, array in found.items() if _is_table(array)}
    first = next(iter(wide), None)
    for split, array in found.items():
        call = f"features({split!r})"
        if array is None:
            yield f"{call} is None, where another split has some"
        elif not _is_table(array):
            shape = f"of shape {[*array.shape]}, and not numbers of shape [examples, dimensions]"
            yield f"{call} is {array.dtype} {shape}"
        else:
            n = examples[split]
            if len(array) != n:
                yield f"{call} has {counted(len(array), 'row')}, the split has {counted(n, 'example')}"
            if first is not None and wide[split] != wide[first]:
                dimensions = counted(wide[split], "dimension")
                yield f"{call} has {dimensions}, features({first!r}) has {wide[first]}"
            yield from _odd_numbers(call, array)


def _odd_numbers(call: str, array: NDArray[Any]) -> Iterator[str]:
    # False for NaN as well.
    odd = np.flatnonzero(~(np.abs(array.astype(np.float64)) <= MOST).all(axis=1))
    if len(odd):
        told = f"{counted(len(odd), 'example')}, example {odd[0]} the first"
        yield f"{call} holds numbers that are not finite, or greater than {MOST:g}: of {told}"


def _is_table(array: NDArray[Any] | None) -> TypeGuard[NDArray[Any]]:
    return array is not None and array.dtype.kind in "biuf" and array.ndim == 2 and array.shape[1] > 0
