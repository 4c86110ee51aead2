"""Sweeps as the tools' own documentation logs them, by the real libraries: souped by the command, and the
version used in another process, without the user's code.
"""

import json
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stockpot.cli import main
from stockpot.documents import from_document
from stockpot.entities import ExclusionReason, SoupOutcome

RATES = (0.01, 0.02, 0.03)
FEATURES = 3
LENGTH = 8
"""Of the sequences that a version is asked for: another one than it was trained with."""

pytestmark = pytest.mark.slow

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    # [n, length, 3] to [n, 2]
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.norm(torch.tanh(self.mix(x))).mean(dim=1))
"""
LIT = """
import lightning
import torch
from torch import nn

from logged_nets import Net


class LitNet(lightning.LightningModule):
    def __init__(self, rate=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = Net()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, place):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, place):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), self.hparams.rate)
"""
ASK = """
import sys

import mlflow
import numpy as np

uri, given, answers = sys.argv[1:]
model = mlflow.pyfunc.load_model(uri)
np.save(answers, np.asarray(model.predict(np.load(given))))
"""


def drawn(seed: int, n: int, length: int = 5) -> tuple[Tensor, Tensor]:
    """Sequences ``[n, length, 3]`` and their classes, which a small net can learn."""
    x = torch.randn(n, length, FEATURES, generator=torch.Generator().manual_seed(seed))
    return x, (x.mean(dim=(1, 2)) > 0).long()


@pytest.fixture(autouse=True)
def quick_to_log(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    # A process per model finds out what it imports: half of the time, and of no interest here.
    monkeypatch.setenv("MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT", "1")
    mlflow.set_tracking_uri(mlflow_uri)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules that a user has, importable here only; gives that of Lightning."""
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "logged_nets.py").write_text(NETS)
    (tmp_path / "user" / "logged_lit.py").write_text(LIT)
    monkeypatch.syspath_prepend(tmp_path / "user")
    import logged_lit  # type: ignore[import-not-found]

    yield logged_lit
    for name in ("logged_lit", "logged_nets"):
        sys.modules.pop(name, None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    arrays: dict[str, Any] = {}
    for seed, split in enumerate(("validation", "test")):
        x, y = drawn(seed + 1, 40)
        arrays |= {f"{split}_x": x.numpy(), f"{split}_y": y.numpy()}
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


def souped(capsys: pytest.CaptureFixture[str], *arguments: str) -> SoupOutcome:
    capsys.readouterr()  # what the tools printed
    with pytest.raises(SystemExit) as ended:
        main(["soup", "--model", "soups", "--no-flow", "--json", "--register", "all", *arguments])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    return from_document(SoupOutcome, json.loads(told.out))


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Of states that were trained here, by hand."""
    return {
        name: torch.stack([state[name].float() for state in states]).mean(dim=0).to(tensor.dtype)
        for name, tensor in states[0].items()
    }


def asked_elsewhere(folder: Path, x: Tensor) -> Tensor:
    """What the version answers in a process that knows nothing of the user's modules."""
    folder.mkdir()
    np.save(folder / "given.npy", x.numpy())
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ASK, "models:/soups/1", "given.npy", "answers.npy"]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=300)
    return torch.from_numpy(np.load(folder / "answers.npy"))


