"""Which examples to evaluate next: what a soup will score on each is foretold from the passes of what it is
made of. It changes no answer.

A margin is the gap between an example's two greatest outputs, negative where the answer is wrong. The
soup of k ingredients and a candidate, averaged with weights k and 1, has about the average of their
margins. (The margin of their averaged outputs needs the outputs of both, and the task to score what no model
said; on 36 trained sweeps, of 10 and of 150 classes, its order cost the same: 0.938 of the goal on average.)

A rejection is proven by low scores, wherever they are; an acceptance needs every canonical batch, so that
re-ordered batches spent on it are lost. The constants were chosen on trained sweeps other than those of
``tests/benchmarks/early_rejection.py``; the cost moves by some percent when they are halved or doubled.
"""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from stockpot.evaluation.outputs import Floats, Remembered

Places = NDArray[np.intp]
Mask = NDArray[np.bool_]

LIKELY = 0.9
"""From this probability of acceptance on, canonical batches: they count whichever way it goes."""
UNLIKELY = 0.1
"""Below it the trial is taken for rejected, and only the proof is wanted."""
CAUTION = 2.0
"""The variance of a forecast sum, over that of independent examples: errors have causes in common."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """Per example, arrays of shape ``[n]``."""

    values: Floats
    """The margin where scores are all or nothing, else the score."""
    mean: Floats
    """Expected scores."""
    variance: Floats
    deficit: Floats
    """How far the expected score falls short of the greatest."""
    typical: float
    """How far the candidate's values are from the running soup's, over the number of ingredients."""
    half: float
    """Half the step between two sums of scores: zero where scores are not all or nothing."""


class Forecaster:
    """Foretells scores, and learns from each pass how far it was off."""

    def __init__(self, bounds: tuple[float, float]) -> None:
        self._bounds = bounds
        self._scale: float | None = None

    def forecast(self, running: Remembered, candidate: Remembered, ingredients: int) -> Forecast:
        """The scores of a soup of so many ingredients: a running soup's, and one candidate."""
        low, high = self._bounds
        decisive = self._decisive(running.scores) and self._decisive(candidate.scores)
        old, new = (
            self._values(known.scores, known.gaps, decisive=decisive) for known in (running, candidate)
        )
        values = np.nan_to_num(((ingredients - 1) * old + new) / ingredients)
        typical = float(np.nan_to_num(np.abs(new - old)).mean()) / ingredients + 1e-12
        spread = typical * (0.3 if self._scale is None else self._scale)
        if decisive:
            mean = low + (high - low) * ndtr(values / spread)
            variance = (high - mean) * (mean - low)
        else:
            mean, variance = values, np.full(len(values), spread * spread)
        half = (high - low) / 2 if decisive else 0.0
        return Forecast(values, mean, variance, high - mean, typical, half)

    def learn(self, forecast: Forecast, scores: Floats, gaps: Floats, seen: Mask) -> None:
        """Compare a forecast with what was seen."""
        values = self._values(scores, gaps, decisive=forecast.half > 0.0)[seen]
        size = np.abs(forecast.values[seen])
        close = size <= np.median(size)  # far from zero, an error turns no answer
        off = np.abs(values - forecast.values[seen])[close]
        off = off[np.isfinite(off)]
        if off.size:
            found = max(
                0.01, 1.48 * float(np.median(off)) / forecast.typical
            )  # 1.48: a deviation from a median
            self._scale = found if self._scale is None else 0.7 * self._scale + 0.3 * found

    def _decisive(self, scores: Floats) -> bool:
        low, high = self._bounds
        return bool(np.isfinite(low) and np.isin(scores, (low, high)).all())

    def _values(self, scores: Floats, gaps: Floats, *, decisive: bool) -> Floats:
        return np.where(scores == self._bounds[1], gaps, -gaps) if decisive else scores


class Lead(Enum):
    """What to evaluate next."""

    CANONICAL = "canonical batches"
    SWING = "the examples that may turn out either way: they tell soonest"
    LOW = "the examples of the lowest forecast scores: they prove the rejection"


def acceptance(
    forecast: Forecast, scores: Floats, seen: Mask, target: float, weights: Floats | None = None
) -> float:
    """The probability that the sum of all scores reaches the target: those seen, and forecast others.
    `weights`: how much each example counts, one on average.
    """
    unseen = ~seen
    known, mean, variance = scores, forecast.mean, forecast.variance
    if weights is not None:
        known, mean, variance = weights * scores, weights * mean, np.square(weights) * variance
    excess = known[seen].sum() + mean[unseen].sum() - target
    deviation = math.sqrt(CAUTION * variance[unseen].sum())
    if deviation == 0.0 or math.isnan(excess):
        return float(excess >= 0.0)
    return 0.5 * (1.0 + math.erf(excess / deviation / math.sqrt(2.0)))


def lead(accepted: float) -> Lead:
    """What to evaluate next, given the probability of acceptance."""
    if accepted > LIKELY:
        return Lead.CANONICAL
    return Lead.SWING if accepted > UNLIKELY else Lead.LOW


def next_examples(
    forecast: Forecast, unseen: Mask, lead: Lead, size: int, weights: Floats | None = None
) -> Places:
    """At most `size` unseen examples, those first that the lead asks for; ties in the split's order."""
    places = np.flatnonzero(unseen)
    swing = lead is Lead.SWING and forecast.half > 0.0  # else one variance stands for all
    keys = -forecast.variance if swing else forecast.mean
    if weights is not None:
        keys = -np.square(weights) * forecast.variance if swing else -weights * forecast.deficit
    return places[np.argsort(keys[places], kind="stable")[:size]]


def next_batch(
    forecast: Forecast | None, unseen: Mask, left: Mask, size: int, weights: Floats | None = None
) -> int:
    """The canonical batch, of those left, whose unseen examples are forecast to fall shortest.

    Without a forecast, or among equals, the first.
    """
    if forecast is None:
        return int(np.argmax(left))
    deficit = forecast.deficit if weights is None else weights * forecast.deficit
    short = np.where(unseen, deficit, 0.0)
    falls = np.add.reduceat(short, np.arange(0, len(short), size))
    return int(np.argmax(np.where(left, falls, -np.inf)))
