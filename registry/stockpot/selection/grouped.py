"""The mean over domains of the mean of each domain's ingredients: each domain counts alike in the weights,
however many of its runs are kept.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from stockpot.entities import (
    Accept,
    Bound,
    Contender,
    Digest,
    Outcome,
    Recipe,
    Selection,
    Step,
    Threshold,
    Trial,
)
from stockpot.selection.greedy import rank
from stockpot.selection.telling import distinct, full_score, require_asked, require_rejection


class Grouped:
    """Begin with the mean of each group's best contender, then try to add each other one to its group, best
    first, in one pass. All scores are of the mixture: what a domain's own score prefers may lie far from the
    others. An ingredient stays as in `Greedy`. A score of NaN is never accepted.

    `groups`: of each group, two or more, the checkpoints of its contenders; a contender of none is not used.

    Raises ValueError for no contenders or two with the same checkpoint, and for fewer than two groups, one
    without contenders, or a contender that is in two.
    """

    name = "grouped"
    by_group = True

    def __init__(
        self, contenders: Sequence[Contender], *, accept: Accept, groups: Mapping[str, Sequence[Digest]]
    ) -> None:
        self._group = {checkpoint: group for group, own in groups.items() for checkpoint in own}
        self._contenders = [one for one in distinct(contenders) if one.checkpoint in self._group]
        there = {self._group[one.checkpoint] for one in self._contenders}
        if len(groups) < 2 or there != {*groups} or len(self._group) < sum(map(len, groups.values())):
            raise ValueError(f"two or more groups, each with contenders of its own, got {dict(groups)}")
        self._accept = accept
        self._singles: list[float] = []
        self._kept: dict[str, list[Digest]] = {group: [] for group in groups}
        self._untried: deque[Digest] = deque()
        self._score: float | None = None
        """Of the incumbent, once the start was measured."""
        self._steps: list[Step] = []

    @property
    def most_soups(self) -> int:
        """The start, and one per contender that is not in it."""
        return 1 + len(self._contenders) - len(self._kept)

    def ask(self) -> Sequence[Trial]:
        """First every contender alone, then the start, measured in full; then one soup at a time."""
        return list(self._singles_to_come()) or list(islice(self._soups_to_come(), 1))

    def foresee(self, n: int) -> Sequence[Trial]:
        """The soups with the candidates after the next one; nothing before the start is known."""
        return [] if self._score is None else list(islice(self._soups_to_come(), 1, 1 + n))

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Take an outcome. Raises ValueError as `Greedy.tell` does."""
        require_asked(next(iter(self.ask()), None), trial)
        if len(self._singles) < len(self._contenders):
            self._singles.append(full_score(outcome).value)
            if len(self._singles) == len(self._contenders):
                self._choose_start()
            return
        kept, score, bound = True, None, None
        if trial.must_reach is None:
            score = self._score = full_score(outcome).value
            kept = not math.isnan(score)
        elif isinstance(outcome, Bound):
            require_rejection(outcome, trial.must_reach)
            kept, bound = False, outcome.upper
            self._untried.popleft()
        else:
            score = outcome.value
            kept = trial.must_reach.met_by(score)
            added = self._untried.popleft()
            if kept:
                self._score = score
                self._kept[self._group[added]].append(added)
        recipe = trial.recipe
        self._steps.append(Step(recipe.digest, recipe.checkpoints, score, bound, kept))

    def result(self) -> Selection:
        """The best recipe so far; a contender alone before the start has a score. Raises ValueError before
        any outcome was told.
        """
        if not self._singles:
            raise ValueError("no outcome was told yet")
        alone = Recipe.mean([self._ranked()[0][0].checkpoint]), self._ranked()[0][1]
        found = self._score is not None and not math.isnan(self._score)
        recipe, score = (self._together(), self._score or 0.0) if found else alone
        steps = (*self._ranking_steps(), *self._steps)
        return Selection(self.name, self._accept.value, steps, recipe, score)

    def _together(self, added: Digest | None = None) -> Recipe:
        more = None if added is None else self._group[added]
        return Recipe.grouped(
            [
                [*own, added] if added is not None and group == more else own
                for group, own in self._kept.items()
            ]
        )

    def _singles_to_come(self) -> Iterator[Trial]:
        for contender in self._contenders[len(self._singles) :]:
            yield Trial(Recipe.mean([contender.checkpoint]))

    def _soups_to_come(self) -> Iterator[Trial]:
        """The start; then the next one, and those that follow as long as nothing is accepted."""
        if self._score is None:
            yield Trial(self._together())
        elif not math.isnan(self._score):
            threshold = Threshold(self._score, strict=self._accept is Accept.BETTER)
            yield from (Trial(self._together(untried), threshold) for untried in self._untried)

    def _choose_start(self) -> None:
        for contender, score in self._ranked():
            own = self._kept[self._group[contender.checkpoint]]
            if not own:
                own.append(contender.checkpoint)
            elif not math.isnan(score):
                self._untried.append(contender.checkpoint)

    def _ranked(self) -> list[tuple[Contender, float]]:
        measured = zip(self._contenders, self._singles, strict=False)
        return sorted(measured, key=lambda pair: rank(*pair))

    def _ranking_steps(self) -> Iterator[Step]:
        for contender, score in zip(self._contenders, self._singles, strict=False):
            recipe = Recipe.mean([contender.checkpoint])
            yield Step(recipe.digest, recipe.checkpoints, score, bound=None, kept=False)
