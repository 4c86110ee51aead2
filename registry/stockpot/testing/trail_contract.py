"""What every store promises about the trails of models: a part of `stockpot.testing.store_contract`."""

import time
from dataclasses import replace

import pytest

from stockpot.documents import to_document
from stockpot.entities import (
    AliasMove,
    Digest,
    FailedAsk,
    Seen,
    TrailDraft,
    TrailEntry,
    TrailKind,
    TrailOf,
    Watch,
    WatchEvent,
    WatchFact,
    digest_of_bytes,
)
from stockpot.ports import Store
from stockpot.testing.store_values import THREADS, at_once

BIRDS = TrailOf("birds", 1_795_863_277_123)


def watch_draft(event: WatchEvent, until: float, **more: object) -> TrailDraft:
    """An entry about the watching of a model."""
    return TrailDraft(TrailKind.WATCH, to_document(WatchFact(event, until, **more)))  # type: ignore[arg-type]  # as each test says


def move_draft(after: str | None, *, alias: str = "champion", before: str | None = None) -> TrailDraft:
    """An entry about an alias that moved."""
    return TrailDraft(TrailKind.MOVE, to_document(AliasMove(alias, before, after, Seen.POLL)))


def decision(number: int) -> TrailDraft:
    """An entry of a kind whose content no store knows."""
    fact = {"verdict": "passed", "checks": [{"name": "size", "ratio": 0.1 + 0.2}], "number": number}
    return TrailDraft(TrailKind.DECISION, fact, "anna@host", 'it is "better" \N{EM DASH} by far')


def appended(store: Store, *drafts: TrailDraft, of: TrailOf = BIRDS) -> tuple[TrailEntry, ...]:
    """These entries behind whatever is there."""
    known = [watch for watch in store.watches([of.model]) if watch.trail == of]
    entries = store.append_trail(of, drafts, after=known[0].digest if known else None)
    assert entries is not None
    return entries


