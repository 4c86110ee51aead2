"""Several comparisons at once: so many are looked at that one of them may seem worse by chance."""

from collections.abc import Callable, Sequence

from stockpot.entities import Comparison


def holm(
    names: Sequence[str],
    compare_at: Callable[[str, float], Comparison],
    shown: Callable[[Comparison], bool],
    *,
    level: float = 0.95,
) -> tuple[dict[str, Comparison], frozenset[str]]:
    """Each comparison, and of which it is shown what is looked for: at most in 1 - `level` of all such
    families is it shown of any where it is true of none.

    `compare_at` gives the comparison of this name with the interval of that level, `shown` reads it. An
    interval of a higher level must hold that of a lower one. A comparison is told with the interval that
    decided about it.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. Journal of Statistics
    6 (1979). That the smallest of `m` p-values lies below alpha / m is read off the interval of level
    1 - alpha / m; all that do go at once, since the next bound is a wider one.
    """
    left, rejected = list(names), set[str]()
    found: dict[str, Comparison] = {}
    while left:
        found |= {name: compare_at(name, 1 - (1 - level) / len(left)) for name in left}
        hits = [name for name in left if shown(found[name])]
        if not hits:
            break
        rejected.update(hits)
        left = [name for name in left if name not in rejected]
    return {name: found[name] for name in names}, frozenset(rejected)
