"""Evaluations that nobody waits for any more."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable


class Interrupted(Exception):
    """An evaluation ended before its outcome was known, because nobody wants it any more."""


@runtime_checkable
class Interruptible(Protocol):
    """An evaluator that can be stopped in the middle of a pass."""

    interrupted: Callable[[], bool]
    """Asked between batches: when true, ``evaluate`` raises Interrupted. Set by whoever may lose interest."""
