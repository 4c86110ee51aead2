"""The search for a recipe: pure state machines that ask for trials and are told their outcomes."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from stockpot.entities import Outcome, Selection, Trial

if TYPE_CHECKING:
    from stockpot.ports import Evaluator, MakeMethod, SelectionMethod

__all__ = ["FORESEEN", "is_around_base", "is_by_group", "run_selection"]


FORESEEN = 16
"""Trials that an evaluator is told of ahead of time: as many as a large machine has devices."""


def is_around_base(make: "MakeMethod") -> bool:
    """Whether this method needs to know where the sweep started."""
    return getattr(make, "around_base", False) is True


def is_by_group(make: "MakeMethod") -> bool:
    """Whether this method needs to know of which domain each contender is."""
    return getattr(make, "by_group", False) is True


def _never() -> bool:
    return False


def run_selection(
    method: "SelectionMethod",
    evaluator: "Evaluator",
    *,
    stop: Callable[[], bool] = _never,
    heard: Callable[[Trial, Outcome], object] = lambda _trial, _outcome: None,
) -> Selection:
    """Ask, evaluate, tell, until the search is over or `stop` is true between two asks. `heard` is told, too.

    The first ask, which ranks the contenders, is always carried out. A stopped search's result has
    ``complete=False``.
    """
    started = False
    while trials := method.ask():
        if started and stop():
            return replace(method.result(), complete=False)
        outcomes = evaluator.evaluate(trials, then=method.foresee(FORESEEN))
        for trial, outcome in zip(trials, outcomes, strict=True):
            method.tell(trial, outcome)
            heard(trial, outcome)
        started = True
    return method.result()
