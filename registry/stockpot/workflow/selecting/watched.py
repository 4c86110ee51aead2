"""Whole scores, and evaluators that a search is seen through."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stockpot.entities import Outcome, Recipe, Score, Trial
from stockpot.selection.telling import full_score

if TYPE_CHECKING:
    from stockpot.ports import Evaluator


def score_in_full(recipe: Recipe, evaluator: "Evaluator", then: Sequence[Trial] = ()) -> Score:
    """Score a recipe on the whole split."""
    (outcome,) = evaluator.evaluate([Trial(recipe)], then=then)
    return full_score(outcome)


class WatchedEvaluator:
    """Tells of each soup that it has scored, and knows what came of every trial."""

    def __init__(self, inner: "Evaluator", advance: Callable[[], None]) -> None:
        self.protocol = inner.protocol
        self.outcomes: dict[Trial, Outcome] = {}
        self._inner = inner
        self._advance = advance

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order."""
        outcomes = []
        for place, trial in enumerate(trials, start=1):
            outcomes += self._inner.evaluate([trial], then=[*trials[place:], *then])
            self.outcomes[trial] = outcomes[-1]
            if trial.recipe.is_soup:
                self._advance()
        return outcomes


class PlainEvaluator:
    """Scores in full whatever the threshold, and remembers nothing; `scores` holds the latest."""

    def __init__(self, inner: "Evaluator") -> None:
        self.protocol = inner.protocol
        self.scores: dict[Recipe, Score] = {}
        self._inner = inner

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order."""
        certain = [trial for trial in then if trial.must_reach is None]
        return [self.score(trial.recipe, then=certain) for trial in trials]

    def score(self, recipe: Recipe, *, then: Sequence[Trial] = ()) -> Score:
        """Score it anew."""
        self.scores[recipe] = score_in_full(recipe, self._inner, then)
        return self.scores[recipe]
