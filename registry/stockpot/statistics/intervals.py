"""How sure a difference of means is: intervals for paired scores.

Examples that share an origin count together. `Origins` holds what each origin adds to each split's mean.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

SEED = 0
"""Of the resampling: the same scores always give the same interval."""
RESAMPLES = 9999
FEWEST_FOR_RESAMPLING = 50
"""Origins. Resampling of fewer covers too little; Student's t is for those."""
FEWEST_THAT_DIFFER = 10
"""Origins. Where fewer make a difference, resamples without any are frequent, and mean nothing."""
MOST_DISTINCT = 1000
"""Different origins that are resampled by count. The mean of more is as good as normal."""
HALVINGS = 60
"""Of an interval of length 2: to the last bit."""
_INTEGERS = 2**62
"""Below, products of numbers of kinds are exact."""


@dataclass(frozen=True)
class Origins:
    """`sums` and `sizes`, arrays ``[splits, origins]``: of the differences of an origin's examples in a
    split, and how many those are. The difference is the mean over splits of each split's mean.
    """

    sums: Any
    sizes: Any

    @property
    def count(self) -> int:
        """Of all origins."""
        return int(self.sums.shape[1])

    @property
    def fewest(self) -> int:
        """Origins of the split that has the fewest."""
        return int((self.sizes > 0).sum(axis=1).min())

    @property
    def differing(self) -> int:
        """Origins whose means are not those of most of them, however many examples each has."""
        import numpy as np

        unmoved = int((self.sums == 0).all(axis=0).sum())
        if unmoved > self.count / 2:  # as ever so often; the search for the most frequent takes longer
            return self.count - unmoved
        return int(self.count - _alike(self.sums / np.maximum(self.sizes, 1))[1].max())

    @property
    def carrying(self) -> float:
        """Origins that carry the difference: so many equal ones would add as much to it, as unevenly.

        Of d, what each origin adds, it is the square of the sum of abs(d), divided by the sum of squares: 1
        where a single one differs, two thirds of all where the differences are normal.

        Source: Kish, "Survey Sampling" (1965), the effective number of unequal weights.
        """
        import numpy as np

        parts = np.abs((self.sums / self.sizes.sum(axis=1, keepdims=True)).sum(axis=0))
        return float(parts.sum() ** 2 / np.square(parts).sum()) if parts.any() else 0.0

    @property
    def many_kinds(self) -> bool:
        """Whether more than MOST_DISTINCT origins are not alike."""
        import numpy as np

        steps = (np.count_nonzero(np.diff(np.sort(column))) for column in self._columns)
        return any(step >= MOST_DISTINCT for step in steps) or len(self.kinds[1]) > MOST_DISTINCT

    @cached_property
    def error(self) -> float:
        """The standard error of the difference: the delete-one-origin jackknife's. Infinite where an origin
        is all that a split has.

        Source: Cameron and Miller, "A Practitioner's Guide to Cluster-Robust Inference", Journal of Human
        Resources 50 (2015), section VI, for few clusters.
        """
        import numpy as np

        sums, sizes = (part.sum(axis=1, keepdims=True) - part for part in (self.sums, self.sizes))
        with np.errstate(invalid="ignore", divide="ignore"):
            without = (sums / sizes).mean(axis=0)
        if not np.isfinite(without).all():
            return math.inf
        return math.sqrt(float((self.count - 1) / self.count * np.square(without - without.mean()).sum()))

    @cached_property
    def kinds(self) -> tuple[Any, Any]:
        """Distinct ones, a row each: its sums, then its sizes; and how many origins have each."""
        first, counts = _alike(self._columns)
        return self._columns[:, first].T, counts

    @cached_property
    def _columns(self) -> Any:
        import numpy as np

        return np.concatenate([self.sums, self.sizes])


def _alike(columns: Any) -> tuple[Any, Any]:
    """Of the rows of a table, given by its columns: where each distinct one is first, and how often it is
    there.
    """
    import numpy as np

    kind, kinds = np.zeros(columns.shape[1], int), 1
    for column in columns:  # numpy's own search for distinct rows takes ten times as long
        if (column == column[0]).all():
            continue
        distinct, places = np.unique(column, return_inverse=True)
        if kinds * len(distinct) >= _INTEGERS:
            known, kind = np.unique(kind, return_inverse=True)
            kinds = len(known)
        kind, kinds = kind * len(distinct) + places, kinds * len(distinct)
    return np.unique(kind, return_index=True, return_counts=True)[1:]


def _mean_over_splits(weights: Any, table: Any) -> Any:
    import numpy as np

    totals = weights @ table
    splits = table.shape[1] // 2
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no example of some split
        return (totals[..., :splits] / totals[..., splits:]).mean(axis=-1)


def resampled(origins: Origins, level: float) -> tuple[float, float]:
    """The percentile bootstrap: origins drawn with replacement, as counts of each distinct one.

    Origins that are alike are drawn together, by one multinomial: the same distribution as drawing each, in a
    thousandth of the time where scores are 0 or 1.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    import numpy as np

    distinct, counts = origins.kinds
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(origins.count, counts / origins.count, size=RESAMPLES)
    means = _mean_over_splits(drawn, distinct)
    low, high = np.quantile(means[np.isfinite(means)], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def student_quantile(share: float, freedom: int) -> float:
    """Below which this share of Student's t lies, with so many degrees of freedom."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, share))


def student(origins: Origins, difference: float, level: float) -> tuple[float, float]:
    """Student's t with one degree of freedom less than the split of the fewest origins has of them."""
    reach = student_quantile((1 + level) / 2, origins.fewest - 1) * origins.error
    return difference - reach, difference + reach


def tango(gained: float, lost: float, n: float, level: float) -> tuple[float, float]:
    """For paired right-or-wrong scores: all differences that a score test does not reject.

    `gained` and `lost`: of `n` pairs, those that only the challenger, or only the baseline, gets right. They
    need not be whole numbers. At a difference of 0 the test is McNemar's.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998), equations 8 to 10.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    return _lower_end(gained, lost, n, z), -_lower_end(lost, gained, n, z)


def _lower_end(gained: float, lost: float, n: float, z: float) -> float:
    """The least difference of which the score statistic, which falls as it rises, is at most z."""
    low, high = -1.0, (gained - lost) / n
    if _score_statistic(gained, lost, n, low) <= z:
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _score_statistic(gained, lost, n, middle) > z:
            low = middle
        else:
            high = middle
    return high


def _score_statistic(gained: float, lost: float, n: float, difference: float) -> float:
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    losing = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (
        4 * n
    )  # the likeliest share, given the difference
    variance = n * (2 * losing + difference * (1 - difference))
    distance = gained - lost - n * difference
    if variance > 0:
        return distance / math.sqrt(variance)
    return math.copysign(math.inf, distance) if distance else 0.0


def unmet(difference: float, n: int, reach: float, level: float) -> tuple[float, float]:
    """What `n` origins that all agree leave open: a share of others, each anywhere within `reach` of nothing.

    Source: Clopper and Pearson (1934), with no case in n.
    """
    share = 1 - ((1 - level) / 2) ** (1 / n)
    return difference - share * (reach + difference), difference + share * (reach - difference)
