"""Paired comparisons of two recipes on the same examples: how much better, and how sure that is."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from stockpot.entities import Comparison, Score, exact_mean
from stockpot.evaluation.intervals import (
    FEWEST_FOR_RESAMPLING,
    FEWEST_THAT_DIFFER,
    MOST_DISTINCT,
    Origins,
    error_of,
    resampled,
    student,
    tango,
    unmet,
)
from stockpot.evaluation.jackknife import jackknife

ROUNDING = 1e-12
"""Standard errors of less are none."""
Pair = tuple[Score, Score, Sequence[Hashable] | None]
"""Baseline's score, challenger's score, and each example's origin if several share one."""
Examples = tuple[Sequence[float], Sequence[float]]
"""Baseline's scores and challenger's."""

NO_INTERVAL = "none"


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

    Interval and test never contradict each other: where the test finds no difference at the level, the
    interval is opened as far as 0.

    Source: McNemar (1947) with the exact binomial distribution of the discordant pairs.

    Raises ValueError for examples or groups that are missing or differ in number, and where one score has
    a metric that the other has not, or has for other blocks.
    """
    found = compare_mean(split, {split: (baseline, challenger, groups)}, level=level)
    if baseline.metric is not None or found.n < len(baseline.examples):
        return found
    p = _mcnemar(baseline.examples, challenger.examples)
    if p is not None and p >= 1 - level:
        found = replace(found, low=min(found.low, 0.0), high=max(found.high, 0.0))
    return replace(found, mcnemar_p=p)


def compare_mean(name: str, pairs: Mapping[str, Pair], *, level: float = 0.95) -> Comparison:
    """Compare the mean over splits of each split's value; `name` is what the result calls it.

    Without groups, splits of one length are taken for the same examples under different shifts, and the
    place is the origin; where lengths differ each example is an origin of its own. The interval is paired.


    ======================================  =================================================
    metrics                                 the jackknife's, from their replicates (`jackknife`)
    too few origins in some split for the   none: that of all reals, as for a difference that
    level, fewer than 6 for 95 %            is not finite
    scores of 0 and 1, each its own origin  Tango's score interval
    the same, of 50 origins or more         Tango's, of as many pairs as would have this standard error
    fewer than 50 origins, or fewer than    Student's t, with the standard error of the
    10 that differ, or over 1000 distinct   jackknife over origins
    all else                                percentile bootstrap of the origins (`resampled`)
    ======================================  =================================================

    Where no origin differs from another, what so many origins leave open (`unmet`).

    Student's t and the bootstrap take the error from the differences that were drawn, and know nothing of
    rare ones that were not. Neither end is therefore nearer than Tango's, from `_of_parts`, where scores are
    0 and 1, and where few origins carry a difference of others: fewer than 50, and fewer than half of
    all (`Origins.carrying`). Such an interval is called widened.

    Where many origins differ a little, a rare large loss that was not drawn stays unknown. So it does for
    metrics: they have no differences of single examples, and no range that is known.

    Raises ValueError as `compare` does, or for no pairs at all.
    """
    if not pairs:
        raise ValueError("no splits to compare")
    for pair in pairs.values():
        _require_pairs(*pair)
    places: dict[Hashable, int] = {}
    origins = [[places.setdefault(origin, len(places)) for origin in split] for split in _origins(pairs)]
    difference = exact_mean([_difference(before, after) for before, after, _ in pairs.values()])
    scores = [(before, after) for before, after, _ in pairs.values()]
    low, high, method = -math.inf, math.inf, NO_INTERVAL
    if math.isfinite(difference) and 2 * 0.5 ** _fewest(origins) <= 1 - level:
        if any(before.metric for before, _ in scores):
            reach, method = jackknife(scores, origins, level), "jackknife"
            low, high = difference - reach, difference + reach
        else:
            low, high, method = _interval(scores, origins, difference, level)
    return Comparison(name, len(places), difference, low, high, level, None, method)


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


def _interval(
    scores: Sequence[tuple[Score, Score]], places: Sequence[Sequence[int]], difference: float, level: float
) -> tuple[float, float, str]:
    """Both ends, and the method's name. The table in `compare_mean` says which."""
    origins = _origins_of(scores, places)
    pairs = [(before.examples, after.examples) for before, after in scores]
    right_or_wrong = all(_right_or_wrong(*pair) for pair in pairs)
    reach = 1.0 if right_or_wrong else _range(pairs)
    alone = len(scores) == 1 and origins.count == len(pairs[0][0])
    if right_or_wrong and (alone or origins.fewest >= FEWEST_FOR_RESAMPLING):
        return (*_of_parts(origins, pairs, reach, level), "tango")
    if error_of(origins) < ROUNDING:
        return (*unmet(difference, origins.fewest, reach, level), "unmet")
    few = origins.fewest < FEWEST_FOR_RESAMPLING or origins.differing < FEWEST_THAT_DIFFER
    if few or origins.distinct > MOST_DISTINCT:
        low, high, method = *student(origins, difference, level), "student"
    else:
        low, high, method = *resampled(origins, level), "bootstrap"
    carried_by_few = origins.carrying < min(FEWEST_FOR_RESAMPLING, origins.count / 2)
    if not (right_or_wrong or carried_by_few):
        return low, high, method
    lowest, highest = _of_parts(origins, pairs, reach, level)
    return min(low, lowest), max(high, highest), "widened"


