"""Outputs of an example that depend on which others are in its batch."""


class OrderDependent(Exception):
    """Bounds were given although examples score differently in another order: they may be false."""
