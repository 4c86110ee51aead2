"""A pass that stops once its rejection is certain."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from stockpot.entities import Bound, Score, Threshold
from stockpot.evaluation.passes.forward import Answers, Forward, Reading
from stockpot.evaluation.rejection.forecast import Forecast
from stockpot.evaluation.rejection.policy import Lead, acceptance, lead, next_batch, next_examples
from stockpot.evaluation.rejection.tally import Tally


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
        if forecast is not None:
            self._target += forecast.half if threshold.strict else -forecast.half
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
                self._take(*waiting.popleft())
            outcome = self.tally.score() or self.tally.bound()  # what was completed is a Score
            if outcome is not None:
                return Ended(outcome, self.tally, self._outputs)

    @property
    def left(self) -> int:
        """Canonical batches not evaluated yet."""
        return int(self._left.sum())

    def measure(self, batch: int) -> Answers:
        """Evaluate a canonical batch."""
        self._left[batch] = False
        self._asked[self.forward.batches.places(batch)] = True
        answers = self.forward.canonical(batch)
        self._outputs[batch] = answers.outputs
        return answers

    def hardest(self) -> int:
        """The canonical batch to evaluate next."""
        return next_batch(self._forecast, ~self._asked, self._left, self.forward.batches.size)

    def _next(self) -> Answers | None:
        """Evaluate the next batch; None where every canonical one was."""
        if self._forecast is not None and self.left and not self._asked.all():
            accepted = acceptance(self._forecast, self.tally.scores, self.tally.seen, self._target)
            chosen = lead(accepted)
            if chosen is not Lead.CANONICAL and self._mixes(self) and not self._asked.all():
                places = next_examples(self._forecast, ~self._asked, chosen, self.forward.batches.size)
                self._asked[places] = True
                return self.forward.gathered(places.tolist())
        return self.measure(self.hardest()) if self.left else None

    def take(self, answers: Answers) -> None:
        """Count a batch that was evaluated."""
        self._take(answers, Reading(answers.readings))

    def _take(self, answers: Answers, reading: Reading) -> None:
        scores, gaps = self.forward.checked(reading.arrived(), answers.places)
        self.tally.add(answers.places, scores, gaps, canonical=answers.canonical)
