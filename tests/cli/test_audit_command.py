"""`stockpot watch` and `stockpot audit`, as people type them, on a real MLflow and a real store."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from stockpot.cli import main
from stockpot.entities import Recipe, TrailKind, digest_of_bytes
from stockpot.store import SqlStore
from stockpot.wiring import Workplace
from stockpot.workflow.trails import append, move_alias

MODEL = "[bold]birds"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_it(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run_it


@pytest.fixture
def client(mlflow_uri: str, home: Path) -> MlflowClient:
    """An MLflow with a model of two versions that Stockpot has registered to."""
    home.mkdir()
    client = MlflowClient(mlflow_uri)
    client.create_registered_model(MODEL)
    for _ in range(2):
        client.create_model_version(MODEL, source="file:///nowhere")
    with closing(SqlStore(f"sqlite:///{home}/stockpot.db")) as store:
        store.begin_registration(MODEL, Recipe.mean([digest_of_bytes(b"a"), digest_of_bytes(b"b")]))
    return client


def change(home: Path, statement: str, *values: Any) -> None:
    """What somebody does who may write the store's database."""
    with closing(sqlite3.connect(home / "stockpot.db")) as database, database:
        assert database.execute(statement, values).rowcount == 1


def test_what_a_person_moved_is_told_and_proven(client: MlflowClient, run: Run) -> None:
    client.set_registered_model_alias(MODEL, "champion", "1")
    code, told, _ = run("watch")
    assert code == 0
    assert told.splitlines() == [
        "1 model watched, 0 aliases moved",
        f"{MODEL}: watching began: champion is version 1",
    ]
    client.set_registered_model_alias(MODEL, "champion", "2")
    assert run("watch")[1].splitlines() == [
        "1 model watched, 1 alias moved",
        f"{MODEL}: champion: version 1 -> version 2, not made by Stockpot, seen by poll",
    ]
    assert run("watch")[1] == "1 model watched, 0 aliases moved\n"
    code, told, _ = run("audit", MODEL, "--verify")
    assert code == 0
    assert "champion: version 1 -> version 2" in told
    assert "whole: 2 entries, and MLflow names the newest" in told
    assert client.get_registered_model(MODEL).tags["stockpot.trail"].startswith("sha256:")


def test_who_and_why_are_in_the_audit_with_what_the_gate_said(
    client: MlflowClient, run: Run, mlflow_uri: str
) -> None:
    assert client.tracking_uri == mlflow_uri
    with Workplace() as place:
        append(
            place, MODEL, TrailKind.DECISION, {"verdict": "passed", "n": 719}, by="anna@host", reason="fog"
        )
        move_alias(place, MODEL, "champion", "2", expected=None, by="anna@host", reason="better in fog")
    code, told, _ = run("audit", MODEL, "--json")
    assert code == 0
    (audited,) = json.loads(told)
    assert (audited["here"], audited["verification"]) == (True, None)
    begun, decision, move = audited["entries"]
    assert begun["kind"] == "watch"
    assert decision["fact"] == {"verdict": "passed", "n": 719}
    assert (move["by"], move["reason"], move["fact"]["seen"]) == ("anna@host", "better in fog", "promote")
    assert move["previous"] == decision["digest"]
    told = run("audit", MODEL)[1]
    words = {*told.split()}  # of a table, whose cells are wrapped
    assert "moved" in words
    assert "seen" not in words
    assert "verdict passed, n 719" in told
    assert "better in fog" in told


def written(client: MlflowClient) -> None:
    """Three entries, of which the last is a move."""
    with Workplace() as place:
        append(place, MODEL, TrailKind.DECISION, {"verdict": "failed"}, by="anna")
        move_alias(place, MODEL, "champion", "2", expected=None, by="anna", reason="")
    assert client.get_model_version_by_alias(MODEL, "champion").version in {"2", 2}


def test_a_history_that_was_rewritten_as_a_whole_shows_by_its_anchor(
    client: MlflowClient, run: Run, home: Path
) -> None:
    written(client)
    with closing(SqlStore(f"sqlite:///{home}/stockpot.db")) as store:
        (watch,) = store.watches()
        *_, last = store.trail(watch.trail)
    forged = replace(last, by="berta")
    change(
        home, "UPDATE stockpot_trail SET by = 'berta', digest = ? WHERE number = 3", digest := forged.computed
    )
    change(home, "UPDATE stockpot_watches SET digest = ?", digest)
    code, _, err = run("audit", MODEL, "--verify")
    assert code == 7
    assert f"MLflow names {last.digest}, which is no entry of it" in err
    code, told, _ = run("watch")
    assert code == 0
    assert "is not anchored in MLflow" in " ".join(told.split())
    assert run("audit", MODEL, "--verify")[0] == 7, "a look does not cover it"


def test_an_anchor_that_lags_or_was_removed_is_told_apart_from_a_rewritten_history(
    client: MlflowClient, run: Run
) -> None:
    written(client)
    with Workplace() as place:
        (watch,) = place.store.watches()
        first, *_ = place.store.trail(watch.trail)
    client.set_registered_model_tag(MODEL, "stockpot.trail", first.digest)
    code, told, _ = run("audit", MODEL, "--verify")
    assert code == 0
    assert "MLflow names number 1; 2 later ones are not anchored yet" in " ".join(told.split())
    client.delete_registered_model_tag(MODEL, "stockpot.trail")
    code, told, _ = run("audit", MODEL, "--verify")
    assert code == 0
    assert "MLflow names none" in told
    run("watch")
    assert "MLflow names the newest" in run("audit", MODEL, "--verify")[1]


def test_a_model_that_was_deleted_and_made_again_has_two_histories(client: MlflowClient, run: Run) -> None:
    written(client)
    client.delete_registered_model(MODEL)
    assert "is gone: deleted" in run("watch")[1]
    code, told, _ = run("audit", MODEL, "--verify")
    assert code == 0
    assert "which is not there any more" in told
    assert "and without it no anchor" in told
    client.create_registered_model(MODEL)
    run("watch")
    code, told, _ = run("audit", MODEL, "--verify", "--json")
    assert code == 0
    old, new = json.loads(told)
    assert [(len(one["entries"]), one["here"]) for one in (old, new)] == [(4, False), (1, True)]
    assert (old["verification"]["standing"], new["verification"]["standing"]) == ("gone", "anchored")


def test_a_model_without_a_trail_is_told_with_what_begins_one(client: MlflowClient, run: Run) -> None:
    assert client.get_registered_model(MODEL).name == MODEL
    code, _, err = run("audit", MODEL)
    assert code == 3
    assert "stockpot watch begins one" in err
    code, _, err = run("audit", "nobody's")
    assert code == 3
    assert "MLflow knows no registered model" in err
