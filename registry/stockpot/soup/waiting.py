"""Waiting for other threads so that Control-C is heard."""

from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_HEARING = 1.0
"""Seconds until Control-C is heard, at most: one that comes just before a wait does not end it."""


def next_from(queue: SimpleQueue[T]) -> T:
    """Wait for the next item.

    Futures and conditions are waited for in Python, which an interrupt can leave with a lock taken. Not so
    this queue.
    """
    while True:
        try:
            return queue.get(timeout=_HEARING)
        except Empty:
            continue