@contextmanager
def as_documented() -> Iterator[None]:
    """What a tool warns of while it trains and logs is no fault of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fitted(nets: Any, rate: float, folder: Path, **options: Any) -> Any:
    """A Lightning module after some epochs."""
    import lightning

    lightning.seed_everything(0)
    model = nets.LitNet(rate)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*drawn(0, 64)), batch_size=16)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=2,
        **options,
    )
    trainer.fit(model, loader, loader)
    return trainer


ARRAYS = ("--task", "arrays", "--method", "uniform", "--task-arg")


def require_the_average(
    outcome: SoupOutcome, states: Sequence[Mapping[str, Tensor]], model: nn.Module, folder: Path
) -> None:
    """The version answers new sequences, more and longer ones, like the average of these states."""
    [soup] = [row for row in outcome.report.rows if row.recipe.is_soup]
    assert len(soup.recipe.checkpoints) == len(states)
    model.load_state_dict(average(states))
    x, _ = drawn(9, 6, length=LENGTH)
    with torch.inference_mode():
        torch.testing.assert_close(asked_elsewhere(folder, x), model.eval()(x))


@pytest.mark.parametrize("log_model", [True, "all"])
def test_checkpoints_by_lightnings_logger(
    log_model: Any,
    nets: Any,
    data: Path,
    experiment: str,
    home: Path,
    mlflow_uri: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import MLFlowLogger

    states = []
    for rate in RATES:
        logger = MLFlowLogger(experiment, tracking_uri=mlflow_uri, log_model=log_model)
        keep = ModelCheckpoint(monitor="val_loss", mode="min", save_top_k=2)
        with as_documented():
            fitted(nets, rate, tmp_path / "work", logger=logger, callbacks=[keep])
        states.append(torch.load(keep.best_model_path, weights_only=True)["state_dict"])
    outcome = souped(
        capsys, "--experiment", experiment, *ARRAYS, f"data={data}", "--task-arg", "model=logged_lit:LitNet"
    )
    require_the_average(outcome, states, nets.LitNet(), tmp_path / "elsewhere")


def test_what_autolog_logs_of_lightning(
    nets: Any,
    data: Path,
    experiment: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    mlflow.set_experiment(experiment)
    states = []
    for rate in RATES:
        with as_documented(), mlflow.start_run():
            mlflow.pytorch.autolog()
            trainer = fitted(nets, rate, tmp_path / "work", logger=False, enable_checkpointing=False)
            mlflow.pytorch.autolog(disable=True)
        states.append(trainer.model.state_dict())
    outcome = souped(
        capsys, "--experiment", experiment, *ARRAYS, f"data={data}", "--task-arg", "model=logged_lit:LitNet"
    )
    require_the_average(outcome, states, nets.LitNet(), tmp_path / "elsewhere")


def trained(nets: Any, rate: float) -> nn.Module:
    """A plain net after some steps."""
    torch.manual_seed(0)
    model: nn.Module = nets.Net()
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    x, y = drawn(0, 64)
    for _ in range(10):
        optimizer.zero_grad()
        loss: Any = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return model.eval()


def _log_state_dict(model: nn.Module, _: Path) -> None:
    import mlflow

    mlflow.pytorch.log_state_dict(model.state_dict(), artifact_path="checkpoint")


def _log_saved(model: nn.Module, folder: Path) -> None:
    import mlflow

    torch.save(model.state_dict(), folder / "model.pt")
    mlflow.log_artifact(str(folder / "model.pt"))


def _log_model(model: nn.Module, _: Path) -> None:
    import mlflow

    example = drawn(0, 4)[0].numpy()
    mlflow.pytorch.log_model(model, name="model", input_example=example, pip_requirements=["torch"])


@pytest.mark.parametrize("log", [_log_state_dict, _log_model])
def test_what_mlflows_own_calls_log(
    log: Any,
    nets: Any,
    data: Path,
    experiment: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    mlflow.set_experiment(experiment)
    states = []
    for rate in RATES:
        with as_documented(), mlflow.start_run():
            model = trained(nets, rate)
            log(model, tmp_path)
        states.append(model.state_dict())
    outcome = souped(
        capsys, "--experiment", experiment, *ARRAYS, f"data={data}", "--task-arg", "model=logged_nets:Net"
    )
    require_the_average(outcome, states, nets.Net(), tmp_path / "elsewhere")


def test_trials_of_optuna_beside_models_of_scikit_learn(
    nets: Any,
    data: Path,
    experiment: str,
    home: Path,
    mlflow_uri: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The callback logs one run per trial into the experiment of the study's name."""
    import mlflow
    import optuna
    from optuna_integration.mlflow import MLflowCallback
    from sklearn.linear_model import LogisticRegression

    states = []
    with as_documented():
        track = MLflowCallback(tracking_uri=mlflow_uri, metric_name="accuracy")

        @track.track_in_mlflow()  # type: ignore[untyped-decorator]
        def objective(trial: optuna.Trial) -> float:
            model = trained(nets, trial.suggest_float("rate", 0.01, 0.03))
            _log_saved(model, tmp_path)
            states.append(model.state_dict())
            x, y = drawn(1, 40)
            return float((model(x).argmax(dim=1) == y).double().mean())

        study = optuna.create_study(
            study_name=experiment, direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
        )
        study.optimize(objective, n_trials=3, callbacks=[track])
        mlflow.set_experiment(experiment)
        x, y = drawn(0, 64)
        for strength in (0.1, 1.0):
            with mlflow.start_run():
                linear = LogisticRegression(C=strength).fit(x.flatten(1).numpy(), y.numpy())
                mlflow.sklearn.log_model(linear, name="model", pip_requirements=["scikit-learn"])
    outcome = souped(
        capsys, "--experiment", experiment, *ARRAYS, f"data={data}", "--task-arg", "model=logged_nets:Net"
    )
    others = [exclusion for exclusion in outcome.report.exclusions if not exclusion.mend]
    assert [exclusion.reason for exclusion in others] == [ExclusionReason.OTHER_LIBRARY] * 2
    require_the_average(outcome, states, nets.Net(), tmp_path / "elsewhere")


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "in", "the", "went", "to", "met", "ann", "bob", "rome", "oslo"]
TAGS = ["O", "B-PER", "B-LOC"]
SENTENCES = [
    "ann went to rome",
    "bob met ann in oslo",
    "the bob went to the oslo",
    "in rome ann met bob",
    "ann met the bob",
    "oslo",
]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
ASK_TRANSFORMERS = """
import sys

import mlflow
import torch
from safetensors.torch import save_file

uri, answers, *texts = sys.argv[1:]
parts = mlflow.transformers.load_model(uri, return_type="components")
with torch.inference_mode():
    given = parts["tokenizer"](texts, padding=True, padding_side="right", return_tensors="pt")
    logits = parts["model"].eval()(**given).logits
save_file({"logits": logits}, answers)
print(mlflow.pyfunc.load_model(uri).predict(texts))
"""


