"""Outputs of an example that depend on which others are in its batch."""


class OrderDependent(Exception):
    """Bounds were given although examples score differently in another order: they may be false.

    Scores stand: they come from canonical batches. Decisions made from bounds do not, so the search starts
    again. The evaluator that raises it re-orders no examples from then on, and does not raise it again.
    """