def _of_parts(origins: Origins, pairs: Sequence[Examples], reach: float, level: float) -> tuple[float, float]:
    """Tango's interval, where a difference is the part of a whole pair that it is of `reach`.

    Of all scores within `reach`, those that are at one of its ends vary most. The interval is thus that of
    the worst scores with these gains and losses, and far too wide where all differ by a little.
    """
    parts = [[(b - a) / reach for a, b in zip(*pair, strict=True) if a != b] for pair in pairs]
    sizes = [len(before) for before, _ in pairs]

    def mean(of: Callable[[float], float]) -> float:
        return exact_mean([math.fsum(map(of, split)) / n for split, n in zip(parts, sizes, strict=True)])

    gained, lost = mean(lambda part: max(part, 0.0)), mean(lambda part: max(-part, 0.0))
    variance = mean(lambda part: part * part) - (gained - lost) ** 2
    n = _as_many_pairs(origins, sum(sizes), variance * reach**2)
    low, high = tango(gained * n, lost * n, n, level)
    return low * reach, high * reach


def _origins_of(scores: Sequence[tuple[Score, Score]], places: Sequence[Sequence[int]]) -> Origins:
    import numpy as np

    n = 1 + max(map(max, places))
    sums = [np.bincount(o, _differences(*s), n) for o, s in zip(places, scores, strict=True)]
    return Origins(np.array(sums), np.array([np.bincount(o, minlength=n) for o in places], float))


def _as_many_pairs(origins: Origins, examples: int, variance: float) -> float:
    """Independent pairs of this variance that would have the standard error that the origins have.

    One at least. No more than there are examples; no more than origins, where so few differ that the error is
    a guess.

    Source: Rao and Scott, "A simple method for the analysis of clustered binary data", Biometrics 48 (1992).
    """
    error = error_of(origins) * math.sqrt(1 - 1 / origins.count)  # as a mean of independent pairs has it
    sparse = origins.differing < min(FEWEST_THAT_DIFFER, origins.count / 2)
    most = float(origins.fewest if sparse else examples)
    return max(1.0, min(most, variance / error**2)) if error > ROUNDING else float(origins.fewest)


def _range(pairs: Sequence[Examples]) -> float:
    """Of the scores that were seen: no difference is known to be larger."""
    seen = [score for pair in pairs for side in pair for score in side]
    return max(seen) - min(seen)


def _right_or_wrong(baseline: Sequence[float], challenger: Sequence[float]) -> bool:
    return {*baseline, *challenger} <= {0.0, 1.0}


def _mcnemar(baseline: Sequence[float], challenger: Sequence[float]) -> float | None:
    """Two-sided p; None unless every score is 0 or 1."""
    if not _right_or_wrong(baseline, challenger):
        return None
    gained = sum(after > before for before, after in zip(baseline, challenger, strict=True))
    lost = sum(after < before for before, after in zip(baseline, challenger, strict=True))
    if gained == lost:
        return 1.0
    from scipy.special import bdtr  # scipy.stats takes a second to import

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))  # rounding may go beyond 1