class TrailContract:
    """Every sentence about trails, held against the fixture ``store``."""

    def test_a_trail_is_a_chain_of_digests_over_all_that_the_entries_say(self, store: Store) -> None:
        before = time.time()
        (first,) = appended(store, decision(1))
        second, third = appended(store, move_draft("3"), decision(2))
        entries = store.trail(BIRDS)
        assert entries == (first, second, third)
        assert [entry.number for entry in entries] == [1, 2, 3]
        assert [entry.previous for entry in entries] == [None, first.digest, second.digest]
        assert [entry.computed for entry in entries] == [entry.digest for entry in entries]
        assert all(before - 1 < entry.at < time.time() + 1 for entry in entries)
        assert first.draft == decision(1)
        assert first.trail == BIRDS

    @pytest.mark.parametrize(
        "change",
        [
            {"model": "fish"},
            {"born": 1},
            {"number": 2},
            {"kind": TrailKind.RECALL},
            {"at": 1.5},
            {"by": "berta"},
            {"reason": ""},
            {"fact": {"verdict": "failed"}},
            {"previous": digest_of_bytes(b"another")},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_whatever_is_changed_in_an_entry_shows(self, store: Store, change: dict[str, object]) -> None:
        (entry,) = appended(store, decision(1))
        assert replace(entry, **change).computed != entry.digest  # type: ignore[arg-type]  # each of its type

    def test_nothing_is_appended_behind_an_entry_that_is_not_the_newest(self, store: Store) -> None:
        (first,) = appended(store, decision(1))
        appended(store, decision(2))
        for late in (None, first.digest, digest_of_bytes(b"nobody's")):
            assert store.append_trail(BIRDS, [decision(3), decision(4)], after=late) is None
        assert len(store.trail(BIRDS)) == 2

    def test_what_was_appended_is_found_again_by_who_lost_the_answer(self, store: Store) -> None:
        (first,) = appended(store, decision(1))
        second = appended(store, decision(2), decision(3))
        appended(store, decision(4))
        assert store.append_trail(BIRDS, [decision(2), decision(3)], after=first.digest) == second
        assert store.append_trail(BIRDS, [decision(1)], after=None) == (first,)
        assert len(store.trail(BIRDS)) == 4

    def test_of_several_at_once_one_appends_and_the_others_look_again(self, store: Store) -> None:
        (first,) = appended(store, decision(-1))
        drafts = [[decision(number), decision(number + 100)] for number in range(THREADS)]
        tries = at_once(lambda number: store.append_trail(BIRDS, drafts[number], after=first.digest))
        (won,) = [entries for entries in tries if entries is not None]
        assert store.trail(BIRDS) == (first, *won)

    def test_whoever_looks_again_until_it_succeeds_is_in_the_chain_once(self, store: Store) -> None:
        def append(number: int) -> None:
            tried = None
            while tried is None:
                known = store.watches(["birds"])
                tried = store.append_trail(
                    BIRDS, [decision(number)], after=known[0].digest if known else None
                )

        at_once(append)
        entries = store.trail(BIRDS)
        assert sorted(entry.fact["number"] for entry in entries) == list(range(THREADS))
        chain: list[Digest | None] = [None, *(entry.digest for entry in entries)]
        assert [entry.previous for entry in entries] == chain[:-1]
        (watch,) = store.watches()
        assert (watch.number, watch.digest) == (THREADS, entries[-1].digest)

    def test_a_model_of_the_same_name_born_at_another_time_has_its_own_trail(self, store: Store) -> None:
        other = replace(BIRDS, born=5)
        (mine,) = appended(store, decision(1))
        (theirs,) = appended(store, decision(1), of=other)
        assert mine.digest != theirs.digest
        assert (store.trail(BIRDS), store.trail(other)) == ((mine,), (theirs,))
        assert store.trail(TrailOf("fish", 5)) == ()
        assert [watch.trail for watch in store.watches(["birds"])] == [other, BIRDS]

    def test_a_watch_is_what_the_entries_add_up_to(self, store: Store) -> None:
        assert store.watches() == ()
        began = watch_draft(WatchEvent.BEGUN, 100.5, aliases={"champion": "1"}, mlflow="here")
        appended(store, began, move_draft("7", alias="candidate"))
        (watch,) = store.watches(["birds"])
        assert watch.aliases == {"champion": "1", "candidate": "7"}
        assert (watch.looked, watch.mlflow, watch.gone) == (100.5, "here", False)
        appended(store, move_draft(None, before="1"), watch_draft(WatchEvent.UNWATCHED, 300.0, since=100.5))
        (watch,) = store.watches(["birds"])
        assert (watch.aliases, watch.looked) == ({"candidate": "7"}, 300.0)
        appended(store, watch_draft(WatchEvent.GONE, 310.0), decision(1))
        (watch,) = store.watches()
        entries = store.trail(BIRDS)
        assert (watch.gone, watch.number, watch.at) == (True, 6, entries[-1].at)
        known: Watch | None = None
        for entry in entries:
            known = Watch.after(known, entry)
        assert known == watch
        appended(store, began)
        (watch,) = store.watches()
        assert (watch.gone, watch.aliases, watch.looked) == (False, {"champion": "1"}, 310.0)

    def test_a_look_is_kept_unless_somebody_looked_later(self, store: Store) -> None:
        other = TrailOf("fish", 5)
        for of in (BIRDS, other):
            appended(store, decision(1), of=of)
        assert [watch.looked for watch in store.watches()] == [None, None]
        store.keep_look(200.0, [BIRDS, TrailOf("nobody", 1)])
        store.keep_look(100.0, [BIRDS, other])
        assert [watch.looked for watch in store.watches()] == [200.0, 100.0]
        assert len(store.watches(["nobody"])) == 0
        assert len(store.trail(BIRDS)) == 1

    def test_watches_of_no_models_are_none(self, store: Store) -> None:
        appended(store, decision(1))
        assert store.watches([]) == ()

    def test_asks_that_failed_are_kept_by_name_until_they_are_dropped(self, store: Store) -> None:
        one, two, three = (Digest(f"sha256:{number:064x}") for number in range(3))
        first = FailedAsk(
            one, "birds", BIRDS.born, "models:/birds/3", "alias candidate", "it broke off", 1, 10.25
        )
        other = FailedAsk(two, "digits", 0, "models:/digits/1", "by hand", "", 1, 20.5)
        for ask in (first, other, first):
            store.keep_ask(ask)
        assert store.failed_asks() == (first, other)
        later = replace(first, fault="it is too large", attempts=2, failed_at=1_800_000_000.75)
        store.keep_ask(later)
        assert store.failed_asks() == (other, later), "the one that was tried last comes last"
        store.drop_asks([two, three])
        store.drop_asks([])
        assert store.failed_asks() == (later,)

    def test_many_that_keep_the_same_ask_at_once_leave_one(self, store: Store) -> None:
        name = Digest("sha256:" + "a" * 64)
        asks = [FailedAsk(name, "birds", 7, "models:/b/3", "tag", "", tried, 1.0) for tried in range(THREADS)]
        at_once(lambda number: store.keep_ask(asks[number]))
        (kept,) = store.failed_asks()
        assert kept in asks
