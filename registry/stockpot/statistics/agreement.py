"""How far two partitions of the same things agree.

Source: Hubert and Arabie, "Comparing partitions", Journal of Classification 2 (1985): the adjusted Rand
index.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb


def adjusted_rand(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """1 for the same partition under whatever names, near 0 for two that have nothing to do with each other.

    Of two that leave everything in one part, or everything apart, it is 1. Raises ValueError for other
    lengths.
    """
    both = Counter(zip(first, second, strict=True))
    together = _pairs(both)
    ones, others = _pairs(Counter(first)), _pairs(Counter(second))
    most = (ones + others) / 2
    by_chance = ones * others / comb(len(first), 2) if len(first) > 1 else 0.0
    return 1.0 if most == by_chance else (together - by_chance) / (most - by_chance)


def _pairs(sizes: Counter[Hashable] | Counter[tuple[Hashable, Hashable]]) -> int:
    return sum(comb(size, 2) for size in sizes.values())
