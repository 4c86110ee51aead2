"""Paired comparisons of two recipes on the same examples: how much better, and how sure that is."""

import math
import struct
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any

from stockpot.entities import Comparison, Score, exact_mean
from stockpot.statistics.intervals import (
    FEWEST_FOR_RESAMPLING,
    FEWEST_THAT_DIFFER,
    Origins,
    resampled,
    student,
    tango,
    unmet,
)
from stockpot.statistics.jackknife import jackknife

ROUNDING = 1e-12
"""Standard errors of less are none."""
Pair = tuple[Score, Score, Sequence[Hashable] | None]
"""Baseline's score, challenger's score, and each example's origin if several share one."""

NO_INTERVAL = "none"


@dataclass(frozen=True, eq=False)
class _Examples:
    """One split's, as arrays ``[n]``."""

    before: Any
    after: Any
    differences: Any

    @property
    def right_or_wrong(self) -> bool:
        return all(((scores == 0) | (scores == 1)).all() for scores in (self.before, self.after))


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
    found, (examples,) = compared(split, {split: (baseline, challenger, groups)}, level)
    if baseline.metric is not None or found.n < len(baseline.examples):
        return found
    p = _mcnemar(examples)
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

    Where no origin differs from another, what so many origins leave open (`unmet`). Neither end of a metric's
    interval is nearer than that either.

    Student's t and the bootstrap take the error from the differences that were drawn, and know nothing of
    rare ones that were not. Neither end is therefore nearer than Tango's, from `_of_parts`, where scores are
    0 and 1, and where few origins carry a difference of others: fewer than 50, and fewer than half of
    all (`Origins.carrying`). Such an interval is called widened.

    Where many origins differ a little, a rare large loss that was not drawn stays unknown. So it does for
    metrics, of which no example tells what it changes.

    Raises ValueError as `compare` does, or for no pairs at all.
    """
    return compared(name, pairs, level)[0]


def compared(
    name: str, pairs: Mapping[str, Pair], level: float, weights: Sequence[float] | None = None
) -> tuple[Comparison, list[_Examples]]:
    """The comparison of the mean over splits, or with `weights` of the weighted mean over the domains of a
    mixture; and each pair as arrays.
    """
    if not pairs:
        raise ValueError("no splits to compare")
    for pair in pairs.values():
        _require_pairs(*pair)
    scores = [(before, after) for before, after, _ in pairs.values()]
    examples = [_examples(*pair) for pair in scores]
    places, n = _origins(pairs, apart=weights is not None)
    origins = _origins_of(examples, places, n, weights)
    shares = origins.shares.tolist()
    difference = _weighted([_difference(*each) for each in zip(scores, examples, strict=True)], shares)
    low, high, method = -math.inf, math.inf, NO_INTERVAL
    if math.isfinite(difference) and 2 * 0.5**origins.fewest <= 1 - level:
        if any(before.metric for before, _ in scores):
            named = [split.tolist() for split in places]
            reach = jackknife(scores, named, level, shares)
            low, high, method = _of_metrics(scores, examples, origins, difference, reach, level)
        else:
            low, high, method = _interval(examples, origins, difference, level)
    return Comparison(name, n, difference, low, high, level, None, method), examples


def _require_pairs(baseline: Score, challenger: Score, groups: Sequence[Hashable] | None) -> None:
    n = len(baseline.examples)
    lengths = {n, len(challenger.examples), n if groups is None else len(groups)}
    if len(lengths) > 1 or not n:
        raise ValueError(
            f"a paired comparison needs scores and groups of one length above zero, got {lengths}"
        )
    if (baseline.metric is None) != (challenger.metric is None):
        raise ValueError("a metric of the whole split cannot be compared with a mean over its examples")


def _difference(scores: tuple[Score, Score], examples: _Examples) -> float:
    baseline, challenger = scores
    if baseline.metric and challenger.metric:
        return challenger.metric.value - baseline.metric.value
    return exact_mean(examples.differences.tolist())


def _weighted(values: Sequence[float], shares: Sequence[float]) -> float:
    """Their mean, as `exact_mean` has it."""
    parts = [share * value for share, value in zip(shares, values, strict=True)]
    return exact_mean(parts) * (len(parts) / math.fsum(shares))


def _examples(baseline: Score, challenger: Score) -> _Examples:
    import numpy as np

    before, after = (
        np.frombuffer(struct.pack(f"{len(score.examples)}d", *score.examples))  # twice as fast as numpy's own
        for score in (baseline, challenger)
    )
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is told by the mean
        return _Examples(before, after, after - before)


def _origins(pairs: Mapping[str, Pair], *, apart: bool) -> tuple[list[Any], int]:
    """The origin of each example of each split, an array of numbers from 0; and the count of origins.

    `apart`: the splits have no example in common, also where their lengths agree.
    """
    import numpy as np

    lengths = [len(baseline.examples) for baseline, _, _ in pairs.values()]
    if all(groups is None for _, _, groups in pairs.values()):
        aligned = len(set(lengths)) == 1 and not apart
        ends = [lengths[0]] * len(lengths) if aligned else np.cumsum(lengths).tolist()
        return [np.arange(end - n, end) for n, end in zip(lengths, ends, strict=True)], ends[-1]
    named = [
        _numbered(tuple([(split, place) for place in range(n)] if groups is None else groups))
        for (split, (_, _, groups)), n in zip(pairs.items(), lengths, strict=True)
    ]
    if all(names is named[0][1] for _, names in named):
        return [places for places, _ in named], len(named[0][1])
    everywhere: dict[Hashable, int] = defaultdict(count().__next__)
    numbers = [np.fromiter(map(everywhere.__getitem__, names), int, len(names)) for _, names in named]
    return [number[places] for number, (places, _) in zip(numbers, named, strict=True)], len(everywhere)


@lru_cache(maxsize=8)  # each recipe of a report asks for those of the same splits, twice
def _numbered(groups: tuple[Hashable, ...]) -> tuple[Any, tuple[Hashable, ...]]:
    """Of each example its group's place among all groups, and these, in the order of their appearance."""
    import numpy as np

    numbers: dict[Hashable, int] = defaultdict(count().__next__)
    return np.fromiter(map(numbers.__getitem__, groups), int, len(groups)), tuple(numbers)


