"""Sweeps of LoRA adapters, logged as PEFT's own documentation shows: from the sweep to an answer for a new
text, in another process.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from _pytest.capture import CaptureResult
from tests.e2e.film_reviews import BAD, GOOD, NEW, WORDS, write_base, write_data

from stockpot.cli import main
from stockpot.documents import from_document
from stockpot.entities import SoupOutcome
from stockpot.tracking import MlflowTracker

pytestmark = [
    pytest.mark.slow,
    # what PEFT says of itself and of transformers
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]

SETTINGS: list[dict[str, Any]] = [
    {"r": 2, "lora_alpha": 4},
    {"r": 4, "lora_alpha": 4, "use_rslora": True},
    {"r": 2, "lora_alpha": 16, "alpha_pattern": {"query": 2}},
]
"""Ranks that differ are no obstacle, since updates are averaged."""
ASK = """
import sys, json, mlflow
pipeline = mlflow.transformers.load_model(sys.argv[1])
print(json.dumps({
    "answers": pipeline(json.loads(sys.argv[2]), top_k=None),
    "weights": {name: tensor.tolist() for name, tensor in pipeline.model.state_dict().items()},
}))
"""
LOAD = """
import sys, json, peft, torch, transformers
base, folder, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = transformers.BertForSequenceClassification.from_pretrained(base)
model = peft.PeftModel.from_pretrained(model, folder).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(base)
with torch.inference_mode():
    logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts]
print(json.dumps([each.softmax(0).tolist() for each in logits]))
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base", layers=2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def train(base: Path, folder: Path, kind: Any, **config: Any) -> Any:
    """A model by PEFT after a few steps, saved as its documentation shows."""
    import peft
    from transformers import AutoTokenizer

    torch.manual_seed(1)
    model: Any = kind.from_pretrained(base)
    lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value", "dense"], **config)
    model = peft.get_peft_model(model, lora)
    tokenizer = AutoTokenizer.from_pretrained(base)
    batch = tokenizer([*BAD, *GOOD], padding=True, return_tensors="pt")
    labels = torch.tensor([0] * len(BAD) + [1] * len(GOOD))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    for _ in range(15):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(str(folder))
    return model


def logged(base: Path, folder: Path, kind: Any = None) -> list[dict[str, torch.Tensor]]:
    """A sweep of adapters, of BERT where nothing is said. Returns what each is when PEFT merges it."""
    from transformers import BertForSequenceClassification

    states = []
    for place, config in enumerate(SETTINGS):
        model = train(base, folder / f"{place}", kind or BertForSequenceClassification, **config)
        with mlflow.start_run(run_name=f"tune-{place}"):
            mlflow.log_artifacts(str(folder / f"{place}"), artifact_path="adapter")
        merged = model.merge_and_unload().state_dict()
        states.append({name: tensor.clone() for name, tensor in merged.items()})
    return states


def answered(command: list[str], capsys: pytest.CaptureFixture[str]) -> CaptureResult[str]:
    """What the command said."""
    with pytest.raises(SystemExit) as ended:
        main(command)
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    return told


