"""The alias that a soup earned is given on record, and from the version that it was compared with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from stockpot.entities import Recipe, RegisteredModel, ReportRow, TrailEntry, digest_of_bytes
from stockpot.store import MemoryStore
from stockpot.testing.store_values import report
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.publishing.alias import TRIES, Aliases, Ruling

MODEL = report().request.model


class Meddled(MemoryTracker):
    """Somebody moves the alias when it was found out who has it, just before it is moved."""

    meddle: Callable[[], object] = staticmethod(lambda: None)

    def registered_model(self, name: str) -> RegisteredModel | None:
        self.meddle()
        return super().registered_model(name)


@dataclass(frozen=True)
class Decided(Aliases):
    """The soup is better than version 1, and than none, and not than any other."""

    def ruling(self, row: ReportRow, domain: str = "") -> Ruling:  # noqa: ARG002 - whichever it is
        holder = self._holder(domain)
        if holder is None:
            return Ruling(earned=True)
        is_better = holder.version == "1"
        return Ruling(is_better, holder.uri, f"told of {holder.uri}")


@pytest.fixture
def tracker() -> Meddled:
    tracker = Meddled()
    tracker.add_experiment("Default")
    for _ in range(3):
        tracker.add_version(MODEL)
    return tracker


def given(tracker: Meddled) -> tuple[Ruling, tuple[TrailEntry, ...]]:
    """Version 3 earned it."""
    store = MemoryStore()
    aliases = Decided(tracker, store, *(cast("Any", None),) * 3, report(), Silent(), "ann")
    alone = ReportRow("best single", (), Recipe.mean([digest_of_bytes(b"a")]), {}, {})
    ruling = aliases.give(alone, tracker.version(f"models:/{MODEL}/3"), None)
    tracker.meddle = lambda: None
    found = tracker.registered_model(MODEL)
    assert found is not None
    return ruling, store.trail(found.trail)


def test_who_asked_and_why_are_on_record(tracker: Meddled) -> None:
    tracker.point_alias(MODEL, "challenger", "1")
    _, (_, move) = given(tracker)
    assert (move.by, move.fact["before"], move.fact["after"]) == ("ann", "1", "3")
    assert move.reason == (
        f"best single of sweep parent, registered as no soup was. told of models:/{MODEL}/1"
    )
    assert tracker.version(f"models:/{MODEL}/3").tags["stockpot.alias"] == "challenger"


def test_who_got_the_alias_in_between_is_compared_with(tracker: Meddled) -> None:
    tracker.meddle = lambda: tracker.point_alias(MODEL, "challenger", "2")
    ruling, trail = given(tracker)
    assert (ruling.earned, ruling.holder) == (False, f"models:/{MODEL}/2")
    assert tracker.aliases[MODEL, "challenger"] == "2"
    assert trail == ()
    assert "stockpot.alias" not in tracker.version(f"models:/{MODEL}/3").tags, "it never had it"


def test_an_alias_that_keeps_moving_is_left_alone_and_said(tracker: Meddled) -> None:
    def flap() -> None:
        if tracker.aliases.pop((MODEL, "challenger"), None) is None:
            tracker.point_alias(MODEL, "challenger", "1")

    asked = iter(range(100))
    tracker.meddle = lambda: flap() if next(asked) % 2 else None
    ruling, trail = given(tracker)
    assert ruling.why == f"challenger was moved {TRIES} times while this was decided, and stays there."
    assert trail == ()
