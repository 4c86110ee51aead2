"""The uniform soup: the average of all contenders.

Wortsman et al., "Model soups" (ICML 2022), section 2.
"""

from collections.abc import Sequence

from stockpot.entities import Accept, Contender, Outcome, Recipe, Score, Selection, Step, Trial
from stockpot.selection.telling import distinct, full_score, require_asked


class Uniform:
    """One trial: the mean of all contenders, in the canonical order of their digests.

    `accept` is taken for the sake of one signature for all methods: nothing is accepted or rejected.
    Raises ValueError for no contenders, or for two with the same checkpoint.
    """

    name = "uniform"

    def __init__(self, contenders: Sequence[Contender], *, accept: Accept) -> None:  # noqa: ARG002 - see above
        self._recipe = Recipe.uniform([contender.checkpoint for contender in distinct(contenders)])
        self._score: Score | None = None

    @property
    def most_soups(self) -> int:
        """One."""
        return 1

    def ask(self) -> Sequence[Trial]:
        """The one trial, without a threshold."""
        return [] if self._score else [Trial(self._recipe)]

    def foresee(self, n: int) -> Sequence[Trial]:  # noqa: ARG002 - the port's signature
        """Nothing."""
        return []

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take the outcome. Raises ValueError for a trial not asked for, or for a Bound."""
        require_asked(next(iter(self.ask()), None), trial)
        self._score = full_score(outcome)

    def result(self) -> Selection:
        """The mean of all contenders. Raises ValueError before its outcome was told."""
        if self._score is None:
            raise ValueError("no outcome was told yet")
        score = self._score.value
        step = Step(self._recipe.digest, self._recipe.checkpoints, score, bound=None, kept=True)
        return Selection(self.name, "", (step,), self._recipe, score)
