"""Work in threads ahead of whoever takes the results."""

import threading
from contextlib import closing

import pytest

from stockpot.workflow.gathering.ahead import ahead

SECONDS = 20
"""After which a thread that waits is taken to hang."""


def test_results_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    second = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second.wait(SECONDS)
        elif item == 1:
            second.set()
        return item * item

    batches = list(ahead(work, range(10), at_once=3))
    assert [result for batch in batches for result in batch] == [item * item for item in range(10)]


def test_no_more_is_begun_than_was_allowed_before_results_are_taken() -> None:
    begun = []
    every = threading.Barrier(4)

    def work(item: int) -> int:
        begun.append(item)
        if item < 3:
            every.wait(SECONDS)
        return item

    with closing(ahead(work, range(100), at_once=3)) as results:
        releasing = threading.Thread(target=every.wait, args=(SECONDS,))
        releasing.start()
        taken = next(results)
        releasing.join()
        assert len(begun) <= 3 + len(taken)


def test_an_error_is_raised_in_its_place_and_begins_nothing_else() -> None:
    done = []

    def work(item: int) -> int:
        if item == 2:
            raise OSError("the link is down")
        done.append(item)
        return item

    taken: list[int] = []
    with pytest.raises(OSError, match="the link is down"):
        taken.extend(result for batch in ahead(work, range(100), at_once=4) for result in batch)
    assert taken == [0, 1]
    assert max(done) < 2 + 4


def test_a_caller_that_goes_away_leaves_no_thread_behind() -> None:
    threads = set(threading.enumerate())
    with closing(ahead(abs, range(100), at_once=4)) as results:
        next(results)
    assert set(threading.enumerate()) <= threads
