"""Sweeps of sentence-transformers, logged in both ways: from the command that a check proposes to embeddings
of new sentences in another process, through the flavour.
"""

import json
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from torch import Tensor

from stockpot.cli import main
from stockpot.documents import from_document
from stockpot.entities import SoupOutcome

pytestmark = pytest.mark.slow

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "the", "a", "very", "not"]
PAIRS = [
    ("good film", "not bad", 0.9),
    ("the very good film", "a film not bad", 0.8),
    ("bad film", "good", 0.1),
    ("a film", "very bad", 0.3),
    ("not good", "bad", 0.9),
]
NEW = ["a very good film not very bad", "bad", "the film"]
RATES = (1e-3, 3e-3, 1e-2)
ASK = """
import sys, json, mlflow
uri, texts = sys.argv[1], json.loads(sys.argv[2])
model = mlflow.sentence_transformers.load_model(uri)
print(json.dumps({
    "flavour": model.encode(texts).tolist(),
    "pyfunc": mlflow.pyfunc.load_model(uri).predict(texts).tolist(),
}))
"""
Log = Callable[[Any, Path], object]


def log_model(model: Any, folder: Path) -> None:
    """As MLflow's own page shows it."""
    del folder
    mlflow.sentence_transformers.log_model(
        model, name="model", input_example=["good film"], pip_requirements=["sentence-transformers"]
    )


def log_folder(model: Any, folder: Path) -> None:
    model.save_pretrained(str(folder / "saved"))
    mlflow.log_artifacts(str(folder / "saved"), "final")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **sizes)).save_pretrained(folder)
    return folder


def trained(base: Path, rate: float) -> Any:
    """A sentence transformer after some steps with the library's own loss."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    encoder = Transformer(str(base))
    model = SentenceTransformer(modules=[encoder, Pooling(16), Normalize()], device="cpu")
    loss = losses.CosineSimilarityLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    first, second, scores = zip(*PAIRS, strict=True)
    for _ in range(8):
        optimizer.zero_grad()
        loss([model.preprocess(list(texts)) for texts in (first, second)], torch.tensor(scores)).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("log", [log_model, log_folder])
def test_a_sweep_becomes_a_version_of_its_own_flavour_by_the_command_that_a_check_proposes(
    log: Log,
    base: Path,
    mlflow_uri: str,
    experiment: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not home.exists()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    mlflow.set_tracking_uri(mlflow_uri)
    mlflow.set_experiment(experiment)
    states: list[dict[str, Tensor]] = []
    for place, rate in enumerate(RATES):
        model = trained(base, rate)
        (tmp_path / f"{place}").mkdir()
        with mlflow.start_run(run_name=f"rate={rate}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            log(model, tmp_path / f"{place}")
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    rows = [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS]
    (tmp_path / "data").mkdir()
    for split in ("validation", "test"):
        order = rows if split == "test" else rows[::-1]
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in order))

    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--experiment", experiment, "--json"])
    proposed = json.loads(capsys.readouterr().out)["command"]
    assert "--task sentence-similarity --task-arg data=FOLDER" in proposed
    _, *command = shlex.split(proposed.replace("FOLDER", str(tmp_path / "data")))
    with pytest.raises(SystemExit) as ended:
        main([*command, "--no-flow", "--json", "--method", "uniform", "--register", "all"])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    assert "not registered as" not in told.err
    outcome = from_document(SoupOutcome, json.loads(told.out))
    [soup] = outcome.soups
    assert outcome.report.unit == "squared cosine"

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
    average = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    model.load_state_dict(average)
    wanted = torch.from_numpy(model.encode(NEW))
    for name in ("flavour", "pyfunc"):
        torch.testing.assert_close(torch.tensor(answer[name]), wanted, rtol=1e-5, atol=1e-6)
