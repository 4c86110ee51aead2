"""Scoring recipes, and searching for them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from stockpot.entities import EvaluationProtocol, Outcome, Selection, Trial

Wanted = Callable[[], bool]
"""Asked now and then, by whoever works on something, whether anybody still wants it."""


def always() -> bool:
    """Whether something is wanted of which nobody will say that it is not."""
    return True


class Interrupted(Exception):
    """An evaluation ended before its outcome was known, because nobody wants it any more."""


class OrderDependent(Exception):
    """Bounds were given although examples score differently in another order: they may be false.

    Scores stand: they come from canonical batches. Decisions made from mixed bounds do not, so the search
    starts again. The evaluator that raises it re-orders no examples from then on.
    """


class Evaluator(Protocol):
    """Scores recipes on one split under one protocol.

    The same recipe always gets the same score under the same protocol. A Bound is returned only for
    a trial with a threshold, and only when the full score could not have met it.
    """

    @property
    def protocol(self) -> EvaluationProtocol:
        """Under which every outcome of this evaluator was measured."""
        ...

    @property
    def order_dependent(self) -> bool:
        """Whether outputs are known to depend on the batch: it re-orders no examples, and mixes no bounds."""
        ...

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order. An ensemble's score is that of the mean of its
        members' outputs: those that are not remembered are evaluated first.

        `then`, in this order, may be asked for next: weights may be fetched, or evaluations begun, ahead
        of time. It changes no outcome. `wanted` is asked before each batch.

        Raises BadTask when the task breaks its contract, naming the recipe and the example;
        Incompatible when the weights do not fit the task's model; OrderDependent when bounds that were given
        turn out to be doubtful; Interrupted once the outcomes are not wanted.
        """
        ...

    def keep_batches(self) -> None:
        """Re-order no examples any more: another evaluator of this split knows that outputs depend on it."""
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
"""An entry point of ``stockpot.selection_methods``: called with the contenders and ``accept=``. One that says
``around_base = True`` is called with ``base=``, the checkpoint that the sweep started from, and
``coefficients=`` besides: Model Stock's file for the contenders but the base, sorted by digest, and the base.
One that says ``by_group = True`` is called with ``groups=``: of each domain the checkpoints of its own runs.
A `Learner` may stand there one day; until then it is refused when it is loaded."""
