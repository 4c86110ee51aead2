"""`stockpot soup` as a person types it: the real command, the real flow."""

import json
from pathlib import Path
from typing import Any

import pytest

from stockpot.cli import main
from stockpot.documents import from_document
from stockpot.entities import SoupOutcome
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights

NAMES = ("tune[lr=0.1]", "trial[/x]", "[bold]best", 'it\'s "quoted" | *odd*')


@pytest.fixture
def command(
    mlflow_uri: str, experiment: str, home: Path, prefect: None, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The words of a request for a sweep whose runs have odd names."""
    from mlflow import MlflowClient
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    runs = {name: weights("dense", seed=seed) for seed, name in enumerate(NAMES)}
    sweep = plant_sweep(MlflowClient(mlflow_uri), experiment, runs)
    assert not home.exists()
    task = ["--task", "stockpot.testing.tiny:TinyTask", "--task-arg", "n=40"]
    methods = ["--method", "greedy", "--method", "stockpot.selection.uniform:Uniform"]
    return ["soup", "--sweep", sweep, "--model", "tiny [v/2]".replace("/", "-"), *task, *methods]


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_the_command_registers_and_tells_in_words_and_in_json(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, _ = _run([*command, "--margin", "-100"], capsys)
    assert code == 0
    assert "best single" in told
    assert "is registered as models:/tiny [v-2]/1, alias challenger" in told
    code, told, _ = _run([*command, "--json"], capsys)
    outcome = from_document(SoupOutcome, json.loads(told))
    assert code == 0
    assert outcome.evaluations == 0
    assert {point.run_name for point in outcome.report.candidates} == set(NAMES)
    code, told, _ = _run(["show", "models:/tiny [v-2]@challenger"], capsys)
    assert code == 0
    kept = [p for p in outcome.report.candidates if p.checkpoint in outcome.report.rows[1].recipe.checkpoints]
    assert kept
    assert all(point.run_name in told for point in kept)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (["--sweep", "gone"], 3, "no run 'gone'"),
        (["--task-arg", "kind=conv"], 4, "no usable run"),
        (["--model", "a/b:c"], 3, "a/b:c"),
    ],
)
def test_an_error_inside_the_flow_ends_in_its_own_message_and_code(
    command: list[str], capsys: pytest.CaptureFixture[str], changes: list[str], code: int, said: str
) -> None:
    ended, told, errors = _run([*command, *changes], capsys)
    assert (ended, told) == (code, "")
    assert said in errors
    assert "To mend it" in errors


def test_a_home_that_cannot_be_made_is_said(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STOCKPOT_HOME", str(tmp_path / "file" / "home"))
    for arguments in (command, ["db", "current"], ["db", "upgrade"]):
        code, _, errors = _run(arguments, capsys)
        assert code == 7
        assert "STOCKPOT_HOME" in errors


def test_db_current_before_anything_was_made_says_none(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, _ = _run(["db", "current", "--json"], capsys)
    document: dict[str, Any] = json.loads(told)
    assert (code, document["current"]) == (0, None)
    assert document["head"]
