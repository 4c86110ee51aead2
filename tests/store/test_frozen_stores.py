"""Databases that earlier revisions left behind: upgraded, then used."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from stockpot.entities import Bound, CheckpointPlace, Digest, Metric, RegistrationState, Score, Selection
from stockpot.errors import StoreError
from stockpot.store import SqlStore, current, head, upgrade
from stockpot.testing.store_values import TEST, VALIDATION, bits, ingested

ASSETS = Path(__file__).parent / "assets"
# Written out, since they may never change: they name what people keep.
RECIPE = Digest("sha256:680a367f05b2149ace8cccbbdae42b87133a3418e45fee4856da51eed4d41a53")
PROTOCOL = Digest("sha256:4f4c6b36183113aac8736e439cffb8d0e1158b8b019b8d3b3d86ef990fcbd8b5")


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
        row = store.begin_registration("digits", recipe)
        store.take_lease(row.lease, owner="me", seconds=1000)
        with pytest.raises(StoreError, match="version 3"):
            store.advance_registration(replace(row, state=RegistrationState.REGISTERING), owner="me")
