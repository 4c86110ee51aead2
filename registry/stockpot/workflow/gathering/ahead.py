"""Work that waits on others, done in threads ahead of whoever takes its results."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def ahead(work: Callable[[T], U], items: Iterable[T], *, at_once: int) -> Generator[list[U], None, None]:
    """The results in the order of the items, as they come: the next one, and those ready behind it.

    At most `at_once` items are worked on, or done and not taken. What `work` raises is raised in its
    result's place. Then, and when the caller goes away, no other item is begun, and those that were
    are waited for: close the iterator, so that this happens at once.
    """
    left = iter(items)
    waiting: deque[Future[U]] = deque()
    pool = ThreadPoolExecutor(at_once)
    try:
        waiting.extend(pool.submit(work, item) for item in islice(left, at_once))
        while waiting:
            results = [waiting.popleft().result()]
            while waiting and waiting[0].done() and waiting[0].exception() is None:
                results.append(waiting.popleft().result())
            waiting.extend(pool.submit(work, item) for item in islice(left, len(results)))
            yield results
    finally:
        pool.shutdown(cancel_futures=True)
