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
FEWEST_OF_A_STRATUM = 10
"""Origins. Resampling of n has (n - 1) / n of their variance: at least nine tenths of it."""
_INTEGERS = 2**62
"""Below, products of numbers of kinds are exact."""


@dataclass(frozen=True)
class Origins:
    """`sums` and `sizes`, arrays ``[splits, origins]``: of the differences of an origin's examples in a
    split, and how many those are. The difference is the mean over splits of each split's mean.

    With `weights`, one a split, not all zero: the splits are domains of one mixture, and the difference is
    their weighted mean. Each domain then has its own number of origins, which resampling keeps (`strata`),
    and rare losses of its own, which others do not tell of (`parts`).

    Source of strata: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 3.2.
    """

    sums: Any
    sizes: Any
    weights: Any = None

    @property
    def count(self) -> int:
        """Of all origins."""
        return int(self.sums.shape[1])

    @property
    def fewest(self) -> int:
        """Origins of the split that has the fewest."""
        return int((self.sizes > 0).sum(axis=1).min())

    @cached_property
    def shares(self) -> Any:
        """Of each split in the difference, ``[splits]``. Those of no mixture are 1: nothing rounds."""
        import numpy as np

        return np.ones(len(self.sums)) if self.weights is None else np.asarray(self.weights, float)

    @cached_property
    def strata(self) -> Any:
        """Of each origin the number of its stratum, from 0: those that are in the same domains. Strata of
        fewer than FEWEST_OF_A_STRATUM are one, with the next larger one where they are still too few: that
        can widen the interval, as single origins that stay in every resample would narrow it.
        """
        import numpy as np

        if self.weights is None:
            return np.zeros(self.count, int)
        _, strata, counts = np.unique(self.sizes > 0, axis=1, return_inverse=True, return_counts=True)
        merged, together = np.arange(1, len(counts) + 1), 0
        for stratum in np.argsort(counts, kind="stable"):
            if counts[stratum] < FEWEST_OF_A_STRATUM or 0 < together < FEWEST_OF_A_STRATUM:
                merged[stratum], together = 0, together + counts[stratum]
        return np.unique(merged[strata.ravel()], return_inverse=True)[1]

    @cached_property
    def parts(self) -> tuple["Origins", ...]:
        """What must be known of each by itself: of each domain of a mixture; else of all splits together."""
        if self.weights is None or len(self.sums) == 1:
            return (self,)
        return tuple(
            Origins(sums[None, sizes > 0], sizes[None, sizes > 0])
            for sums, sizes in zip(self.sums, self.sizes, strict=True)
        )

    @property
    def telling(self) -> float:
        """So many origins of one split would leave as much open of what is rare and was not met.

        Of a mixture, the least over strata of n / c: of n origins, which are c of the difference. A mean
        where each is met by its own chance and has its own weight varies no more than that of fewer, which
        all have the largest weight and are met by one chance.

        Source: Hoeffding, "On the distribution of the number of successes in independent trials", Annals of
        Mathematical Statistics 27 (1956), theorem 3.
        """
        import numpy as np

        if self.weights is None:
            return float(self.fewest)
        parts = self._mean(self.sizes / self.sizes.sum(axis=1, keepdims=True))
        return float((np.bincount(self.strata) / np.bincount(self.strata, parts)).min())

    @cached_property
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

        parts = np.abs(self._mean(self.sums / self.sizes.sum(axis=1, keepdims=True)))
        return float(parts.sum() ** 2 / np.square(parts).sum()) if parts.any() else 0.0

    @property
    def many_kinds(self) -> bool:
        """Whether more than MOST_DISTINCT origins are not alike."""
        import numpy as np

        steps = (np.count_nonzero(np.diff(np.sort(column))) for column in self._columns)
        return any(step >= MOST_DISTINCT for step in steps) or len(self.kinds[1]) > MOST_DISTINCT

    @cached_property
    def error(self) -> float:
        """The standard error of the difference: the delete-one-origin jackknife's, within strata. Infinite
        where an origin is all that a split has.

        Source: Cameron and Miller, "A Practitioner's Guide to Cluster-Robust Inference", Journal of Human
        Resources 50 (2015), section VI, for few clusters.
        """
        import numpy as np

        sums, sizes = (part.sum(axis=1, keepdims=True) - part for part in (self.sums, self.sizes))
        with np.errstate(invalid="ignore", divide="ignore"):
            without = self._mean(sums / sizes)
        if not np.isfinite(without).all():
            return math.inf
        strata = (without[self.strata == stratum] for stratum in range(self.strata.max() + 1))
        return math.sqrt(sum(float((len(s) - 1) / len(s) * np.square(s - s.mean()).sum()) for s in strata))

    @cached_property
    def kinds(self) -> tuple[Any, Any]:
        """Distinct ones, a row each: its sums, then its sizes; and how many origins have each."""
        first, counts = self._first
        return self._columns[:, first].T, counts

    def drawn(self, table: Any) -> Any:
        """Sums over RESAMPLES resamples of origins with replacement, as many of each stratum as there are; of
        a table with a row for each of `kinds`.

        Origins that are alike are drawn together, by one multinomial: the same distribution as drawing each,
        in a thousandth of the time where scores are 0 or 1.
        """
        import numpy as np

        first, counts = self._first
        rng, strata = np.random.default_rng(SEED), self.strata[first]
        totals: Any = 0.0
        for stratum in range(strata.max() + 1):
            of_it = strata == stratum
            n = counts[of_it].sum()
            totals = totals + rng.multinomial(n, counts[of_it] / n, size=RESAMPLES) @ table[of_it]
        return totals

    def _mean(self, of_splits: Any) -> Any:
        return (self.shares[:, None] * of_splits).sum(axis=0) / self.shares.sum()

    @cached_property
    def _first(self) -> tuple[Any, Any]:
        return _alike(self._columns)

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


def resampled(origins: Origins, level: float) -> tuple[float, float]:
    """The percentile bootstrap.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    import numpy as np

    sums, sizes = np.split(origins.drawn(origins.kinds[0]), 2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no example of some split
        means = (sums / sizes * origins.shares).sum(axis=1) / origins.shares.sum()
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


def unmet(difference: float, n: float, reach: float, level: float) -> tuple[float, float]:
    """What `n` origins that all agree leave open: a share of others, each anywhere within `reach` of nothing.

    Source: Clopper and Pearson (1934), with no case in n.
    """
    share = 1 - ((1 - level) / 2) ** (1 / n)
    return difference - share * (reach + difference), difference + share * (reach - difference)