def proposed(sweep: str, data: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """The words of the command that a check proposes."""
    check = json.loads(answered(["check", "--experiment", sweep, "--json", *options], capsys).out)
    assert any("3 runs hold LoRA adapters of the base " in note for note in check["notes"])
    assert {*check["weights"][0]["held"]} == {"adapter by PEFT"}
    _, *words = shlex.split(check["command"].replace("FOLDER", str(data)))
    return [*words, "--no-flow", "--json", "--method", "uniform", "--register", "all"]


def asked_elsewhere(uri: str, folder: Path) -> Any:
    """What the version answers in another process, which knows nothing of this one."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ASK, uri, json.dumps(NEW)]
    asked = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return json.loads(asked.stdout)


def test_a_sweep_of_adapters_becomes_a_merged_model_by_the_command_that_a_check_proposes(
    sweep: str, base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = logged(base, tmp_path / "out")
    capsys.readouterr()
    told = answered(proposed(sweep, data, capsys), capsys)
    assert "not registered as" not in told.err
    outcome = from_document(SoupOutcome, json.loads(told.out))
    [soup] = outcome.soups
    [row] = [row for row in outcome.report.rows if row.recipe.is_soup]
    assert len(row.recipe.checkpoints) == len(SETTINGS)

    answer = asked_elsewhere(soup.uri, tmp_path / "elsewhere")
    average = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    for name, tensor in average.items():
        found = torch.tensor(answer["weights"][name])
        torch.testing.assert_close(found, tensor.double().float(), rtol=1e-5, atol=1e-6)
    wanted = answers(base, average)
    for found, probabilities in zip(answer["answers"], wanted, strict=True):
        assert {each["label"]: each["score"] for each in found} == pytest.approx(probabilities, abs=1e-5)

    tracker = MlflowTracker()
    files = {source.path for source in tracker.version_weights(tracker.version(soup.uri))}
    assert files == {"model.safetensors", "model/model.safetensors"}
    _, name, number = soup.uri.rsplit("/", 2)
    page = mlflow.MlflowClient().get_model_version(name, number).description or ""
    assert "They were logged as LoRA adapters, each merged into the base" in page


def test_a_soup_that_is_kept_as_an_adapter_is_loaded_by_peft(
    sweep: str, base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = logged(base, tmp_path / "out")
    capsys.readouterr()
    told = answered([*proposed(sweep, data, capsys), "--adapter", "keep"], capsys)
    [soup] = from_document(SoupOutcome, json.loads(told.out)).soups
    _, name, number = soup.uri.rsplit("/", 2)
    page = mlflow.MlflowClient().get_model_version(name, number).description or ""
    assert "The folder adapter holds the same soup as one LoRA adapter" in page
    average = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    uri, into = f"{soup.uri}/adapter", tmp_path / "kept"
    folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(into))
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-c", LOAD, str(base), folder, json.dumps(NEW)]
    loaded = json.loads(subprocess.run(command, cwd=into, check=True, capture_output=True, text=True).stdout)
    for found, probabilities in zip(loaded, answers(base, average), strict=True):
        assert found == pytest.approx([probabilities["bad"], probabilities["good"]], abs=1e-5)


def answers(base: Path, weights: dict[str, torch.Tensor]) -> list[dict[str, float]]:
    """The probabilities of each class for the new texts, one by one, by transformers alone."""
    from transformers import AutoTokenizer, BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(base).eval()
    model.load_state_dict(weights)
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in NEW]
    return [dict(zip(("bad", "good"), each.softmax(0).tolist(), strict=True)) for each in logits]


def test_adapters_bring_the_head_that_their_base_lacks(
    sweep: str, base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import (
        AutoTokenizer,
        RobertaConfig,
        RobertaForMaskedLM,
        RobertaForSequenceClassification,
    )

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=18,
        pad_token_id=0,
        id2label={0: "bad", 1: "good"},
        **sizes,
    )
    bare = tmp_path / "bare"
    RobertaForMaskedLM(config).save_pretrained(bare)
    AutoTokenizer.from_pretrained(base).save_pretrained(bare)
    states = logged(bare, tmp_path / "out", RobertaForSequenceClassification)
    capsys.readouterr()
    command = proposed(sweep, data, capsys, "--base", str(bare))
    assert {"text-classification", "--base"} <= {*command}
    told = answered(command, capsys)
    assert "not registered as" not in told.err
    assert "no row for the base, which adapters were merged into" in told.err
    [soup] = from_document(SoupOutcome, json.loads(told.out)).soups
    weights = asked_elsewhere(soup.uri, tmp_path / "elsewhere")["weights"]
    assert weights.keys() == states[0].keys()
    for name in weights:
        average = torch.stack([state[name] for state in states]).mean(0)
        torch.testing.assert_close(torch.tensor(weights[name]), average, rtol=1e-5, atol=1e-6)
