"""Outputs of an example that depend on which others are in its batch."""

from typing import Protocol, runtime_checkable


class OrderDependent(Exception):
    """Bounds were given although examples score differently in another order: they may be false.

    Scores stand: they come from canonical batches. Decisions made from mixed bounds do not, so the search
    starts again. The evaluator that raises it re-orders no examples from then on.
    """


@runtime_checkable
class Reordering(Protocol):
    """An evaluator that re-orders examples where it may: its bounds may be mixed."""

    @property
    def order_dependent(self) -> bool:
        """Whether outputs are known to depend on the batch: it re-orders no examples any more."""
        ...

    def keep_batches(self) -> None:
        """Re-order no examples any more: another evaluator of this split knows. May be called while a trial
        is evaluated, whose bound nobody will use.
        """
        ...

    def confirm(self) -> None:
        """Make sure that its bounds still stand, when a search has ended. Raises OrderDependent."""
        ...
