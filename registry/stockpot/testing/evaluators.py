"""An evaluator made of a function: for tests of selection methods, stores and use cases."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from stockpot.entities import (
    Bound,
    Conditions,
    EvaluationProtocol,
    Outcome,
    Question,
    Score,
    Threshold,
    Trial,
    digest_of_bytes,
)
from stockpot.ports import Wanted, always


class TableEvaluator:
    """Looks scores up: `scores` maps what is evaluated to its per-example scores, and never changes its mind.

    With `greatest`, the greatest score that one example can have, a trial ends in a Bound as soon as
    its threshold is out of reach, unless it meets a NaN before. `trials` lists all that was asked, in order.
    """

    def __init__(
        self,
        scores: Callable[[Any], Sequence[float]],
        *,
        n: int,
        split: str = "validation",
        greatest: float | None = None,
    ) -> None:
        self.protocol = EvaluationProtocol(
            Question(
                task="table",
                task_version="1",
                task_args=(),
                split=split,
                dataset=digest_of_bytes(split.encode()),
                n=n,
            ),
            Conditions(dtype="float32", tf32=False, batch_size=1, device="cpu", torch_version="none"),
        )
        self.order_dependent = False
        self.trials: list[Trial] = []
        self._scores = scores
        self._greatest = greatest

    def evaluate(
        self,
        trials: Sequence[Trial],
        *,
        then: Sequence[Trial] = (),  # noqa: ARG002 - nothing to prepare
        wanted: Wanted = always,  # noqa: ARG002 - takes no time
    ) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order."""
        self.trials.extend(trials)
        return [self._evaluate(trial) for trial in trials]

    def keep_batches(self) -> None:
        """Its bounds are not mixed."""

    def _evaluate(self, trial: Trial) -> Outcome:
        score = Score(tuple(self._scores(trial.recipe)))
        if trial.must_reach is None or self._greatest is None:
            return score
        return _first_bound(score, trial.must_reach, self._greatest) or score


def _first_bound(score: Score, threshold: Threshold, greatest: float) -> Bound | None:
    """The bound at which an evaluation, example by example, would stop."""
    n = len(score.examples)
    for seen in range(1, n):
        # Rounding a sum is monotone, so this is never below the full score.
        examples = [*score.examples[:seen], *[greatest] * (n - seen)]
        upper = math.fsum(examples) / n if threshold.aim is None else threshold.aim.value(examples)
        if math.isnan(upper):  # seen: then it is scored in full
            return None
        if not threshold.met_by(upper):
            return Bound(upper)
    return None
