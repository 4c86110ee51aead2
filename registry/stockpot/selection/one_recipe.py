"""A method that knows its recipe before anything is scored."""

from collections.abc import Sequence

from stockpot.entities import Outcome, Recipe, Score, Selection, Step, Trial
from stockpot.selection.telling import full_score, require_asked


class OneRecipe:
    """One trial, without a threshold: nothing is accepted or rejected."""

    name = ""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._score: Score | None = None

    @property
    def most_soups(self) -> int:
        """One."""
        return 1

    def ask(self) -> Sequence[Trial]:
        """The one trial, until its outcome was told."""
        return [] if self._score else [Trial(self._recipe)]

    def foresee(self, n: int) -> Sequence[Trial]:  # noqa: ARG002 - the port's signature
        """Nothing."""
        return []

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take the outcome. Raises ValueError for a trial not asked for, or for a Bound."""
        require_asked(next(iter(self.ask()), None), trial)
        self._score = full_score(outcome)

    def result(self) -> Selection:
        """The recipe. Raises ValueError before its outcome was told."""
        if self._score is None:
            raise ValueError("no outcome was told yet")
        score = self._score.value
        step = Step(self._recipe.digest, self._recipe.checkpoints, score, bound=None, kept=True)
        return Selection(self.name, "", (step,), self._recipe, score)