def tag_of(word: str) -> str:
    return "B-PER" if word in ("ann", "bob") else "B-LOC" if word in ("rome", "oslo") else "O"


def trainers_run(
    model: Any, tokenizer: Any, rows: list[dict[str, list[int]]], rate: float, folder: Path
) -> Any:
    """The state of the checkpoint that the Trainer calls the best, logged as its documentation says."""
    from safetensors.torch import load_file
    from transformers import Trainer, TrainingArguments

    asked = TrainingArguments(
        output_dir=str(folder),
        learning_rate=rate,
        num_train_epochs=3,
        report_to="mlflow",
        save_strategy="epoch",
        eval_strategy="epoch",
        load_best_model_at_end=True,
        per_device_train_batch_size=2,
        use_cpu=True,
        use_cache=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, asked, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer)
    trainer.train()
    return load_file(Path(trainer.state.best_model_checkpoint, "model.safetensors"))


def answers_elsewhere(folder: Path, texts: list[str]) -> tuple[Tensor, str]:
    """Logits of the version's model, and what its pyfunc says, in a process of their own."""
    from safetensors.torch import load_file

    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ASK_TRANSFORMERS, "models:/soups/1", "answers", *texts]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, timeout=300, stdout=subprocess.PIPE, text=True
    )
    return load_file(folder / "answers")["logits"], done.stdout


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    for place, split in enumerate(("validation", "test")):
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows[place::2] * 2))
    return folder