def _interval(
    examples: Sequence[_Examples], origins: Origins, difference: float, level: float
) -> tuple[float, float, str]:
    """Both ends, and the method's name. The table in `compare_mean` says which."""
    right_or_wrong = all(split.right_or_wrong for split in examples)
    reach = 1.0 if right_or_wrong else _range(examples)
    alone = len(examples) == 1 and origins.count == len(examples[0].before)
    if right_or_wrong and (alone or origins.fewest >= FEWEST_FOR_RESAMPLING):
        return (*_of_parts(origins, examples, reach, level), "tango")
    if origins.error < ROUNDING:
        return (*unmet(difference, origins.telling, reach, level), "unmet")
    few = origins.fewest < FEWEST_FOR_RESAMPLING
    if few or origins.many_kinds or any(part.differing < FEWEST_THAT_DIFFER for part in origins.parts):
        low, high, method = *student(origins, difference, level), "student"
    else:
        low, high, method = *resampled(origins, level), "bootstrap"
    if not right_or_wrong and all(map(carried_by_many, origins.parts)):
        return low, high, method
    lowest, highest = _of_parts(origins, examples, reach, level)
    if not right_or_wrong and len(origins.parts) > 1:
        apart = _part_by_part(origins, examples, reach, level)
        lowest, highest = min((lowest, highest), apart, key=lambda ends: ends[1] - ends[0])
    return min(low, lowest), max(high, highest), "widened"


def _of_metrics(
    scores: Sequence[tuple[Score, Score]],
    examples: Sequence[_Examples],
    origins: Origins,
    difference: float,
    reach: float,
    level: float,
) -> tuple[float, float, str]:
    """`reach` to both sides, and neither end nearer than what so many origins leave open of each split: the
    replicates know nothing of rare differences that were not drawn.
    """
    if not math.isfinite(reach):
        return -math.inf, math.inf, "jackknife"
    ends = []
    for pair, split, sizes in zip(scores, examples, origins.sizes, strict=True):
        gain = _difference(pair, split)
        low, high = unmet(gain, int((sizes > 0).sum()), _scale(pair, split), level)
        ends.append((gain - low, high - gain))
    below, above = _added_up(ends, origins)
    low, high = difference - max(reach, below), difference + max(reach, above)
    if reach < ROUNDING:
        return low, high, "unmet"
    return low, high, "jackknife" if reach >= max(below, above) else "widened"


def _scale(pair: tuple[Score, Score], examples: _Examples) -> float:
    """How much a metric may differ: by 1 where it seems to be a share, as F1 and AUC are; else by as much as
    it is, or as examples' own scores do, whichever is more.
    """
    values = [score.metric.value for score in pair if score.metric is not None]
    if all(0 <= value <= 1 for value in values):
        return 1.0
    seen = _range([examples])
    return max(*(abs(value) for value in values), max(values) - min(values), seen if seen < math.inf else 0.0)


def carried_by_many(part: Origins) -> bool:
    """What Student's t and the bootstrap need."""
    return part.carrying >= min(FEWEST_FOR_RESAMPLING, part.count / 2) and part.error >= ROUNDING


