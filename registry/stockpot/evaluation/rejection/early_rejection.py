"""Stops the trials of a split early, where that changes no answer."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stockpot.entities import Bound, Recipe, Score, Threshold
from stockpot.evaluation.outputs import Floats, PassMemory
from stockpot.evaluation.passes.batches import Batches
from stockpot.evaluation.passes.forward import Answers, Forward, Reading
from stockpot.evaluation.rejection.forecast import (
    Forecast,
    Forecaster,
    Lead,
    acceptance,
    lead,
    next_batch,
    next_examples,
)
from stockpot.evaluation.rejection.tally import Rough, Tally
from stockpot.ports import OrderDependent

Reorders = Literal["examples", "batches", "nothing"]
PROBED = 2
"""Canonical batches that are mixed: every place in a batch then holds an example from elsewhere."""


@dataclass(frozen=True)
class Ended:
    """How a pass ended. A completed one has the outputs of each canonical batch, where they are kept."""

    outcome: Score | Bound
    tally: Tally
    outputs: list[Tensor | None]


class EarlyPass:
    """One trial, in batches of chosen examples and in canonical ones, until it is decided.

    `mixes` is asked before the first batch of chosen examples: whether examples may be gathered at all.
    It gets this pass, to probe with. Raises OrderDependent as `Tally.add` does.
    """

    def __init__(
        self,
        forward: Forward,
        threshold: Threshold,
        bounds: tuple[float, float],
        forecast: Forecast | None,
        mixes: Callable[["EarlyPass"], bool],
    ) -> None:
        batches = forward.batches
        self.forward = forward
        self.tally = Tally(batches.n, greatest=bounds[1], threshold=threshold)
        self._forecast = forecast
        self._mixes = mixes
        self._target = threshold.value * batches.n
        self._weights: Floats | None = None
        if forecast is not None:
            self._target += forecast.half if threshold.strict else -forecast.half
            self._weights = Rough(batches.n, threshold.aim).weights(forecast.mean)
        self._asked = np.zeros(batches.n, dtype=bool)
        self._left = np.ones(batches.count, dtype=bool)
        self._outputs: list[Tensor | None] = [None] * batches.count

    def run(self) -> Ended:
        """Evaluate until the tally has a Bound or a Score."""
        waiting: deque[tuple[Answers, Reading]] = deque()
        while True:
            answers = self._next()
            if answers is not None:
                waiting.append((answers, Reading(answers.readings)))
            # On a device one batch late: it works on this one while the one before is looked at.
            late = answers is not None and answers.readings.device.type == "cuda"
            while len(waiting) > late:
                self.take(*waiting.popleft())
            outcome = self.tally.score() or self.tally.bound()  # what was completed is a Score
            if outcome is not None:
                return Ended(outcome, self.tally, self._outputs)

    @property
    def left(self) -> int:
        """Canonical batches not evaluated yet."""
        return int(self._left.sum())

    def measure(self) -> Answers:
        """Evaluate the next canonical batch."""
        batches = self.forward.batches
        batch = next_batch(self._forecast, ~self._asked, self._left, batches.size, self._weights)
        self._left[batch] = False
        self._asked[batches.places(batch)] = True
        answers = self.forward.canonical(batch)
        self._outputs[batch] = answers.outputs
        return answers

    def take(self, answers: Answers, reading: Reading | None = None) -> None:
        """Count a batch that was evaluated. `reading`: of its readings, where it has begun."""
        arrived = (reading or Reading(answers.readings)).arrived()
        scores, gaps = self.forward.checked(arrived, answers.places)
        self.tally.add(answers.places, scores, gaps, canonical=answers.canonical)

    def _next(self) -> Answers | None:
        """Evaluate the next batch; None where every canonical one was."""
        if self._forecast is not None and self.left and not self._asked.all():
            accepted = acceptance(
                self._forecast, self.tally.scores, self.tally.seen, self._target, self._weights
            )
            chosen = lead(accepted)
            if chosen is not Lead.CANONICAL and self._mixes(self) and not self._asked.all():
                size = self.forward.batches.size
                places = next_examples(self._forecast, ~self._asked, chosen, size, self._weights)
                self._asked[places] = True
                return self.forward.gathered(places.tolist())
        return self.measure() if self.left else None


class EarlyRejection:
    """Runs trials that have a threshold, and learns from each.

    `bounds` are those of an example's score; `memory` holds the passes that foretell a soup's; `say` is told
    what stands in the way. `never`: what does from the start, as a reason that is told; empty for one that
    is not.
    """

    def __init__(
        self,
        batches: Batches,
        bounds: tuple[float, float] | None,
        memory: PassMemory,
        say: Callable[[str], None],
        *,
        never: str | None = None,
    ) -> None:
        self._batches = batches
        self._bounds = bounds or (-math.inf, math.inf)
        self._memory = memory
        self._say = say
        self._never = never
        self._forecaster = Forecaster(self._bounds)
        self._mixable: bool | None = None  # not probed yet
        self._random = False

    @property
    def reorders(self) -> Reorders:
        """What comes in another order, as far as is known by now.

        Bounds of "examples" are mixed: true unless `order_dependent` turns out. Those of "batches" are true
        for good.
        """
        if self._obstacle() is not None or self._batches.count == 1:
            return "nothing"
        return "batches" if self._mixable is False or not self._batches.mixable else "examples"

    @property
    def order_dependent(self) -> bool:
        """Whether outputs are known to depend on the batch: only whole batches are re-ordered then."""
        return self._mixable is False or not self._batches.even

    def keep_batches(self) -> None:
        """Re-order no examples any more."""
        self._mixable = False

    def take_for_random(self) -> None:
        """Stop no trial early any more: a pass drew random numbers, and in another order it draws others."""
        self._random = True

    def possible(self) -> bool:
        """Whether a trial may stop early; if not, that is said."""
        obstacle = self._obstacle()
        if obstacle:
            self._say(f"{obstacle}: every trial takes a full pass")
        return obstacle is None

    # Sums beyond the floats forecast nothing; the tally tells them exactly.
    @np.errstate(over="ignore", invalid="ignore")
    def decide(self, forward: Forward, recipe: Recipe, threshold: Threshold) -> Ended:
        """Evaluate until the trial is decided. Raises OrderDependent."""
        forecast = self._forecast(recipe)
        try:
            ended = EarlyPass(forward, threshold, self._bounds, forecast, self._mixes).run()
            self._require_even()
        except OrderDependent:
            self._mixable = False
            self._say("an example's outputs changed with its batch: whole batches are re-ordered from now on")
            raise
        if forecast is not None:
            self._forecaster.learn(forecast, ended.tally.scores, ended.tally.gaps, ended.tally.seen)
        return ended

    def _require_even(self) -> None:
        """Once examples were gathered: no batch made since then has another shape."""
        if self._mixable and not self._batches.even:
            raise OrderDependent("batches differ in shape")

    def _obstacle(self) -> str | None:
        """What stands in the way of stopping early; said unless empty."""
        if self._never is not None:
            return self._never
        if not math.isfinite(self._bounds[1]):
            return "scores have no upper bound"
        if self._random:
            return "predicting or scoring draws random numbers"
        if not self._batches.any_order:
            return "making batches draws random numbers, and they do not fit into memory"
        return None

    def _mixes(self, trial: EarlyPass) -> bool:
        """Whether examples may be gathered into other batches: probed once."""
        if not self._batches.mixable and self._batches.count > 1:
            why = "making batches draws random numbers" if self._batches.even else "batches differ in shape"
            self._say(f"{why}: whole batches are re-ordered")
        if self.reorders != "examples" or (self._mixable is None and trial.left < PROBED):
            return False
        if self._mixable is None:
            self._mixable = independent(trial)
            if not self._mixable:
                self._say("an example's outputs depend on its batch: whole batches are re-ordered")
        return self._mixable

    def _forecast(self, recipe: Recipe) -> Forecast | None:
        """From the passes of the running soup and the candidate, where both are remembered."""
        *running, candidate = recipe.checkpoints
        overlay = recipe.overlay if len(running) > 1 else None  # a single one keeps its own
        before = replace(Recipe.mean(running), overlay=overlay) if running else None
        parts = [self._memory.known(each) for each in (before, Recipe.mean([candidate])) if each]
        if len(parts) < 2 or parts[0] is None or parts[1] is None:
            return None
        return self._forecaster.forecast(parts[0], parts[1], len(recipe.ingredients))


def independent(trial: EarlyPass) -> bool:
    """Evaluate two canonical batches, and their examples once more, mixed; True where every bit agrees.

    The canonical batches count for the trial: half of the probe is no waste. Asks for at least two.
    """
    measured = [trial.measure() for _ in range(PROBED)]
    for answers in measured:
        trial.take(answers)
    places = [place for answers in measured for place in answers.places]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0)).tolist()
    size = trial.forward.batches.size
    mixed = [
        trial.forward.gathered([places[i] for i in order[start : start + size]])
        for start in range(0, len(places), size)
    ]
    return torch.equal(_bits(_told(mixed)), _bits(_told(measured)[order]))


def _told(batches: list[Answers]) -> Tensor:
    """What is known of each example, ``[examples, ...]``: outputs where they are kept; scores and gaps."""
    readings = torch.cat([answers.readings for answers in batches], dim=1).T
    outputs = [answers.outputs.flatten(1).double() for answers in batches if answers.outputs is not None]
    return torch.cat([readings, torch.cat(outputs)], dim=1) if outputs else readings


def _bits(tensor: Tensor) -> Tensor:
    """So that NaN equals NaN, and zero is not minus zero."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
