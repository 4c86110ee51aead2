"""One process at a time works on something."""

import time
from threading import Event, Semaphore, Thread
from threading import enumerate as enumerate_threads

import pytest

from stockpot.errors import StoreError
from stockpot.store import MemoryStore
from stockpot.workflow.leases import Hold, holder, wait_for


class Watched(MemoryStore):
    """Counts how often a lease is renewed; fails to do so for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed = Semaphore(0)
        self.closed = Semaphore(0)
        self.faults = 0

    def close(self) -> None:
        self.closed.release()

    def renew_lease(self, name: str, *, owner: str, seconds: float) -> bool:
        self.renewed.release()
        if self.faults:
            self.faults -= 1
            raise StoreError("the database does not answer for a moment")
        return super().renew_lease(name, owner=owner, seconds=seconds)


def hold(store: MemoryStore, seconds: float = 1000.0) -> Hold:
    return Hold(store, "soup", "the work", seconds)


def test_whoever_comes_second_waits_until_the_first_gives_it_back() -> None:
    store = MemoryStore()
    first, second, held = hold(store), hold(store), Event()
    assert first.attempt() is None

    def wait() -> None:
        wait_for(second)
        held.set()

    waiting = Thread(target=wait)
    with first.kept_alive():
        waiting.start()
        assert not held.wait(0.1)
    waiting.join(10)
    assert held.is_set()
    with pytest.raises(StoreError, match="took over the work"):
        first.renew()


def test_whoever_waits_gives_back_what_the_database_lends_and_asks_more_and_more_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    store = Watched()
    pauses = hold(store).pauses()
    for number in range(20):
        next(pauses)
        assert store.closed.acquire(blocking=False), number
    assert slept == sorted(slept)
    assert (slept[0], slept[-1]) == (0.5, 5.0)


def test_a_refused_holder_tells_who_works_on_it_and_since_when() -> None:
    store, before = MemoryStore(), time.time()
    first = hold(store)
    first.attempt()
    lease = hold(store).attempt()
    assert lease is not None
    host, process, _ = first.owner.split("/")
    assert holder(lease).startswith(f"process {process} on {host}, since 20")
    assert before <= lease.since <= time.time()


def test_a_holder_that_was_suspended_for_longer_than_its_lease_finds_itself_overtaken() -> None:
    store = MemoryStore()
    slow, other = hold(store, seconds=-1.0), hold(store)
    assert slow.attempt() is None
    assert other.attempt() is None
    with pytest.raises(StoreError, match="took over"):
        slow.renew()
    with other.kept_alive():
        pass
    with pytest.raises(StoreError, match="took over"):
        slow.renew()


def test_a_lease_is_renewed_while_the_work_takes_longer_and_while_the_store_fails_once() -> None:
    store = Watched()
    ours = hold(store, seconds=0.03)
    assert ours.attempt() is None
    store.faults = 1
    with ours.kept_alive():
        assert all(store.renewed.acquire(timeout=10) for _ in range(9))
        ours.renew()
        assert hold(store, seconds=30).attempt() is not None
    assert "lease of the work" not in [thread.name for thread in enumerate_threads()]
    assert hold(store).attempt() is None, "it was given back"


def test_a_lease_that_was_lost_is_not_taken_back_behind_the_works_back() -> None:
    store = Watched()
    ours, other = hold(store, seconds=0.03), hold(store)
    assert ours.attempt() is None
    store.release_lease("soup", owner=ours.owner)  # as whoever took it over does
    with ours.kept_alive():
        assert all(store.renewed.acquire(timeout=10) for _ in range(5))
        assert other.attempt() is None
        assert all(store.renewed.acquire(timeout=10) for _ in range(2))
    other.renew()


def test_a_lease_is_given_back_when_the_work_fails() -> None:
    store = MemoryStore()
    ours = hold(store)
    ours.attempt()
    with pytest.raises(RuntimeError, match="boom"), ours.kept_alive():
        raise RuntimeError("boom")
    assert hold(store).attempt() is None


def test_a_process_that_hangs_does_not_hold_its_lease_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stockpot.workflow.leases.MOST_RENEWALS", 3)
    store = Watched()
    ours = hold(store, seconds=0.003)
    ours.attempt()
    ours._beat(Event())  # returns by itself
    assert store.renewed.acquire(timeout=0)


def test_work_that_goes_on_holds_its_lease_for_as_long_as_it_does() -> None:
    store = Watched()
    ours = Hold(store, "soup", "the work", seconds=0.03, most_renewals=2)
    ours.attempt()
    beating = Thread(target=ours._beat, args=(Event(),))
    beating.start()
    for _ in range(10):
        assert store.renewed.acquire(timeout=10)
        ours.moved()
    beating.join(10)
    assert not beating.is_alive(), "it has moved no more"


def test_a_clock_that_is_set_back_leaves_no_lease_of_a_dead_process(monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = MemoryStore(), time.time()
    monkeypatch.setattr("stockpot.store.memory.time.time", lambda: now + 3600)
    assert Hold(store, "soup", "it").attempt() is None
    monkeypatch.setattr("stockpot.store.memory.time.time", lambda: now + 3590)
    assert Hold(store, "soup", "it").attempt() is not None, "clocks are set right by a little all the time"
    monkeypatch.setattr("stockpot.store.memory.time.time", lambda: now)
    assert Hold(store, "soup", "it").attempt() is None
