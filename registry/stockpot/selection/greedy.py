"""The greedy soup: Wortsman et al., "Model soups" (ICML 2022), section 2 and Recipe 1."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from stockpot.entities import (
    Accept,
    Bound,
    Composition,
    Contender,
    Digest,
    Ensemble,
    Outcome,
    Recipe,
    Selection,
    Step,
    Threshold,
    Trial,
)
from stockpot.selection.telling import distinct, full_score, require_asked, require_rejection


@dataclass(frozen=True, slots=True)
class _Incumbent:
    recipe: Composition
    score: float


class Greedy:
    """Rank the contenders, then try to add each to the soup, best first, in one pass.

    An ingredient stays when the soup's score does not drop (``not_worse``, the paper) or when it rises
    (``better``, the authors' code). Ties in the ranking go to the earlier run, then the lower run id.
    A score of NaN is never accepted: such a contender ranks last and is not tried in a soup.

    Raises ValueError for no contenders, or for two with the same checkpoint.
    """

    name = "greedy"

    def __init__(self, contenders: Sequence[Contender], *, accept: Accept) -> None:
        self._contenders = distinct(contenders)
        self._accept = accept
        self._singles: list[float] = []
        self._untried: deque[Digest] = deque()
        self._incumbent: _Incumbent | None = None
        self._steps: list[Step] = []

    @property
    def most_soups(self) -> int:
        """One per contender after the first."""
        return len(self._contenders) - 1

    def ask(self) -> Sequence[Trial]:
        """First every contender alone, measured in full; then one soup at a time."""
        return list(self._singles_to_come()) or list(islice(self._soups_to_come(), 1))

    def foresee(self, n: int) -> Sequence[Trial]:
        """The soups with the candidates after the next one; nothing before the ranking is known."""
        return list(islice(self._soups_to_come(), 1, 1 + n))

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take an outcome.

        Raises ValueError for a trial that is not the next asked one, for a Bound on a contender alone,
        and for a Bound that does not exclude acceptance.
        """
        require_asked(next(chain(self._singles_to_come(), self._soups_to_come()), None), trial)
        if trial.must_reach is None:
            self._singles.append(full_score(outcome).value)
            if len(self._singles) == len(self._contenders):
                self._start_pass()
        else:
            self._steps.append(self._decide(trial.recipe, trial.must_reach, outcome))
            self._untried.popleft()

    def result(self) -> Selection:
        """The best recipe so far. Raises ValueError before any outcome was told."""
        if not self._singles:
            raise ValueError("no outcome was told yet")
        best = self._incumbent or self._best_single()
        return Selection(
            self.name, self._accept.value, (*self._ranking_steps(), *self._steps), best.recipe, best.score
        )

    def _together(self, checkpoints: Sequence[Digest]) -> Composition:
        """Two or more of them as one."""
        return Recipe.mean(checkpoints)

    def _singles_to_come(self) -> Iterator[Trial]:
        for contender in self._contenders[len(self._singles) :]:
            yield Trial(Recipe.mean([contender.checkpoint]))

    def _soups_to_come(self) -> Iterator[Trial]:
        """The next one, and those that follow as long as nothing is accepted."""
        if self._incumbent is None:
            return
        threshold = Threshold(self._incumbent.score, strict=self._accept is Accept.BETTER)
        for untried in self._untried:
            yield Trial(self._together([*self._incumbent.recipe.checkpoints, untried]), threshold)

    def _start_pass(self) -> None:
        self._incumbent = self._best_single()
        others = self._ranked()[1:]
        self._untried.extend(contender.checkpoint for contender, score in others if not math.isnan(score))

    def _decide(self, recipe: Composition, threshold: Threshold, outcome: Outcome) -> Step:
        if isinstance(outcome, Bound):
            require_rejection(outcome, threshold)
            return Step(recipe.digest, recipe.checkpoints, None, outcome.upper, kept=False)
        score = outcome.value
        kept = threshold.met_by(score)
        if kept:
            self._incumbent = _Incumbent(recipe, score)
        return Step(recipe.digest, recipe.checkpoints, score, bound=None, kept=kept)

    def _ranked(self) -> list[tuple[Contender, float]]:
        """The contenders measured so far, best first."""
        measured = zip(self._contenders, self._singles, strict=False)
        return sorted(measured, key=lambda pair: rank(*pair))

    def _best_single(self) -> _Incumbent:
        contender, score = self._ranked()[0]
        return _Incumbent(Recipe.mean([contender.checkpoint]), score)

    def _ranking_steps(self) -> Iterator[Step]:
        """In the order of the contenders; the best one is kept, unless even its score is NaN."""
        best, best_score = self._ranked()[0]
        for contender, score in zip(self._contenders, self._singles, strict=False):
            recipe = Recipe.mean([contender.checkpoint])
            kept = contender is best and not math.isnan(best_score)
            yield Step(recipe.digest, recipe.checkpoints, score, bound=None, kept=kept)


class GreedyEnsemble(Greedy):
    """The same search with the models' outputs averaged in place of their weights: the paper's yardstick for
    a greedy soup, at one forward pass per model (its table of ensembles, and its appendix on them).
    """

    name = "greedy ensemble"

    def _together(self, checkpoints: Sequence[Digest]) -> Composition:
        return Ensemble.of(checkpoints)


def rank(contender: Contender, score: float) -> tuple[bool, float, int, str]:
    """The key by which contenders are tried, best first: NaN last, ties by the run's start, then its id."""
    return (math.isnan(score), 0.0 if math.isnan(score) else -score, contender.started, contender.run_id)
