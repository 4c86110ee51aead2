"""What is known of a recipe's score while it is measured, and when its rejection is certain.

Whether early rejection is exact can be checked by reading this module alone: how examples are ordered
and gathered elsewhere decides only how soon a Bound comes.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stockpot.entities import Aim, Bound, Score, Threshold, exact_mean
from stockpot.ports import OrderDependent


class Rough:
    """What scores come to by numpy's sums, which are fast, and not exact."""

    def __init__(self, n: int, aim: Aim | None) -> None:
        self._n = n
        self._aim = aim
        if aim is None:
            return
        self._places = [np.array(aim.places(domain)) for domain in aim.counting]
        self._weights = np.array([*aim.share.values()])

    def value(self, scores: NDArray[np.float64]) -> float:
        """Of scores ``[n]``, within a rounding of the exact value."""
        if self._aim is None:
            return float(scores.sum()) / self._n
        means = np.array([scores[places].mean() for places in self._places])
        return float(means.min() if self._aim.worst else self._weights @ means)

    def weights(self, expected: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """How much each example counts, ``[n]``, one on average; None where all count the same. Of the worst
        domain alone each one: which that will be is told by the `expected` scores.
        """
        if self._aim is None:
            return None
        shares = self._weights
        if self._aim.worst:
            least = int(np.argmin([expected[places].mean() for places in self._places]))
            shares = np.eye(len(self._places))[least]
        found = np.zeros(self._n)
        for places, share in zip(self._places, shares, strict=True):
            found[places] = share * self._n / len(places)
        return found


class Tally:
    """Per-example scores by place, each example counted once, seen in whatever order.

    An example may be seen in a batch made of chosen examples (re-ordered), in its canonical batch, or in
    both. A Bound counts all that was seen. A Score is made of canonical batches only.

    NaN: a full score is NaN as soon as one example's is, and NaN is never accepted. A recipe in which a
    NaN was seen gets no Bound, but its full score. A NaN among the unseen examples makes the score that a
    Bound stands for NaN: the rejection is the plain loop's too.
    """

    def __init__(self, n: int, *, greatest: float, threshold: Threshold) -> None:
        self.scores: NDArray[np.float64] = np.full(n, greatest)
        """What each example scores at most: its score, once seen."""
        self.gaps: NDArray[np.float64] = np.zeros(n)
        self.seen: NDArray[np.bool_] = np.zeros(n, dtype=bool)
        self._measured: NDArray[np.bool_] = np.zeros(n, dtype=bool)
        self._threshold = threshold
        self._roughly = Rough(n, threshold.aim)

    def add(
        self,
        places: Sequence[int],
        scores: NDArray[np.float64],
        gaps: NDArray[np.float64],
        *,
        canonical: bool,
    ) -> None:
        """Take the scores of the examples at these places, and the gaps, which tell outputs apart.

        Raises OrderDependent where an example was seen before with another score or gap.
        """
        at = np.asarray(places)
        known = self.seen[at]
        for before, now in ((self.scores[at], scores), (self.gaps[at], gaps)):
            if not np.array_equal(before[known], now[known], equal_nan=True):
                raise OrderDependent(f"example {at[known][0]} or a later one of its batch")
        self.scores[at] = scores
        self.gaps[at] = gaps
        self.seen[at] = True
        if canonical:
            self._measured[at] = True

    def bound(self) -> Bound | None:
        """The rejection, once acceptance is impossible.

        The exact sum of the scores seen and the greatest possible ones of the unseen, rounded once and
        divided once as the full score is: both roundings are monotone, so the full score is never above.
        Where the threshold has an aim, all its steps are monotone as well.
        """
        rough = self._roughly.value(self.scores)
        slack = 1e-9 * (1.0 + abs(rough))  # far above the rounding of a plain sum: spares the exact one
        if math.isnan(rough) or self._threshold.met_by(rough - slack):
            return None
        aim, scores = self._threshold.aim, self.scores.tolist()
        upper = exact_mean(scores) if aim is None else aim.value(scores)
        if math.isnan(upper):  # beyond the floats, as the full score is
            return None
        return None if self._threshold.met_by(upper) else Bound(upper, mixed=self._mixed)

    @property
    def _mixed(self) -> bool:
        """Whether an example counts that was seen among others than those of its own batch."""
        return bool((self.seen & ~self._measured).any())

    def score(self) -> Score | None:
        """The full score, once every example was seen in its canonical batch."""
        if not self._measured.all():
            return None
        return Score(tuple(self.scores.tolist()), gaps=tuple(self.gaps.tolist()))