@pytest.fixture
def logged_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch by which the Trainer logs its checkpoints; and no hub."""
    monkeypatch.setenv("HF_MLFLOW_LOG_ARTIFACTS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_token_classification_by_the_trainer(
    logged_checkpoints: None,
    experiment: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow
    from transformers import BertConfig, BertForTokenClassification, BertTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(vocab=str(tmp_path / "vocab.txt"))
    names = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: i for i, tag in enumerate(TAGS)}}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SIZES, **names)
    rows = []
    for text in SENTENCES:
        row = dict(tokenizer(text, padding="max_length", max_length=8))
        tags = [-100, *(TAGS.index(tag_of(word)) for word in text.split()), -100]
        rows.append({**row, "labels": tags + [-100] * (8 - len(tags))})
    mlflow.set_experiment(experiment)
    states = []
    for rate in (3e-3, 1e-2, 3e-2):
        torch.manual_seed(0)
        with as_documented(), mlflow.start_run():
            model = BertForTokenClassification(config)
            states.append(trainers_run(model, tokenizer, rows, rate, tmp_path / f"work{rate}"))
    words = [{"tokens": text.split(), "ner_tags": [tag_of(w) for w in text.split()]} for text in SENTENCES]
    data = written(tmp_path / "data", words)
    outcome = souped(
        capsys,
        *("--experiment", experiment, "--task", "token-classification"),
        *("--method", "uniform", "--task-arg", f"data={data}"),
    )
    [soup] = [row for row in outcome.report.rows if row.recipe.is_soup]
    assert len(soup.recipe.checkpoints) == len(states)
    model = BertForTokenClassification(config)
    model.load_state_dict(average(states))
    texts = ["the ann met bob in rome to the oslo", "bob went"]
    with torch.inference_mode():
        wanted = model.eval()(
            **tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        ).logits
    found, told = answers_elsewhere(tmp_path / "elsewhere", texts)
    torch.testing.assert_close(found, wanted)
    said = [
        logits[1 : 1 + len(text.split())].argmax(dim=1) for logits, text in zip(wanted, texts, strict=True)
    ]
    assert told.strip() == str([",".join(TAGS[tag] for tag in text.tolist() if tag) for text in said])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_small_llama_with_tied_embeddings_by_the_trainer(
    dtype: str,
    logged_checkpoints: None,
    experiment: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106 - a word
    words.pre_tokenizer = Whitespace()
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **special)

    def made() -> LlamaForCausalLM:
        config = LlamaConfig(
            vocab_size=len(WORDS),
            max_position_embeddings=32,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            **SIZES,
        )
        return LlamaForCausalLM(config).to(getattr(torch, dtype))

    rows = []
    for text in SENTENCES:
        row = dict(tokenizer(text, padding="max_length", max_length=8))
        row.pop("token_type_ids", None)
        labels = [
            i if seen else -100 for i, seen in zip(row["input_ids"], row["attention_mask"], strict=True)
        ]
        rows.append({**row, "labels": labels})
    mlflow.set_experiment(experiment)
    states = []
    for rate in (3e-3, 1e-2, 3e-2):
        torch.manual_seed(0)
        with as_documented(), mlflow.start_run():
            model = made()
            assert model.config.use_cache
            states.append(trainers_run(model, tokenizer, rows, rate, tmp_path / f"work{rate}"))
    data = written(tmp_path / "data", [{"text": text} for text in SENTENCES if " " in text])
    outcome = souped(
        capsys,
        *("--experiment", experiment, "--task", "causal-lm", "--method", "uniform"),
        *("--task-arg", f"data={data}"),
    )
    assert any(note.startswith("perplexity on test: best single ") for note in outcome.report.notes)
    [soup] = [row for row in outcome.report.rows if row.recipe.is_soup]
    assert len(soup.recipe.checkpoints) == len(states)
    model = made()
    model.load_state_dict(average(states), strict=False)
    model.tie_weights()
    texts = ["the ann met bob in rome to the oslo", "bob went"]
    given = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    given.pop("token_type_ids", None)
    with torch.inference_mode():
        wanted = model.eval()(**given).logits
    found, told = answers_elsewhere(tmp_path / "elsewhere", texts)
    torch.testing.assert_close(found, wanted)
    assert all(text in told for text in texts)


@dataclass(frozen=True, eq=False)
class RayTrial:
    """As much of a trial of Ray Tune as its callback looks at: a real one wants a running cluster."""

    name: str
    config: Mapping[str, Any]
    local_path: str

    def __str__(self) -> str:
        return self.name


def test_trials_of_ray_tune_by_its_callback(
    nets: Any,
    data: Path,
    experiment: str,
    home: Path,
    mlflow_uri: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With ``save_artifact=True`` it logs a trial's folder, with the pickles that Ray writes there."""
    states = []
    with as_documented():
        # Not a statement: mypy would read all of Ray.
        ray: Any = import_module("ray.air.integrations.mlflow")
        callback = ray.MLflowLoggerCallback(mlflow_uri, experiment_name=experiment, save_artifact=True)
        callback.setup()
        for place, rate in enumerate(RATES):
            folder = tmp_path / f"train_{place:05}"
            trial = RayTrial(folder.name, {"rate": rate}, str(folder))
            callback.log_trial_start(trial)
            for iteration in range(2):
                model = trained(nets, rate * (iteration + 1))
                checkpoint = folder / f"checkpoint_{iteration:06}"
                checkpoint.mkdir(parents=True)
                torch.save({"model_state_dict": model.state_dict()}, checkpoint / "model.pt")
                result = {"loss": 1.0, "training_iteration": iteration + 1}
                callback.log_trial_result(iteration, trial, result)
            (folder / "params.json").write_text(json.dumps(trial.config))
            (folder / "params.pkl").write_bytes(pickle.dumps(trial.config))
            callback.log_trial_end(trial)
            states.append(model.state_dict())
    outcome = souped(
        capsys,
        *("--experiment", experiment, "--weights", "last", *ARRAYS, f"data={data}"),
        *("--task-arg", "model=logged_nets:Net"),
    )
    require_the_average(outcome, states, nets.Net(), tmp_path / "elsewhere")


