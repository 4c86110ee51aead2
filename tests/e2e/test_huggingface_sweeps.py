"""Sweeps of Hugging Face models, logged as their tools' own documentation shows: from the sweep to an answer
for a new text, in another process, without a line of the user's code.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from _pytest.capture import CaptureResult
from safetensors.torch import load_file
from tests.e2e.film_reviews import BAD, GOOD, NEW, write_base, write_data
from torch import Tensor

from stockpot.cli import main
from stockpot.documents import from_document
from stockpot.entities import SoupOutcome
from stockpot.tracking import MlflowTracker

RATES = (1e-3, 3e-3, 1e-2)
ASK = """
import sys, json, mlflow
uri, texts = sys.argv[1], json.loads(sys.argv[2])
pipeline = mlflow.transformers.load_model(uri)
told = mlflow.pyfunc.load_model(uri).predict(texts)
print(json.dumps({
    "pipeline": pipeline(texts, top_k=None),
    "pyfunc": told.to_dict("records"),
    "weights": {name: tensor.tolist() for name, tensor in pipeline.model.state_dict().items()},
}))
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def trained(base: Path, rate: float, folder: Path, report_to: str = "none") -> Any:
    """A Trainer that is done, with a checkpoint for each of three epochs."""
    from transformers import AutoTokenizer, BertForSequenceClassification, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = [
        {**tokenizer(text, padding="max_length", max_length=8), "labels": label}
        for label, texts in enumerate((BAD, GOOD))
        for text in texts
    ]
    trainer = Trainer(
        BertForSequenceClassification.from_pretrained(base),
        TrainingArguments(
            str(folder),
            learning_rate=rate,
            num_train_epochs=3,
            per_device_train_batch_size=8,
            save_strategy="epoch",
            eval_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="loss",
            report_to=report_to,
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=examples,
        eval_dataset=examples,
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer


def log_by_trainer(base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """As ``report_to="mlflow"`` with artifacts does."""
    monkeypatch.setenv("HF_MLFLOW_LOG_ARTIFACTS", "1")
    best = []
    for rate in RATES:
        with mlflow.start_run(run_name=f"rate={rate}"):
            trainer = trained(base, rate, folder / f"{rate}", "mlflow")
        best.append(load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors"))
    return best


def log_by_flavour(base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """As ``mlflow.transformers.log_model`` does by default."""
    del monkeypatch
    states = []
    for rate in RATES:
        trainer = trained(base, rate, folder / f"{rate}")
        with mlflow.start_run(run_name=f"rate={rate}"):
            mlflow.transformers.log_model(
                {"model": trainer.model, "tokenizer": trainer.processing_class},
                name="model",
                task="text-classification",
                input_example=["good film"],
                pip_requirements=["torch", "transformers"],  # else it looks for torchvision
            )
        states.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
    return states


def log_in_shards(base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The same, of a model that is larger than what MLflow writes into one file."""
    monkeypatch.setenv("MLFLOW_HUGGINGFACE_MODEL_MAX_SHARD_SIZE", "8KB")
    return log_by_flavour(base, folder, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute and a half, where nobody else works
@pytest.mark.parametrize("log", [log_by_trainer, log_by_flavour, log_in_shards])
def test_a_sweep_becomes_a_version_of_its_own_flavour_by_the_command_that_a_check_proposes(
    log: Callable[[Path, Path, pytest.MonkeyPatch], list[dict[str, Tensor]]],
    sweep: str,
    base: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = log(base, tmp_path / "out", monkeypatch)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--experiment", sweep, "--json"])
    proposed = json.loads(capsys.readouterr().out)["command"].replace("FOLDER", str(data))
    _, *words = shlex.split(proposed)
    command = [*words, "--no-flow", "--json", "--method", "uniform", "--register", "all"]
    told = answered(command, capsys)
    assert "not registered as" not in told.err
    outcome = from_document(SoupOutcome, json.loads(told.out))
    [soup] = outcome.soups
    [row] = [row for row in outcome.report.rows if row.recipe.is_soup]
    assert len(row.recipe.checkpoints) == len(RATES)

    average = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, soup.uri, json.dumps(NEW)],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    answer = json.loads(asked.stdout)
    for name, tensor in average.items():
        assert torch.allclose(torch.tensor(answer["weights"][name]), tensor, rtol=1e-6, atol=1e-7), name
    wanted = answers(base, average)
    for found, by_pyfunc, probabilities in zip(answer["pipeline"], answer["pyfunc"], wanted, strict=True):
        assert {each["label"]: each["score"] for each in found} == pytest.approx(probabilities, abs=1e-5)
        assert by_pyfunc["label"] == max(probabilities, key=lambda label: probabilities[label])
        assert by_pyfunc["score"] == pytest.approx(max(probabilities.values()), abs=1e-5)

    tracker = MlflowTracker()
    files = {source.path for source in tracker.version_weights(tracker.version(soup.uri))}
    cut = log is log_in_shards
    assert files == {"model.safetensors", f"model/model.safetensors{'.index.json' if cut else ''}"}

    again = answered(command, capsys)
    assert "worked on again" not in again.err
    assert from_document(SoupOutcome, json.loads(again.out)).soups[0].uri == soup.uri


def answered(command: list[str], capsys: pytest.CaptureFixture[str]) -> CaptureResult[str]:
    """What the command said."""
    with pytest.raises(SystemExit) as ended:
        main(command)
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    return told


def answers(base: Path, weights: dict[str, Tensor]) -> list[dict[str, float]]:
    """The probabilities of each class for the new texts, one by one, by transformers alone."""
    from transformers import AutoTokenizer, BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(base).eval()
    model.load_state_dict(weights)
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in NEW]
    return [dict(zip(("bad", "good"), each.softmax(0).tolist(), strict=True)) for each in logits]
