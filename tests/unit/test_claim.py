"""One process at a time registers a soup."""

from threading import Event, Thread

import pytest

from stockpot.entities import Digest, Recipe, RegistrationState
from stockpot.errors import StoreError
from stockpot.store import MemoryStore
from stockpot.watching import Silent
from stockpot.workflow.publishing.claim import claimed

RECIPE = Recipe.mean([Digest("sha256:a"), Digest("sha256:b")])


def test_a_claim_waits_for_a_living_process_and_then_holds() -> None:
    store, said = MemoryStore(), Event()

    class Saying(Silent):
        def say(self, message: str) -> None:
            assert "another process" in message
            assert "process 7 on elsewhere, since " in message
            said.set()

    lease = store.begin_registration("m", RECIPE).lease
    store.take_lease(lease, owner="elsewhere/7/token", seconds=1000)
    held = Event()

    def work() -> None:
        with claimed(store, "m", RECIPE, Saying()):
            held.set()

    thread = Thread(target=work)
    thread.start()
    assert said.wait(10)
    assert not held.is_set()
    store.release_lease(lease, owner="elsewhere/7/token")
    thread.join(10)
    assert held.is_set()


def test_a_lost_claim_stops_the_work() -> None:
    store = MemoryStore()
    lease = store.begin_registration("m", RECIPE).lease
    with claimed(store, "m", RECIPE, Silent()) as claim:
        claim.advance(run_id="r")
        owner = store.take_lease(lease, owner="elsewhere/7/token", seconds=1).owner
        store.release_lease(lease, owner=owner)
        store.take_lease(lease, owner="elsewhere/7/token", seconds=1000)
        with pytest.raises(StoreError, match="took over"):
            claim.advance(run_id="another")
    row = store.registration("m", RECIPE.digest)
    assert row is not None
    assert row.run_id == "r"


def test_another_stores_registration_is_not_ours_to_finish() -> None:
    with claimed(MemoryStore(), "m", RECIPE, Silent()) as claim:
        assert not claim.is_unfinished(None)
        claim.advance(run_id="ours")
        assert claim.is_unfinished("ours")
        assert not claim.is_unfinished("theirs")
        claim.advance(state=RegistrationState.REGISTERED)
        assert not claim.is_unfinished("ours")