SEGMENTERS = """
import torch
from torch import nn


class Segmenter(nn.Module):
    # [n, 3, height, width] to two tables of [n, 2, height, width]
    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.out, self.aux = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        features = torch.relu(self.norm(self.backbone(x)))
        size = x.shape[-2:]
        heads = {"out": self.out, "aux": self.aux}
        return {
            name: nn.functional.interpolate(head(features), size=size, mode="bilinear")
            for name, head in heads.items()
        }


def drawn(seed, n, height=8, width=8):
    x = torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return x, (x.mean(dim=1) > 0).long()


class Pixels:
    version = "1"
    bounds = (0.0, 1.0)
    batch_size = 8

    def model(self):
        return Segmenter()

    def examples(self, split):
        x, y = drawn(["validation", "test"].index(split) + 1, 24)
        return list(zip(x, y))

    def collate(self, examples):
        return tuple(map(torch.stack, zip(*examples)))

    def predict(self, model, batch):
        return model(batch[0])["out"]

    def score(self, outputs, batch):
        return (outputs.argmax(dim=1) == batch[1]).float().mean(dim=(1, 2))
"""
ASK_SEGMENTER = """
import sys

import mlflow
import numpy as np
import torch

x = np.load("given.npy")
served = mlflow.pyfunc.load_model(sys.argv[1]).predict(x)
exported = mlflow.pytorch.load_model(sys.argv[1])(torch.from_numpy(x))
for name in ("out", "aux"):
    np.save(f"served_{name}.npy", served[name])
    np.save(f"exported_{name}.npy", exported[name].detach().numpy())
"""


def _log_segmenter(model: nn.Module, _: Path) -> None:
    """With an example and the signature of both outputs, which MLflow cannot find out by itself."""
    import mlflow
    from mlflow.models import infer_signature

    x = torch.rand(4, 3, 8, 8)
    with torch.inference_mode():
        outputs = {name: tensor.numpy() for name, tensor in model(x).items()}
    mlflow.pytorch.log_model(
        model,
        name="model",
        input_example=x.numpy(),
        signature=infer_signature(x.numpy(), outputs),
        pip_requirements=["torch"],
    )


@pytest.mark.parametrize("log", [_log_segmenter, _log_saved])
def test_a_segmenter_with_two_outputs_by_name(
    log: Any,
    experiment: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "logged_segmenters.py").write_text(SEGMENTERS)
    monkeypatch.syspath_prepend(tmp_path / "user")
    import logged_segmenters  # type: ignore[import-not-found]

    mlflow.set_experiment(experiment)
    states = []
    for rate in RATES:
        torch.manual_seed(0)
        model = logged_segmenters.Segmenter()
        optimizer = torch.optim.AdamW(model.parameters(), rate)
        x, y = logged_segmenters.drawn(0, 32)
        for _ in range(5):
            optimizer.zero_grad()
            outputs = model(x)
            loss: Any = sum(nn.functional.cross_entropy(each, y) for each in outputs.values())
            loss.backward()
            optimizer.step()
        with as_documented(), mlflow.start_run():
            log(model.eval(), tmp_path)
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    souped(capsys, "--experiment", experiment, "--task", "logged_segmenters:Pixels", "--method", "uniform")
    sys.modules.pop("logged_segmenters")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    asked, _ = logged_segmenters.drawn(9, 5, height=12, width=10)
    np.save(elsewhere / "given.npy", asked.numpy())
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ASK_SEGMENTER, "models:/soups/1"]
    subprocess.run(command, cwd=elsewhere, env=environment, check=True, timeout=300)
    model = logged_segmenters.Segmenter()
    model.load_state_dict(average(states))
    with torch.inference_mode():
        wanted = model.eval()(asked)
    for name, tensor in wanted.items():
        for way in ("served", "exported"):
            torch.testing.assert_close(torch.from_numpy(np.load(elsewhere / f"{way}_{name}.npy")), tensor)
