"""Scoring recipes, and searching for them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from stockpot.entities import EvaluationProtocol, Outcome, Selection, Trial


class Evaluator(Protocol):
    """Scores recipes on one split under one protocol.

    The same recipe always gets the same score under the same protocol. A Bound is returned only for
    a trial with a threshold, and only when the full score could not have met it.
    """

    @property
    def protocol(self) -> EvaluationProtocol:
        """Under which every outcome of this evaluator was measured."""
        ...

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order.

        `then`, in this order, may be asked for next: weights may be fetched, or evaluations begun, ahead
        of time. It changes no outcome.

        Raises BadTask when the task breaks its contract, naming the recipe and the example;
        Incompatible when the weights do not fit the task's model.
        """
        ...


class SelectionMethod(Protocol):
    """A search for a recipe, as a pure state machine: no I/O, no clock, no randomness.

    ``ask`` is repeatable: without a ``tell`` in between it returns the same trials. Outcomes are told
    in the order of the asked trials, each once.
    """

    name: str

    @property
    def most_soups(self) -> int:
        """At most this many trials of two or more ingredients are asked for: for plans and progress."""
        ...

    def ask(self) -> Sequence[Trial]:
        """The trials wanted now; empty when the search is over."""
        ...

    def foresee(self, n: int) -> Sequence[Trial]:
        """Up to `n` trials that would be asked for after the present ones, one by one, if every outcome
        until then were a rejection; empty where that depends on the outcomes.
        """
        ...

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Report the outcome of the next asked trial. Raises ValueError for any other."""
        ...

    def result(self) -> Selection:
        """The search so far: its best recipe and every step. Raises ValueError before any outcome."""
        ...


MakeMethod = Callable[..., SelectionMethod]
"""An entry point of ``stockpot.selection_methods``: called with the contenders and ``accept=``."""
