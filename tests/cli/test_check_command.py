"""`stockpot check` as a person types it, on a real MLflow."""

import json
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file

from stockpot.cli import main


@pytest.fixture
def sweep(mlflow_uri: str, experiment: str, home: Path, tmp_path: Path) -> str:
    """An experiment whose runs logged folders as transformers' Trainer does, and one that logged a text; its
    name.
    """
    assert not home.exists()
    client = MlflowClient(mlflow_uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    for number in range(3):
        run = client.create_run(found.experiment_id, run_name=f"tune-{number}").info.run_id
        for step in (5, 10):
            folder = tmp_path / f"{number}" / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            save_file({"classifier.weight": torch.full((2, 4), float(step))}, folder / "model.safetensors")
            config = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}
            (folder / "config.json").write_text(json.dumps(config))
            (folder / "tokenizer.json").write_text("{}")
            (folder / "trainer_state.json").write_text('{"best_model_checkpoint": "out/checkpoint-5"}')
            (folder / "optimizer.pt").write_bytes(b"\x80")
            client.log_artifacts(run, str(folder), f"checkpoint-{step}")
        client.set_terminated(run)
    bare = client.create_run(found.experiment_id, run_name="[bold]bare").info.run_id
    client.log_text(bare, "nothing", "notes.txt")
    client.set_terminated(bare)
    return experiment


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["check", *words])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_a_sweep_is_told_with_the_command_to_go_on_with(
    sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, _ = _run(capsys, "--experiment", sweep)
    assert code == 0
    *_, count, command = told.splitlines()
    assert count == "3 candidates. To go on:"
    proposed = "--task text-classification --task-arg data=FOLDER"
    assert command == f"stockpot soup --experiment sweeps --model sweeps {proposed}"
    assert told.startswith("4 runs: 3 logged weights or a model\n")
    assert "2 x safetensors" in told
    assert "checkpoint-5/model.safetensors" in told
    assert "[bold]bare" in told
    code, told, _ = _run(capsys, "--experiment", sweep, "--weights", "last", "--json")
    document = json.loads(told)
    assert code == 0
    assert {found["taken"] for found in document["weights"]} == {"checkpoint-10/model.safetensors"}
    assert " --weights last " in document["command"]


def test_a_sweep_without_anything_to_soup_says_why_by_its_exit_code(
    sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = ["--experiment", sweep, "--filter", "attributes.run_name = '[bold]bare'"]
    code, told, error = _run(capsys, *bare)
    assert code == 4
    assert told.startswith("1 run: 0 logged weights or a model\n")
    assert "To go on" not in told
    assert "it logged no weights" in error
    code, told, error = _run(capsys, *bare, "--json")
    assert code == 4
    assert json.loads(told)["command"] == ""
    assert json.loads(error[error.index("{\n") :])["error"] == "NothingToSoup"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--experiment", "gone"], "no experiment"),
        (["--sweep", "gone"], "no run"),
        ([], "give sweep or experiment"),
    ],
)
def test_what_does_not_exist_is_a_bad_request(
    sweep: str, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, _, error = _run(capsys, *words)
    assert code == 3
    assert said in error
