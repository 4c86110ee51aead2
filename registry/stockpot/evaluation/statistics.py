"""Paired comparisons of two recipes on the same examples: how much better, and how sure that is."""

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stockpot.entities import Comparison, Score, exact_mean
from stockpot.evaluation.jackknife import jackknife

SEED = 0
"""Of the bootstrap: the same scores always give the same interval."""
RESAMPLES = 9999
DRAWN_AT_ONCE = 2_000_000
"""Resampled numbers held in memory at a time: some 32 MB, whatever n is."""
ROUNDING = 1e-12
"""Means of 0 and 1 that differ by less are equal."""

Pair = tuple[Score, Score, Sequence[Hashable] | None]
"""Baseline's score, challenger's score, and each example's origin if several share one."""


def compare(
    split: str,
    baseline: Score,
    challenger: Score,
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Comparison:
    """The difference on one split, its interval as in `compare_mean`, and for scores without a metric
    exact McNemar's test.

    With `groups`, examples of one origin are resampled together.

    Source: McNemar (1947) with the exact binomial distribution of the discordant pairs.

    Raises ValueError for examples or groups that are missing or differ in number, and where one score has
    a metric that the other has not, or has for other blocks.
    """
    found = compare_mean(split, {split: (baseline, challenger, groups)}, level=level)
    if baseline.metric is not None or found.n < len(baseline.examples):
        return found
    return replace(found, mcnemar_p=_mcnemar(baseline.examples, challenger.examples))


def compare_mean(name: str, pairs: Mapping[str, Pair], *, level: float = 0.95) -> Comparison:
    """Compare the mean over splits of each split's value; `name` is what the result calls it.

    Where a split's value is its mean over examples, the interval is the paired percentile bootstrap's:
    origins are resampled, each with its examples in all splits. Where it is a metric, the interval is that
    of `jackknife`, from the metrics' replicates.

    Without groups, splits of one length are taken for the same examples under different
    shifts, and the place is the origin; where lengths differ each example is an origin of its own.

    The interval is that of all reals for a difference that is not finite, and where a split has too few
    origins for the level: fewer than 6 for 95 %. Where no resample differs from another, scores of 0
    and 1 get the binomial bound on what was not met in n draws; other scores have no known range, and
    their interval is a point.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; Clopper and
    Pearson (1934) with no case in n.

    Raises ValueError as `compare` does, or for no pairs at all.
    """
    if not pairs:
        raise ValueError("no splits to compare")
    for pair in pairs.values():
        _require_pairs(*pair)
    places: dict[Hashable, int] = {}
    origins = [[places.setdefault(origin, len(places)) for origin in split] for split in _origins(pairs)]
    difference = exact_mean([_difference(before, after) for before, after, _ in pairs.values()])
    low, high = -math.inf, math.inf
    if math.isfinite(difference) and 2 * 0.5 ** _fewest(origins) <= 1 - level:
        scores = [(before, after) for before, after, _ in pairs.values()]
        if any(before.metric for before, _ in scores):
            reach = jackknife(scores, origins, level)
            low, high = difference - reach, difference + reach
        else:
            low, high = _bootstrap(scores, origins, difference, level)
    return Comparison(name, len(places), difference, low, high, level, None)


def _require_pairs(baseline: Score, challenger: Score, groups: Sequence[Hashable] | None) -> None:
    n = len(baseline.examples)
    lengths = {n, len(challenger.examples), n if groups is None else len(groups)}
    if len(lengths) > 1 or not n:
        raise ValueError(
            f"a paired comparison needs scores and groups of one length above zero, got {lengths}"
        )
    if (baseline.metric is None) != (challenger.metric is None):
        raise ValueError("a metric of the whole split cannot be compared with a mean over its examples")


def _difference(baseline: Score, challenger: Score) -> float:
    if baseline.metric and challenger.metric:
        return challenger.metric.value - baseline.metric.value
    return exact_mean(_differences(baseline, challenger))


def _differences(baseline: Score, challenger: Score) -> list[float]:
    return [after - before for before, after in zip(baseline.examples, challenger.examples, strict=True)]


def _fewest(origins: Sequence[Sequence[int]]) -> int:
    return min(len(set(split)) for split in origins)


def _origins(pairs: Mapping[str, Pair]) -> list[Sequence[Hashable]]:
    """The origin of each example of each split."""
    lengths = {len(baseline.examples) for baseline, _, _ in pairs.values()}
    aligned = len(lengths) == 1 and all(groups is None for _, _, groups in pairs.values())
    return [
        groups
        if groups is not None
        else [place if aligned else (split, place) for place in range(len(baseline.examples))]
        for split, (baseline, _, groups) in pairs.items()
    ]


def _bootstrap(
    scores: Sequence[tuple[Score, Score]], origins: Sequence[Sequence[int]], difference: float, level: float
) -> tuple[float, float]:
    means = _resampled([_differences(*pair) for pair in scores], origins, 1 + max(map(max, origins)))
    if means.max() - means.min() < ROUNDING and all(
        _right_or_wrong(before.examples, after.examples) for before, after in scores
    ):
        return _unmet(difference, _fewest(origins), level)
    return _percentiles(means, level)


def _resampled(differences: Sequence[Sequence[float]], origins: Sequence[Sequence[int]], n: int) -> Any:
    """The mean over splits in each resample of the `n` origins: an array ``[resamples]``."""
    import numpy as np
    from scipy import stats

    sums = [np.bincount(o, weights=d, minlength=n) for o, d in zip(origins, differences, strict=True)]
    sizes = [np.bincount(o, minlength=n) for o in origins]

    def mean_over_splits(*drawn: Any, axis: int) -> Any:
        totals = [column.sum(axis=axis) for column in drawn]
        return np.mean([totals[i] / totals[i + len(sums)] for i in range(len(sums))], axis=0)

    # A resample may hold no example of some split: 0 / 0, and scipy's own interval would be NaN.
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        means = stats.bootstrap(
            (*sums, *sizes),
            mean_over_splits,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, DRAWN_AT_ONCE // (n * 2 * len(sums))),
            method="percentile",
            rng=np.random.default_rng(SEED),
        ).bootstrap_distribution
    return means[~np.isnan(means)]


def _percentiles(means: Any, level: float) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _unmet(difference: float, n: int, level: float) -> tuple[float, float]:
    """What n origins that all agree leave open: a share of others, each anywhere within [-1, 1]."""
    share = 1 - ((1 - level) / 2) ** (1 / n)
    return difference - share * (1 + difference), difference + share * (1 - difference)


def _right_or_wrong(baseline: Sequence[float], challenger: Sequence[float]) -> bool:
    return {*baseline, *challenger} <= {0.0, 1.0}


def _mcnemar(baseline: Sequence[float], challenger: Sequence[float]) -> float | None:
    """Two-sided p; None unless every score is 0 or 1."""
    if not _right_or_wrong(baseline, challenger):
        return None
    gained = sum(after > before for before, after in zip(baseline, challenger, strict=True))
    lost = sum(after < before for before, after in zip(baseline, challenger, strict=True))
    if gained == lost:  # also 0 of 0, which binomtest does not take
        return 1.0
    from scipy import stats

    return float(stats.binomtest(gained, gained + lost).pvalue)
