"""Whoever changes what is on record is found out, by the chain or by its anchor."""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from stockpot.entities import TrailKind, Watch
from stockpot.errors import BadRequest, RewrittenHistory
from stockpot.ports import Tracker, Watcher
from stockpot.store import SqlStore
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.promotion.auditing import Standing, Verification, audit, require_whole
from stockpot.workflow.trails import append, move_alias


@dataclass
class Site:
    """A real store, and the model birds with three entries, of which the last is a move."""

    store: SqlStore
    file: Path
    memory: MemoryTracker = field(default_factory=MemoryTracker)
    watch: Watcher = field(default_factory=Silent)

    @property
    def tracker(self) -> Tracker:
        return self.memory

    def change(self, *statements: str) -> None:
        """What somebody does who may write the store's database."""
        with closing(sqlite3.connect(self.file)) as database, database:
            assert all(database.execute(statement).rowcount for statement in statements)

    def verified(self) -> Verification:
        """What is told of the one trail."""
        (found,) = audit(self, "birds", verify=True)
        assert found.verification is not None
        return found.verification


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    file = tmp_path / "stockpot.db"
    with closing(SqlStore(f"sqlite:///{file}")) as store:
        site = Site(store, file)
        site.memory.add_experiment("Default")
        site.memory.add_version("birds")
        append(site, "birds", TrailKind.DECISION, {"verdict": "failed"}, by="anna")
        move_alias(site, "birds", "champion", "1", expected=None, by="anna", reason="")
        yield site


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE stockpot_trail SET by = 'berta' WHERE number = 2", "entry 2 is not what its digest names"),
        ("UPDATE stockpot_trail SET at = at + 1 WHERE number = 1", "entry 1 is not what its digest names"),
        ("UPDATE stockpot_trail SET fact = '{}' WHERE number = 3", "entry 3 is not what its digest names"),
        ("UPDATE stockpot_trail SET number = 9 WHERE number = 3", "where entry 3 should be, there is 9"),
        ("DELETE FROM stockpot_trail WHERE number = 1", "where entry 1 should be, there is 2"),
        ("UPDATE stockpot_watches SET aliases = '{}'", "tells of 3 entries that add up to something else"),
        ("DELETE FROM stockpot_trail WHERE number = 3", "tells of 3 entries that add up to something else"),
        ("DELETE FROM stockpot_trail", "its 3 entries are not there"),
    ],
)
def test_a_history_that_was_changed_somewhere_shows(site: Site, statement: str, fault: str) -> None:
    assert site.verified() == Verification(Standing.ANCHORED, 3, 3, ())
    site.change(statement)
    found = site.verified()
    assert found.standing is Standing.REWRITTEN
    assert any(fault in one for one in found.faults), found.faults
    with pytest.raises(RewrittenHistory, match="not the one that was written"):
        require_whole(audit(site, "birds", verify=True))
    require_whole(audit(site, "birds"))


def test_an_entry_that_was_rewritten_with_its_digest_shows_by_the_next_one(site: Site) -> None:
    (watch,) = site.store.watches()
    forged = replace(site.store.trail(watch.trail)[1], by="berta")
    site.change(
        f"UPDATE stockpot_trail SET by = 'berta', digest = '{forged.computed}' WHERE number = 2"  # noqa: S608 - ours
    )
    assert site.verified().faults == ("entry 3 does not follow the one before it",)


def test_a_history_that_lost_its_end_and_all_that_tells_of_it_shows_by_the_anchor(site: Site) -> None:
    (watch,) = site.store.watches()
    first, second, third = site.store.trail(watch.trail)
    site.change(
        "DELETE FROM stockpot_trail WHERE number = 3",
        f"UPDATE stockpot_watches SET number = 2, digest = '{second.digest}', aliases = '{{}}'",  # noqa: S608 - its own digest
    )
    assert site.verified().faults == (f"MLflow names {third.digest}, which is no entry of it",)
    for entry, anchored in ((second, 2), (first, 1)):
        site.memory.anchors["birds"] = entry.digest
        assert site.verified().anchored == anchored
    assert site.verified().standing is Standing.LAGGING


def test_a_renamed_model_is_anchored_by_its_past_until_somebody_looks(site: Site) -> None:
    from stockpot.workflow.promotion.watching import look

    site.memory.rename_model("birds", "fowl")
    site.memory.writable = False
    look(site)
    (fowl,) = audit(site, "fowl", verify=True)
    assert fowl.verification == Verification(Standing.LAGGING, 1, 0, ())
    site.memory.writable = True
    look(site)
    (fowl,) = audit(site, "fowl", verify=True)
    assert fowl.verification == Verification(Standing.ANCHORED, 1, 1, ())
    (birds,) = audit(site, "birds", verify=True)
    assert (birds.here, birds.verification) == (False, Verification(Standing.GONE, 4, 0, ()))


def test_a_trail_of_another_mlflow_is_not_told_here(site: Site) -> None:
    other = Site(site.store, site.file)
    other.memory.add_experiment("Default")
    other.memory.oldest += 1
    with pytest.raises(BadRequest, match="no trail of 'birds', and MLflow knows no"):
        audit(other, "birds")
    other.memory.models_born["birds"] = 5
    other.memory.add_version("birds")
    append(other, "birds", TrailKind.DECISION, {}, by="berta")
    (theirs,) = audit(other, "birds", verify=True)
    assert [entry.by for entry in theirs.entries] == ["unknown", "berta"]
    (mine,) = audit(site, "birds", verify=True)
    assert (len(mine.entries), mine.verification) == (3, Verification(Standing.ANCHORED, 3, 3, ()))


def test_what_is_appended_while_the_record_is_read_is_no_rewritten_history(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, meanwhile = site.store.watches, iter(["berta", "carla"])

    def watches(models: Collection[str] | None = None) -> tuple[Watch, ...]:
        """Right after the answer, somebody writes."""
        found = ask(models)
        for name in meanwhile:
            append(site, "birds", TrailKind.DECISION, {"verdict": "failed"}, by=name)
            break
        return found

    monkeypatch.setattr(site.store, "watches", watches)
    found = site.verified()
    assert (found.faults, found.entries) == ((), 5)
