"""Which examples of a split statistics are estimated on, and in which batches."""

import math
from collections.abc import Sequence
from typing import Any

EXAMPLES = 4096
"""At most: each soup that is tried costs a pass over them. Some thousands are enough (Wu and Johnson,
"Rethinking 'Batch' in BatchNorm", 2021, on the number of samples), and it is a whole number of usual batches.
"""
_GOLDEN = (math.sqrt(5) - 1) / 2


class Part(Sequence[Any]):
    """The examples at these places, read when they are asked for."""

    def __init__(self, examples: Sequence[Any], places: Sequence[int]) -> None:
        self._examples = examples
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        return self._examples[self._places[place]]


def spread(total: int) -> list[int]:
    """The places of the examples, in order, so that each batch looks like the whole split.

    By steps of the golden ratio of its length, or the next number that has no divisor in common with it. The
    first examples would be those of one class where a split is sorted.
    """
    step = round(total * _GOLDEN)
    while math.gcd(step, total) != 1:
        step += 1
    return [place * step % total for place in range(min(total, EXAMPLES))]


def even(n: int, most: int) -> list[tuple[int, int]]:
    """How many batches of which size, of `n` examples: as few as can be, and as even as can be.

    Each counts the same in the statistics: so none is padded, and none is much smaller than the others. Where
    `most` are two, none is of one either, which has no variance: one is of three then.
    """
    count = -(-n // most)
    if most > 1:
        count = min(count, max(n // 2, 1))
    size, larger = divmod(n, count)
    return [(many, each) for many, each in ((larger, size + 1), (count - larger, size)) if many]
