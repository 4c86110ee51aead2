"""Paired comparisons of two recipes on the same examples: how much better, and how sure that is."""

import math
from collections.abc import Hashable, Mapping, Sequence

from registry.entities import Comparison

SEED = 0
"""Of the bootstrap: the same scores always give the same interval."""
RESAMPLES = 9999
DRAWN_AT_ONCE = 2_000_000
"""Resampled values held in memory at a time: some 32 MB, whatever n is."""

Pairs = tuple[Sequence[float], Sequence[float], Sequence[Hashable] | None]
"""Baseline's scores, challenger's scores, and each example's origin if several share one."""


def compare(
    split: str,
    baseline: Sequence[float],
    challenger: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Comparison:
    """The mean difference with its paired percentile bootstrap interval, and exact McNemar's test.

    With `groups`, examples of one origin are one unit: their mean difference. The difference is the
    mean over units. A single unit, or a difference that is not finite, has the interval of all reals.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; McNemar (1947)
    with the exact binomial distribution of the discordant pairs.

    Raises ValueError for sequences that are empty or differ in length.
    """
    units = _unit_means(_differences(baseline, challenger, groups), groups)
    low, high = _interval(units, level)
    p = _mcnemar(baseline, challenger) if len(units) == len(baseline) else None
    return Comparison(split, len(units), _mean(units), low, high, level, p)


def compare_mean(name: str, pairs: Mapping[str, Pairs], *, level: float = 0.95) -> Comparison:
    """Compare the mean over several splits, by split name; `name` is what the result calls it.

    An origin's difference is its mean over the splits it occurs in, each the mean over its examples
    there; origins are resampled. Without groups the origin of an example is its place in the split.
    Where splits are the same images under different shifts that keeps an image together; where they
    have nothing in common, it is one valid pairing of independent examples among many.

    Raises ValueError as `compare` does, or for no pairs at all.
    """
    by_origin: dict[Hashable, list[float]] = {}
    for baseline, challenger, groups in pairs.values():
        differences = _differences(baseline, challenger, groups)
        origins = range(len(differences)) if groups is None else groups
        for origin, mean in _means_by_group(differences, origins).items():
            by_origin.setdefault(origin, []).append(mean)
    units = [_mean(means) for means in by_origin.values()]
    low, high = _interval(units, level)
    return Comparison(name, len(units), _mean(units), low, high, level, None)


def _differences(
    baseline: Sequence[float], challenger: Sequence[float], groups: Sequence[Hashable] | None
) -> list[float]:
    lengths = {len(baseline), len(challenger), len(challenger if groups is None else groups)}
    if len(lengths) > 1 or not baseline:
        raise ValueError(
            f"a paired comparison needs scores and groups of one length above zero, got {lengths}"
        )
    return [after - before for before, after in zip(baseline, challenger, strict=True)]


def _unit_means(differences: list[float], groups: Sequence[Hashable] | None) -> list[float]:
    return differences if groups is None else list(_means_by_group(differences, groups).values())


def _means_by_group(differences: Sequence[float], groups: Sequence[Hashable]) -> dict[Hashable, float]:
    members: dict[Hashable, list[float]] = {}
    for difference, group in zip(differences, groups, strict=True):
        members.setdefault(group, []).append(difference)
    return {group: _mean(values) for group, values in members.items()}


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("no splits to compare")
    return math.fsum(values) / len(values)


def _interval(units: Sequence[float], level: float) -> tuple[float, float]:
    if len(units) < 2 or not all(map(math.isfinite, units)):
        return -math.inf, math.inf
    if min(units) == max(units):
        return units[0], units[0]
    import numpy as np
    from scipy import stats

    found = stats.bootstrap(
        (np.asarray(units),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, DRAWN_AT_ONCE // len(units)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def _mcnemar(baseline: Sequence[float], challenger: Sequence[float]) -> float | None:
    """Two-sided p; None unless every score is 0 or 1."""
    if not {*baseline, *challenger} <= {0.0, 1.0}:
        return None
    gained = sum(after > before for before, after in zip(baseline, challenger, strict=True))
    lost = sum(after < before for before, after in zip(baseline, challenger, strict=True))
    if gained == lost:  # also 0 of 0, which binomtest does not take
        return 1.0
    from scipy import stats

    return float(stats.binomtest(gained, gained + lost).pvalue)
