"""Looks at aliases: what moved is in the trail, and so is the time in which nobody looked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from stockpot.entities import (
    Recipe,
    RegisteredModel,
    Seen,
    TrailEntry,
    TrailKind,
    TrailOf,
    WatchEvent,
    digest_of_bytes,
)
from stockpot.entities.tags import RECIPE
from stockpot.errors import BadRequest, NotPermitted
from stockpot.ports import Store, Tracker, Watcher
from stockpot.store import MemoryStore
from stockpot.tracking import MemoryTracker
from stockpot.watching import Lines
from stockpot.workflow.promotion.watching import Look, look
from stockpot.workflow.trails import append, append_once, move_alias


class LaterStore(MemoryStore):
    """Its clock runs ahead as tests say."""

    ahead = 0.0

    def clock(self) -> float:
        return super().clock() + self.ahead


class Hooked:
    """A tracker whose list of models is on its way while something else happens."""

    def __init__(self, inner: MemoryTracker, meanwhile: Callable[[], object]) -> None:
        self._inner = inner
        self._meanwhile = meanwhile

    def registered_models(self) -> tuple[RegisteredModel, ...]:
        found = self._inner.registered_models()
        self._meanwhile()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@dataclass
class Site:
    """An MLflow with the model birds, of two versions, that Stockpot has registered to."""

    memory: MemoryTracker = field(default_factory=MemoryTracker)
    store: LaterStore = field(default_factory=LaterStore)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory.add_experiment("Default")
        for _ in range(2):
            self.memory.add_version("birds", tags={RECIPE: "sha256:of a soup"})
        self.store.begin_registration("birds", Recipe.mean([digest_of_bytes(b"a"), digest_of_bytes(b"b")]))

    @property
    def tracker(self) -> Tracker:
        return self.memory

    @property
    def watch(self) -> Watcher:
        return Lines(self.said.append)

    def look(self, after: float = 10.0, **how: Any) -> Look:
        """Look once more, so many seconds later."""
        self.store.ahead += after
        return look(self, **how)

    def trail(self, model: str = "birds") -> tuple[TrailEntry, ...]:
        found = self.memory.registered_model(model)
        assert found is not None
        return self.store.trail(found.trail)


@pytest.fixture
def site() -> Site:
    return Site()


def moves(entries: tuple[TrailEntry, ...]) -> list[tuple[str, str | None, str | None]]:
    """Alias, from, to."""
    facts = [entry.fact for entry in entries if entry.kind is TrailKind.MOVE]
    return [(fact["alias"], fact["before"], fact["after"]) for fact in facts]


def test_the_first_look_tells_where_the_aliases_are_and_the_next_ones_what_moved(site: Site) -> None:
    site.memory.move_alias("birds", "champion", "1")
    (first,) = site.look().entries
    assert (first.kind, first.number, first.by) == (TrailKind.WATCH, 1, "unknown")
    assert (first.fact["event"], first.fact["aliases"]) == (WatchEvent.BEGUN, {"champion": "1"})
    assert site.look().entries == ()
    site.memory.move_alias("birds", "champion", "2")
    site.memory.move_alias("birds", "candidate", "1")
    found = site.look(seen=Seen.WEBHOOK)
    assert moves(found.entries) == [("candidate", None, "1"), ("champion", "1", "2")]
    assert [entry.fact["seen"] for entry in found.entries] == ["webhook"] * 2
    assert site.look().entries == ()
    site.memory.move_alias("birds", "champion", None)
    assert moves(site.look().entries) == [("champion", "2", None)]
    assert [entry.number for entry in site.trail()] == [1, 2, 3, 4]


def test_a_model_that_stockpot_has_nothing_to_do_with_is_watched_when_it_is_named(site: Site) -> None:
    site.memory.add_version("fish")
    assert site.look().models == 1
    assert [entry.model for entry in site.look(models=["fish", "nobody's"]).entries] == ["fish"]
    site.memory.move_alias("fish", "champion", "1")
    assert moves(site.look().entries) == [("champion", None, "1")], "it has a trail: it stays watched"


def test_an_interval_in_which_nobody_looked_is_an_entry_and_moves_say_since_when(site: Site) -> None:
    site.look()
    (watch,) = site.store.watches()
    site.memory.move_alias("birds", "champion", "1")
    gap, move = site.look(361.0, promised=300.0).entries
    assert (gap.kind, gap.fact["event"]) == (TrailKind.WATCH, WatchEvent.UNWATCHED)
    assert gap.fact["since"] == watch.looked == move.fact["unwatched_since"]
    assert gap.fact["until"] - gap.fact["since"] == pytest.approx(361.0, abs=1)
    site.memory.move_alias("birds", "champion", "2")
    (move,) = site.look(359.0, promised=300.0).entries
    assert move.fact["unwatched_since"] is None
    (gap,) = site.look(7200.0).entries
    assert gap.fact["event"] == WatchEvent.UNWATCHED


def test_a_version_that_was_deleted_with_its_alias_is_told(site: Site) -> None:
    site.memory.move_alias("birds", "champion", "1")
    site.look()
    site.memory.remove_version("birds", "1")
    (entry,) = site.look().entries
    assert (moves((entry,)), entry.fact["deleted"]) == ([("champion", "1", None)], True)


def test_an_alias_on_a_version_that_stockpot_never_made_is_told(site: Site) -> None:
    site.look()
    theirs = site.memory.add_version("birds")
    site.memory.move_alias("birds", "champion", theirs)
    site.memory.move_alias("birds", "candidate", "1")
    assert {entry.fact["alias"]: entry.fact["ours"] for entry in site.look().entries} == {
        "champion": False,
        "candidate": True,
    }


def test_an_alias_that_flaps_is_told_each_time_that_somebody_looks(site: Site) -> None:
    site.look()
    wanted: list[tuple[str, str | None, str | None]] = []
    before = None
    for number in range(20):
        after = str(1 + number % 2)
        site.memory.move_alias("birds", "champion", after)
        site.look()
        wanted.append(("champion", before, after))
        before = after
    assert moves(site.trail()) == wanted


def test_a_model_that_is_deleted_has_an_end_and_one_made_anew_a_trail_of_its_own(site: Site) -> None:
    site.memory.move_alias("birds", "champion", "1")
    site.look()
    (old,) = (watch.trail for watch in site.store.watches())
    site.memory.remove_model("birds")
    found = site.look()
    (gone,) = found.entries
    assert (gone.trail, gone.fact["event"], gone.fact["other"]) == (old, WatchEvent.GONE, None)
    assert found.notes == ("birds is gone: deleted, or not to be seen by this user",)
    assert site.look().entries == ()
    site.memory.add_version("birds")
    (anew,) = site.look().entries
    assert (anew.number, anew.previous, anew.fact["aliases"]) == (1, None, {})
    assert anew.born > old.born
    assert [entry.fact["event"] for entry in site.store.trail(old)] == [WatchEvent.BEGUN, WatchEvent.GONE]


def test_a_model_that_is_renamed_goes_on_under_its_new_name(site: Site) -> None:
    site.memory.move_alias("birds", "champion", "1")
    site.look()
    site.memory.rename_model("birds", "fowl")
    gone, begun = site.look().entries
    assert (gone.model, gone.fact["event"], gone.fact["other"]) == ("birds", WatchEvent.GONE, "fowl")
    assert (begun.model, begun.fact["other"], begun.fact["aliases"]) == ("fowl", "birds", {"champion": "1"})
    assert begun.fact["continues"] == gone.digest
    assert site.memory.anchors["fowl"] == begun.digest
    site.memory.move_alias("fowl", "champion", "2")
    assert moves(site.look().entries) == [("champion", "1", "2")]
    site.memory.rename_model("fowl", "birds")
    (gone, back), () = site.look().entries, site.look().entries
    assert (gone.model, back.model, back.fact["other"]) == ("fowl", "birds", "fowl")
    assert back.fact["aliases"] == {"champion": "2"}


def test_a_renaming_is_found_also_when_the_look_was_killed_in_between(site: Site) -> None:
    site.look()
    site.memory.rename_model("birds", "fowl")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("stockpot.workflow.promotion.watching._Look._follow", killed)
        with pytest.raises(KeyboardInterrupt):
            site.look()
    (begun,) = site.look().entries
    assert (begun.model, begun.fact["other"]) == ("fowl", "birds")


def test_a_model_of_another_mlflow_that_shares_the_store_is_not_taken_for_deleted(site: Site) -> None:
    site.look()
    other = Site(store=site.store)
    other.memory.oldest += 1.0
    other.memory.remove_model("birds")
    assert other.look().entries == ()
    other.memory.models_born["birds"] = 5
    other.memory.add_version("birds")
    (begun,) = other.look().entries
    assert begun.born == 5
    assert site.look().entries == ()
    assert other.look().entries == ()
    assert {watch.gone for watch in site.store.watches()} == {False}


def test_a_list_in_pages_that_misses_a_model_does_not_end_it(site: Site) -> None:
    site.look()
    site.memory.add_version("fish")

    class Missing(Hooked):
        def registered_models(self) -> tuple[RegisteredModel, ...]:
            return tuple(model for model in super().registered_models() if model.name != "birds")

    missing = Missing(site.memory, lambda: None)
    office = Site(memory=cast("MemoryTracker", missing), store=site.store)
    site.memory.versions_kept["birds"] = site.memory.versions_kept["birds"][:2]
    assert office.look().entries == ()
    assert site.look().notes == ()


def test_of_two_looks_at_once_the_answer_that_is_older_is_thrown_away(site: Site) -> None:
    site.memory.move_alias("birds", "champion", "1")
    site.look()

    def meanwhile() -> None:
        site.memory.move_alias("birds", "champion", "2")
        assert moves(site.look(0.01).entries) == [("champion", "1", "2")]

    slow = Site(memory=cast("MemoryTracker", Hooked(site.memory, meanwhile)), store=site.store)
    site.memory.versions_kept["birds"] = site.memory.versions_kept["birds"][:2]
    assert slow.look().entries == ()
    assert site.look().entries == ()
    assert moves(site.trail()) == [("champion", "1", "2")]


def test_of_two_looks_that_see_the_same_each_move_is_written_once(site: Site) -> None:
    site.look()
    site.memory.move_alias("birds", "champion", "1")
    site.memory.move_alias("birds", "candidate", "2")
    inner: list[Look] = []

    class Raced(LaterStore):
        """Another look comes between the question and what is appended."""

        def append_trail(self, *args: Any, **kwargs: Any) -> Any:
            if not inner:
                inner.append(Look(0, (), ()))
                inner[0] = look(site)
            return site.store.append_trail(*args, **kwargs)

        def __getattribute__(self, name: str) -> Any:
            ours = name in {"append_trail", "__class__"}
            return object.__getattribute__(self if ours else site.store, name)

    site.store.ahead += 10
    raced = Site.__new__(Site)
    raced.memory, raced.store, raced.said = site.memory, Raced(), []
    look(raced)
    assert moves(inner[0].entries) == [("candidate", None, "2"), ("champion", None, "1")]
    assert moves(site.trail()) == [("candidate", None, "2"), ("champion", None, "1")]


def test_what_stockpot_moves_is_on_record_with_who_and_why_and_is_not_found_again(site: Site) -> None:
    site.memory.move_alias("birds", "champion", "1")
    site.look()
    entry = move_alias(site, "birds", "champion", "2", expected="1", by="anna@host", reason="better\non fog")
    assert entry is not None
    assert (entry.by, entry.reason, entry.fact["seen"]) == ("anna@host", "better\\non fog", Seen.PROMOTE)
    assert site.memory.aliases["birds", "champion"] == "2"
    assert site.look().entries == ()
    assert moves(site.trail()) == [("champion", "1", "2")]


def test_what_a_person_moved_before_stockpot_did_is_on_record_too(site: Site) -> None:
    site.look()
    site.memory.move_alias("birds", "champion", "1")
    assert move_alias(site, "birds", "champion", "2", expected="1", by="anna", reason="") is not None
    assert moves(site.trail()) == [("champion", None, "1"), ("champion", "1", "2")]
    assert [entry.by for entry in site.trail()] == ["unknown", "unknown", "anna"]


def test_a_first_move_begins_the_trail_with_what_was_there_before(site: Site) -> None:
    site.memory.move_alias("birds", "champion", "1")
    move_alias(site, "birds", "champion", "2", expected="1", by="anna", reason="")
    begun, move = site.trail()
    assert begun.fact["aliases"] == {"champion": "1"}
    assert moves((move,)) == [("champion", "1", "2")]


def test_an_alias_that_is_not_where_it_was_expected_is_not_moved(site: Site) -> None:
    site.memory.move_alias("birds", "champion", "1")
    assert move_alias(site, "birds", "champion", "2", expected=None, by="anna", reason="") is None
    assert site.memory.aliases["birds", "champion"] == "1"
    assert site.store.watches() == ()


def test_moves_that_stockpot_finds_on_its_way_tell_since_when_nobody_had_looked(site: Site) -> None:
    site.look()
    site.memory.move_alias("birds", "champion", "1")
    site.store.ahead += 10_000
    assert move_alias(site, "birds", "champion", "2", expected="1", by="anna", reason="") is not None
    begun, late, found, moved = site.trail()
    assert (late.fact["event"], late.fact["since"]) == (WatchEvent.UNWATCHED, begun.fact["until"])
    assert found.fact["unwatched_since"] == begun.fact["until"]
    assert moved.fact["unwatched_since"] is None
    assert site.look().entries == ()


def test_who_moves_an_alias_waits_for_whoever_does_so_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.look()
    (watch,) = site.store.watches()
    site.store.take_lease(watch.trail.lease, owner="host/1/x", seconds=60)

    def done(*_: object) -> None:
        site.memory.move_alias("birds", "champion", "1")
        site.store.release_lease(watch.trail.lease, owner="host/1/x")

    monkeypatch.setattr("stockpot.workflow.leases.time.sleep", done)
    assert move_alias(site, "birds", "champion", "2", expected=None, by="anna", reason="") is None
    assert "waiting for process 1 on host" in site.said[0]
    assert site.memory.aliases["birds", "champion"] == "1", "it is not where it was expected any more"


def test_while_stockpot_moves_an_alias_a_look_leaves_it_to_that(site: Site) -> None:
    site.look()
    (watch,) = site.store.watches()
    site.store.take_lease(watch.trail.lease, owner="host/1/x", seconds=60)
    site.memory.move_alias("birds", "champion", "2")
    found = site.look()
    assert found.entries == ()
    assert found.notes == ("birds: an alias is being moved; the next look tells whether it was",)
    site.store.release_lease(watch.trail.lease, owner="host/1/x")
    assert moves(site.look().entries) == [("champion", None, "2")]


def test_whoever_appends_anchors_and_a_look_mends_what_was_left_undone(site: Site) -> None:
    entry = append(site, "birds", TrailKind.DECISION, {"verdict": "passed"}, by="anna", reason="why")
    assert (entry.number, entry.fact) == (2, {"verdict": "passed"})
    assert site.memory.anchors == {"birds": entry.digest}
    site.memory.writable = False
    refused = append(site, "birds", TrailKind.DECISION, {"verdict": "failed"}, by="anna")
    assert "the trail of birds is not anchored in MLflow" in site.said[0]
    assert site.memory.anchors == {"birds": entry.digest}
    assert "the trail of birds is not anchored" in site.look().notes[0]
    site.memory.writable = True
    assert site.look().entries == ()
    assert site.memory.anchors == {"birds": refused.digest}
    del site.memory.anchors["birds"]
    site.look()
    assert site.memory.anchors == {"birds": refused.digest}


def test_a_fact_that_is_told_already_is_not_told_again(site: Site) -> None:
    for _ in range(2):
        append_once(site, "birds", TrailKind.RECALL, {"recalled": "run r"}, by="anna", reason="why")
    append_once(site, "birds", TrailKind.RECALL, {"recalled": "run s"}, by="anna", reason="why")
    assert [entry.kind for entry in site.trail()] == [TrailKind.WATCH, TrailKind.RECALL, TrailKind.RECALL]


def test_what_is_told_of_a_model_that_came_back_begins_its_watching_again(site: Site) -> None:
    site.look()
    site.memory.rename_model("birds", "fowl")
    site.look()
    site.memory.rename_model("fowl", "birds")
    append(site, "birds", TrailKind.DECISION, {"verdict": "failed"}, by="anna")
    assert [entry.fact.get("event") for entry in site.trail()] == ["begun", "gone", "begun", None]
    assert not next(watch for watch in site.store.watches(["birds"])).gone


def test_an_anchor_that_is_no_entry_stays_since_it_is_the_evidence(site: Site) -> None:
    site.look()
    site.memory.anchors["birds"] = "sha256:of another history"
    site.memory.move_alias("birds", "champion", "1")
    (note,) = site.look().notes
    assert "stockpot audit birds --verify" in note
    assert site.memory.anchors == {"birds": "sha256:of another history"}


def test_a_model_that_may_not_be_read_does_not_stop_the_others(site: Site) -> None:
    site.memory.add_version("fish")
    site.look(models=["fish"])
    for model in ("birds", "fish"):
        site.memory.move_alias(model, "champion", "1")
    whole = site.memory.version

    def refused(uri: str) -> Any:
        if "birds" in uri:
            raise NotPermitted("you may not read birds", mend="ask")
        return whole(uri)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(site.memory, "version", refused)
        found = site.look()
    assert found.notes == ("birds: you may not read birds",)
    assert [entry.model for entry in found.entries] == ["fish"]
    assert moves(site.look().entries) == [("champion", None, "1")]


def test_nothing_is_written_about_a_model_that_is_not_there(site: Site) -> None:
    store: Store = site.store
    with pytest.raises(BadRequest, match="no registered model 'fish'"):
        append(site, "fish", TrailKind.DECISION, {}, by="anna")
    assert store.trail(TrailOf("fish", 0)) == ()


def test_of_several_names_the_last_one_is_a_models_past_also_where_it_is_moved_before_a_look(
    site: Site,
) -> None:
    site.look()
    for before, name in (("birds", "fowl"), ("fowl", "poultry")):
        site.memory.rename_model(before, name)
        site.look()
    site.memory.rename_model("poultry", "geese")
    assert move_alias(site, "geese", "champion", "1", expected=None, by="anna", reason="") is not None
    begun, move = site.trail("geese")
    assert begun.fact["other"] == "poultry"
    assert site.memory.anchors == {"geese": move.digest}
    assert site.look().notes == ("poultry is gone: renamed to geese",)
