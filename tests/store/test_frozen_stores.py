"""Databases that earlier revisions left behind: upgraded, then used."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest

from stockpot.entities import (
    Bound,
    CheckpointPlace,
    Digest,
    JobState,
    Metric,
    Recipe,
    RegistrationState,
    Score,
    Selection,
    SoupOutcome,
)
from stockpot.errors import StoreError
from stockpot.store import SqlStore, current, head, upgrade
from stockpot.testing.store_values import TEST, VALIDATION, bits, ingested, job, report, soup

ASSETS = Path(__file__).parent / "assets"
# Written out, since they may never change: they name what people keep.
RECIPE = Digest("sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53")
PROTOCOL = Digest("sha256:4f4c6b36183113aac8736e439cffb8d0e1158b8b019b8d3b3d86ef990fcbd8b5")
ON_A_GPU = Digest("sha256:3b68567d56e4d584d5ef6fd684d71025ddd96cc6b072a009e87d949bb9b9ffa3")
"""A protocol with modules, distributions and software."""
OVERLAID = Digest("sha256:dff3ca5d86ec1471ca95753185dd88a5a73e39e050c3a1550a23e430c72e6281")
"""A recipe with a rule for statistics."""


@pytest.fixture(params=sorted(ASSETS.glob("revision_*.sql")), ids=lambda path: path.stem)
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    with closing(sqlite3.connect(tmp_path / "stockpot.db")) as database:
        database.executescript(request.param.read_text())
    return f"sqlite:///{tmp_path}/stockpot.db"


def test_a_frozen_store_is_upgraded_and_still_knows_everything(frozen: str) -> None:
    assert upgrade(frozen) == current(frozen) == head()
    with closing(SqlStore(frozen)) as store:
        recipe = store.recipe(RECIPE)
        assert recipe is not None
        assert recipe.digest == RECIPE
        assert VALIDATION.digest == PROTOCOL
        assert bits(store.score(RECIPE, PROTOCOL)) == bits(Score((nan, -0.0, 0.1)))
        assert store.bound(RECIPE, PROTOCOL) is None
        assert store.ingested("file:///a") == ingested("file:///a")
        (search,) = store.selections(RECIPE)
        assert (search.recipe, len(search.steps), search.complete) == (recipe, 3, False)
        (row,) = store.registrations("digits")
        assert (row.state, row.version, row.model_id) == (RegistrationState.REGISTERED, "3", "m-1")
        (known,) = store.known_versions()
        assert (known.uri, known.recipe, known.checkpoint) == ("models:/digits/3", RECIPE, row.checkpoint)
        assert {blend.soup for blend in store.blends(recipe.checkpoints[:1], down=True)} == {row.checkpoint}


def test_a_frozen_store_knows_what_its_runs_went_into_where_their_addresses_tell(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "stockpot.db")) as database:
        database.executescript((ASSETS / "revision_0002.sql").read_text())
    url = f"sqlite:///{tmp_path}/stockpot.db"
    upgrade(url)
    run = "0123456789abcdef" * 2
    with closing(SqlStore(url)) as store:
        recipe = store.recipe(RECIPE)
        assert recipe is not None
        found, *unknown = (store.places(checkpoint) for checkpoint in recipe.checkpoints)
        assert found == (CheckpointPlace(run, "checkpoints/model.safetensors", None),)
        assert unknown == [()], "the address names a model, and no run"
        models = [(row.model, row.version) for row in store.registrations_with(run)]
        assert models == [("digits", "3"), ("letters", None)]
        assert store.registrations_with("fedcba9876543210" * 2) == ()


@pytest.mark.parametrize("frozen", [ASSETS / "revision_0007.sql"], indirect=True, ids=["revision_0007"])
def test_statistics_without_bytes_are_estimated_anew_and_files_with_counters_read_anew(frozen: str) -> None:
    with closing(sqlite3.connect(frozen.removeprefix("sqlite:///"))) as database:
        assert database.execute("SELECT count(*) FROM stockpot_overlays").fetchone() == (1,)
        known = "SELECT count(*) FROM stockpot_ingested WHERE uri = 'file:///norm'"
        assert database.execute(known).fetchone() == (1,)
    upgrade(frozen)
    with closing(SqlStore(frozen)) as store:
        assert store.overlay(soup("a", "b").digest) is None
        assert store.ingested("file:///norm") is None
        assert store.ingested("file:///a") == ingested("file:///a")


@pytest.mark.parametrize("frozen", [ASSETS / "revision_0004.sql"], indirect=True, ids=["revision_0004"])
def test_gaps_metrics_reports_and_answers_of_a_frozen_store_are_still_read(frozen: str) -> None:
    upgrade(frozen)
    with closing(SqlStore(frozen)) as store:
        ranked = store.score(soup("a", "b").digest, TEST.digest)
        assert ranked is not None
        assert (ranked, ranked.gaps) == (Score((1.0, 0.0, 1.0)), (0.5, inf, 0.125))
        measured = store.score(soup("a", "c").digest, ON_A_GPU)
        assert bits(measured) == bits(Score((1.0, 0.0, 0.5), Metric(0.1 + 0.2, (0.1, nan))))
        (filed,) = store.reports(soup("a", "b").digest)
        assert filed.report == report(soup("a"), soup("a", "b"))
        assert store.requests_on(TEST.dataset) == 1
        answer = store.answer(job("one", "two"))
        assert answer is not None
        assert answer.outcome == SoupOutcome(filed.report, (), 7)
        assert store.opening(job("one", "two").name) is None


def test_a_frozen_store_goes_on_keeping_its_promises(frozen: str) -> None:
    upgrade(frozen)
    with closing(SqlStore(frozen)) as store:
        recipe = store.recipe(RECIPE)
        assert recipe is not None
        first = store.score(RECIPE, PROTOCOL)
        assert bits(store.commit_score(recipe, VALIDATION, Score((0.0,)))) == bits(first)
        store.commit_bound(recipe, VALIDATION, Bound(0.5))
        assert store.commit_bound(recipe, VALIDATION, Bound(0.75)) == Bound(0.5)
        measured = Score((0.0, 1.0), Metric(nan, (-0.0, 0.5)))
        assert bits(store.commit_score(recipe, TEST, measured)) == bits(measured)
        (search,) = store.selections(RECIPE)
        store.commit_selection(search, VALIDATION)
        store.commit_selection(Selection("uniform", "", (), recipe, 0.5), VALIDATION)
        assert [found.method for found in store.selections(RECIPE)] == ["greedy", "uniform"]
        assert isinstance(recipe, Recipe)
        row = store.begin_registration("digits", recipe)
        store.take_lease(row.lease, owner="me", seconds=1000)
        with pytest.raises(StoreError, match="version 3"):
            store.advance_registration(replace(row, state=RegistrationState.REGISTERING), owner="me")


@pytest.mark.parametrize("frozen", [ASSETS / "revision_0008.sql"], indirect=True, ids=["revision_0008"])
def test_jobs_of_before_triggers_were_asked_for_by_nobody_and_may_be(frozen: str) -> None:
    upgrade(frozen)
    mine = job("one", "two")
    with closing(SqlStore(frozen)) as store:
        assert store.overlay(OVERLAID) == b"statistics"
        (before,) = store.job_records(sweeps=["parent"])
        assert (before.name, before.state, before.attempts) == (mine.name, JobState.DONE, 0)
        assert (before.asked_at, before.failed_at, before.fault, before.predecessor) == (None,) * 4
        store.ask_job(mine, "birds")
        assert [record.state for record in store.job_records()] == [JobState.WAITING]


@pytest.mark.parametrize("frozen", [ASSETS / "revision_0009.sql"], indirect=True, ids=["revision_0009"])
def test_what_a_scan_asked_for_before_rules_had_rows_is_the_sweeps_rules(frozen: str) -> None:
    upgrade(frozen)
    before, grown, person = (
        job("one", "two", "three"),
        job("one", "two", "three", "four"),
        job("one", "two", margin=-1.0),
    )
    with closing(SqlStore(frozen)) as store:
        kept = {row.sweep: row for row in store.known_sweeps(["parent", "unasked"], ["birds"])}
        assert (kept["parent"].job, kept["parent"].tag, kept["unasked"].job) == (grown.name, "yes", None)
        assert [row.sweep for row in store.sweeps_due(["birds"])] == ["parent"]
        states = {
            record.name: record.state for record in store.job_records([before.name, grown.name, person.name])
        }
        assert states == {
            before.name: JobState.REPLACED,
            grown.name: JobState.WAITING,
            person.name: JobState.FAILED,
        }
        assert store.asked_within(1e10, ["birds"]) == 2
        store.keep_scan([replace(kept["parent"], rule="fish")], {})
        assert len(store.known_sweeps(["parent"], ["birds", "fish"])) == 2
