"""Whole scores, and what a search has heard."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stockpot.entities import Aim, Composition, Outcome, Score, Trial
from stockpot.ports import Wanted, always
from stockpot.selection.telling import full_score

if TYPE_CHECKING:
    from stockpot.ports import Evaluator


def score_in_full(recipe: Composition, evaluator: "Evaluator", then: Sequence[Trial] = ()) -> Score:
    """Score a recipe, or an ensemble, on the whole split."""
    (outcome,) = evaluator.evaluate([Trial(recipe)], then=then)
    return full_score(outcome)


class Heard:
    """What came of every trial of a search; tells of each of several models among them."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.outcomes: dict[Trial, Outcome] = {}
        self._advance = advance

    def __call__(self, trial: Trial, outcome: Outcome) -> None:
        """Take note of it."""
        self.outcomes[trial] = outcome
        if len(trial.recipe.checkpoints) > 1:
            self._advance()


class PlainEvaluator:
    """Scores in full whatever the threshold, and remembers nothing; `scores` holds the latest."""

    def __init__(self, inner: "Evaluator", aim: Aim | None = None) -> None:
        """`aim`: what the searches make of scores."""
        self.protocol = inner.protocol
        self._aim = aim
        self.scores: dict[Composition, Score] = {}
        self._inner = inner

    @property
    def order_dependent(self) -> bool:
        """The inner one's: it bounds nothing."""
        return self._inner.order_dependent

    def keep_batches(self) -> None:
        """It keeps them anyway."""

    def evaluate(
        self,
        trials: Sequence[Trial],
        *,
        then: Sequence[Trial] = (),
        wanted: Wanted = always,  # noqa: ARG002 - what is verified is wanted
    ) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order."""
        certain = [trial for trial in then if trial.must_reach is None]
        return [self.score(trial.recipe, then=certain) for trial in trials]

    def score(self, recipe: Composition, *, then: Sequence[Trial] = ()) -> Score:
        """Score it anew."""
        self.scores[recipe] = replace(score_in_full(recipe, self._inner, then), aim=self._aim)
        return self.scores[recipe]
