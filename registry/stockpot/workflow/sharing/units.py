"""An ordered list of evaluations, worked on by every process that takes part."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stockpot.entities import Recipe, Score, Trial
from stockpot.selection.telling import full_score
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator


@dataclass(frozen=True)
class Unit:
    """A recipe that is to be scored on the whole of a split."""

    recipe: Recipe
    evaluator: SharedEvaluator

    @property
    def split(self) -> str:
        """Its name."""
        return self.evaluator.protocol.split

    def attempt(self) -> Score | None:
        """The score; None where another process is about to have it."""
        outcome = self.evaluator.attempt(Trial(self.recipe))
        return None if outcome is None else full_score(outcome)


def settled(
    units: Sequence[Unit], optional: Sequence[Unit] = (), stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Unit, Score]]:
    """Each unit's score as soon as it is known: those first that nobody else evaluates. Waits for the others,
    whose leases run out. Of the optional ones, after all others, until `stop` is true.
    """
    left, late = [*units, *optional], {*optional}
    waiting: Iterator[None] | None = None
    while left:
        busy = []
        for unit in left:
            if unit in late and stop():
                continue
            score = unit.attempt()
            if score is None:
                busy.append(unit)
            else:
                yield unit, score
        if busy:
            if waiting is None or len(busy) < len(left):
                waiting = busy[0].evaluator.pauses()
            next(waiting)
        left = busy
