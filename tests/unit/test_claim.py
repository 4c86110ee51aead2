"""One process at a time registers a soup."""

import os
import subprocess
import sys
import time
from threading import Event, Semaphore, Thread
from threading import enumerate as enumerate_threads

import pytest

from stockpot.entities import Digest, Recipe, Registration, RegistrationState
from stockpot.errors import StoreError
from stockpot.store import MemoryStore
from stockpot.watching import Silent
from stockpot.workflow.publishing.claim import Claim, _process_space, claimed

RECIPE = Recipe.mean([Digest("sha256:a"), Digest("sha256:b")])


def _held_by(owner: str, store: MemoryStore, seconds: float = 1000.0) -> None:
    now = time.time()
    store.claim_registration("m", RECIPE, owner=owner, now=now, until=now + seconds)


def _dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_claim_waits_for_a_living_process_and_then_holds() -> None:
    store, said = MemoryStore(), Event()

    class Saying(Silent):
        def say(self, message: str) -> None:
            assert "another process" in message
            said.set()

    living = f"host/{_process_space()}/{os.getppid()}/other"
    _held_by(living, store)
    held: list[str | None] = []

    def work() -> None:
        with claimed(store, "m", RECIPE, Saying()):
            row = store.registration("m", RECIPE.digest)
            held.append(row.owner if row else None)

    thread = Thread(target=work)
    thread.start()
    assert said.wait(10)
    assert not held
    store.release_registration("m", RECIPE.digest, owner=living)
    thread.join(10)
    assert held
    assert held[0] not in (None, living)


@pytest.mark.parametrize("pid", [_dead_process(), os.getpid()], ids=["gone", "our own number, earlier"])
def test_the_claim_of_a_dead_process_is_taken_over_at_once(pid: int) -> None:
    store = MemoryStore()
    _held_by(f"host/{_process_space()}/{pid}/earlier", store)
    assert Claim(store, "m", RECIPE).attempt() is not None


def test_two_threads_of_one_process_do_not_share_a_claim() -> None:
    store = MemoryStore()
    first, second = Claim(store, "m", RECIPE), Claim(store, "m", RECIPE)
    assert first.attempt() is not None
    assert second.attempt() is None
    second.release()
    assert first.attempt() is not None, "giving up what one does not hold takes it from nobody"
    first.release()
    assert second.attempt() is not None


def test_the_claim_of_another_host_is_respected_until_it_runs_out() -> None:
    store = MemoryStore()
    _held_by("elsewhere/another-boot/1/token", store)
    assert Claim(store, "m", RECIPE).attempt() is None
    _held_by("elsewhere/another-boot/1/token", store, seconds=-1.0)
    assert Claim(store, "m", RECIPE).attempt() is not None


def test_a_lost_claim_stops_the_work() -> None:
    store = MemoryStore()
    claim = Claim(store, "m", RECIPE)
    row = claim.attempt()
    assert row is not None
    claim.advance(run_id="r")
    claim.release()
    _held_by("elsewhere/another-boot/1/token", store)
    with pytest.raises(StoreError, match="took over"):
        claim.advance(run_id="another")


def test_a_claim_that_another_process_took_and_gave_back_is_lost_too() -> None:
    store = MemoryStore()
    slow = Claim(store, "m", RECIPE, lease=-1.0)  # its upload took longer than the lease
    assert slow.attempt() is not None
    other = Claim(store, "m", RECIPE)
    assert other.attempt() is not None
    other.release()
    with pytest.raises(StoreError, match="took over"):
        slow.renew()
    slow.release()


class Watched(MemoryStore):
    """Counts how often it is asked about a registration; fails to claim for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = Semaphore(0)
        self.faults = 0

    def registration(self, model: str, recipe: Digest) -> Registration | None:
        self.asked.release()
        return super().registration(model, recipe)

    def claim_registration(
        self, model: str, recipe: Recipe, *, owner: str, now: float, until: float, dead: str | None = None
    ) -> Registration:
        if self.faults:
            self.faults -= 1
            raise StoreError("the database does not answer for a moment")
        return super().claim_registration(model, recipe, owner=owner, now=now, until=until, dead=dead)


def test_a_claim_is_renewed_while_one_step_takes_longer_than_the_lease() -> None:
    store = Watched()
    claim = Claim(store, "m", RECIPE, lease=0.03)
    row = claim.attempt()
    assert row is not None
    store.faults = 1
    with claim.kept_alive():
        assert all(store.asked.acquire(timeout=10) for _ in range(9))
    later = store.registration("m", RECIPE.digest)
    assert later is not None
    assert later.owner == row.owner
    assert later.claimed_until > row.claimed_until
    assert "claims m" not in [thread.name for thread in enumerate_threads()]


def test_a_claim_that_was_lost_is_not_taken_back_behind_the_works_back() -> None:
    store = Watched()
    claim = Claim(store, "m", RECIPE, lease=0.03)
    row = claim.attempt()
    assert row is not None
    store.release_registration("m", RECIPE.digest, owner=str(row.owner))  # as whoever took it over does
    with claim.kept_alive():
        assert all(store.asked.acquire(timeout=10) for _ in range(5))
    later = store.registration("m", RECIPE.digest)
    assert later is not None
    assert later.owner is None


def test_another_stores_registration_is_not_ours_to_finish() -> None:
    claim = Claim(MemoryStore(), "m", RECIPE)
    claim.attempt()
    assert not claim.is_unfinished(None)
    claim.advance(run_id="ours")
    assert claim.is_unfinished("ours")
    assert not claim.is_unfinished("theirs")
    claim.advance(state=RegistrationState.REGISTERED)
    assert not claim.is_unfinished("ours")


def test_a_claim_is_given_back_when_the_work_fails() -> None:
    store = MemoryStore()
    with pytest.raises(RuntimeError, match="boom"), claimed(store, "m", RECIPE, Silent()):
        raise RuntimeError("boom")
    row = store.registration("m", RECIPE.digest)
    assert row is not None
    assert row.owner is None


def test_a_process_that_hangs_does_not_hold_its_claim_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stockpot.workflow.publishing.claim.MOST_RENEWALS", 3)
    store = Watched()
    claim = Claim(store, "m", RECIPE, lease=0.003)
    assert claim.attempt() is not None
    claim._beat(Event())  # returns by itself
    assert store.asked.acquire(timeout=0)