def _of_parts(
    origins: Origins, examples: Sequence[_Examples], reach: float, level: float
) -> tuple[float, float]:
    """Tango's interval, where a difference is the part of a whole pair that it is of `reach`.

    Of all scores within `reach`, those that are at one of its ends vary most. The interval is thus that of
    the worst scores with these gains and losses, and far too wide where all differ by a little.
    """
    import numpy as np

    sizes = [len(split.before) for split in examples]
    parts = [split.differences[split.differences != 0] / reach for split in examples]

    def mean(of: Callable[[Any], Any]) -> float:
        means = [math.fsum(of(part).tolist()) / n for part, n in zip(parts, sizes, strict=True)]
        return _weighted(means, origins.shares.tolist())

    gained, lost = mean(lambda part: np.maximum(part, 0)), mean(lambda part: np.maximum(-part, 0))
    variance = mean(np.square) - (gained - lost) ** 2
    n = _as_many_pairs(origins, sum(sizes), variance * reach**2)
    low, high = tango(gained * n, lost * n, n, level)
    return low * reach, high * reach


def _part_by_part(
    origins: Origins, examples: Sequence[_Examples], reach: float, level: float
) -> tuple[float, float]:
    """Of a mixture, from an interval of each domain: where few of a domain's origins carry its difference,
    that domain alone has one of the worst scores. Their distances add up by `_added_up`.
    """
    import numpy as np

    middles = origins.sums.sum(axis=1) / origins.sizes.sum(axis=1)
    ends = []
    for middle, part, split in zip(middles, origins.parts, examples, strict=True):
        low, high = student(part, float(middle), level)
        if not carried_by_many(part):
            lowest, highest = _of_parts(part, [split], reach, level)
            low, high = min(low, lowest), max(high, highest)
        ends.append((low, high))
    below, above = _added_up(np.abs(np.array(ends) - middles[:, None]), origins)
    middle = float(origins.shares @ middles / origins.shares.sum())
    return middle - below, middle + above


def _added_up(distances: Any, origins: Origins) -> tuple[float, float]:
    """Of the distances to both ends of each split, ``[splits, 2]``, those to the ends of their mean.

    Squares of the distances add up as variances do; of splits that share an origin, the distances
    themselves, as if these were wrong together.

    Source: Zou, Huang and Zhang, "A note on confidence interval estimation for a linear function of binomial
    proportions", Computational Statistics and Data Analysis 53 (2009).
    """
    import numpy as np

    weighted = np.array(distances).T * (origins.shares / origins.shares.sum())
    together = (origins.sizes > 0) @ (origins.sizes > 0).T
    below, above = (math.sqrt(side @ together @ side) for side in weighted)
    return below, above


def origins_apart(pairs: Mapping[str, Pair]) -> Origins:
    """Of domains, which have no example in common and weigh the same."""
    places, n = _origins(pairs, apart=True)
    examples = [_examples(before, after) for before, after, _ in pairs.values()]
    return _origins_of(examples, places, n, [1.0] * len(examples))


def _origins_of(
    examples: Sequence[_Examples], places: Sequence[Any], n: int, weights: Sequence[float] | None
) -> Origins:
    import numpy as np

    sums = [np.bincount(o, split.differences, n) for o, split in zip(places, examples, strict=True)]
    return Origins(np.array(sums), np.array([np.bincount(o, minlength=n) for o in places], float), weights)


def _as_many_pairs(origins: Origins, examples: int, variance: float) -> float:
    """Independent pairs of this variance that would have the standard error that the origins have.

    One at least. No more than there are examples; no more than origins tell (`Origins.telling`), where so few
    differ that the error is a guess.

    Source: Rao and Scott, "A simple method for the analysis of clustered binary data", Biometrics 48 (1992).
    """
    error = origins.error * math.sqrt(1 - 1 / origins.count)  # as a mean of independent pairs has it
    sparse = any(part.differing < min(FEWEST_THAT_DIFFER, part.count / 2) for part in origins.parts)
    most = origins.telling if sparse else float(examples)
    return max(1.0, min(most, variance / error**2)) if error > ROUNDING else origins.telling


def _range(examples: Sequence[_Examples]) -> float:
    """Of the scores that were seen: no difference is known to be larger."""
    sides = [side for split in examples for side in (split.before, split.after)]
    return float(max(side.max() for side in sides) - min(side.min() for side in sides))


def _mcnemar(examples: _Examples) -> float | None:
    """Two-sided p; None unless every score is 0 or 1."""
    if not examples.right_or_wrong:
        return None
    gained, lost = int((examples.differences > 0).sum()), int((examples.differences < 0).sum())
    if gained == lost:
        return 1.0
    from scipy.special import bdtr  # scipy.stats takes a second to import

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))  # rounding may go beyond 1
