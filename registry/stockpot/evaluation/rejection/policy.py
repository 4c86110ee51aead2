"""Which examples to evaluate next: in what order, and when to stop re-ordering. It changes no answer.

A rejection is proven by low scores, wherever they are; an acceptance needs every canonical batch, so that
re-ordered batches spent on it are lost. The constants were chosen on trained sweeps other than those of
``tests/benchmarks/early_rejection.py``; the cost moves by some percent when they are halved or doubled.
"""

import math
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from stockpot.evaluation.rejection.forecast import Forecast

Places = NDArray[np.intp]
Mask = NDArray[np.bool_]

LIKELY = 0.9
"""From this probability of acceptance on, canonical batches: they count whichever way it goes."""
UNLIKELY = 0.1
"""Below it the trial is taken for rejected, and only the proof is wanted."""
CAUTION = 2.0
"""The variance of a forecast sum, over that of independent examples: errors have causes in common."""


class Lead(Enum):
    """What to evaluate next."""

    CANONICAL = "canonical batches"
    SWING = "the examples that may turn out either way: they tell soonest"
    LOW = "the examples of the lowest forecast scores: they prove the rejection"


def acceptance(forecast: Forecast, scores: NDArray[np.float64], seen: Mask, target: float) -> float:
    """The probability that the sum of all scores reaches the target: those seen, and forecast others."""
    unseen = ~seen
    excess = scores[seen].sum() + forecast.mean[unseen].sum() - target
    deviation = math.sqrt(CAUTION * forecast.variance[unseen].sum())
    if deviation == 0.0 or math.isnan(excess):
        return float(excess >= 0.0)
    return 0.5 * (1.0 + math.erf(excess / deviation / math.sqrt(2.0)))


def lead(accepted: float) -> Lead:
    """What to evaluate next, given the probability of acceptance."""
    if accepted > LIKELY:
        return Lead.CANONICAL
    return Lead.SWING if accepted > UNLIKELY else Lead.LOW


def next_examples(forecast: Forecast, unseen: Mask, lead: Lead, size: int) -> Places:
    """At most `size` unseen examples, those first that the lead asks for; ties in the split's order."""
    places = np.flatnonzero(unseen)
    swing = lead is Lead.SWING and forecast.half > 0.0  # else one variance stands for all
    keys = -forecast.variance if swing else forecast.mean
    return places[np.argsort(keys[places], kind="stable")[:size]]


def next_batch(forecast: Forecast | None, unseen: Mask, left: Mask, size: int) -> int:
    """The canonical batch, of those left, whose unseen examples are forecast to fall shortest.

    Without a forecast, or among equals, the first.
    """
    if forecast is None:
        return int(np.argmax(left))
    short = np.where(unseen, forecast.deficit, 0.0)
    falls = np.add.reduceat(short, np.arange(0, len(short), size))
    return int(np.argmax(np.where(left, falls, -np.inf)))
