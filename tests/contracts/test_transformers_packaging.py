"""What of a stranger's folder makes a model of transformers, and what does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.models import Model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stockpot.tracking.mlflow_packaging import package
from stockpot.tracking.mlflow_transformers import NotSo, package_transformers
from stockpot.tracking.model_configs import complete_config

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"]


class BertTask:
    """Makes the architecture, where a served model is made anew."""

    def model(self) -> nn.Module:
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=8, **sizes)
        made: nn.Module = BertForSequenceClassification(config).eval()
        return made


@pytest.fixture
def module() -> nn.Module:
    return BertTask().model()


@pytest.fixture
def folder(tmp_path: Path, module: Any) -> Path:
    """Configuration and tokenizer, without weights."""
    from transformers import BertTokenizer

    made = tmp_path / "folder"
    module.save_pretrained(made)
    (made / "model.safetensors").unlink()
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(made)
    return made


@pytest.fixture
def weights(tmp_path: Path, module: nn.Module) -> Path:
    file = tmp_path / "soup.safetensors"
    save_file(module.state_dict(), file, {"format": "pt"})
    return file


EXAMPLE = {"input_ids": torch.tensor([[2, 4, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}


def packaged(folder: Path, weights: Path, module: nn.Module, into: Path) -> dict[str, Tensor]:
    package_transformers(folder, weights, module, EXAMPLE, Model(), into)
    written: dict[str, Tensor] = load_file(into / "model" / "model.safetensors")
    return written


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_soups_very_bits_are_written_in_their_own_dtype(
    folder: Path, module: nn.Module, tmp_path: Path, dtype: torch.dtype
) -> None:
    wanted = {name: tensor.to(dtype) for name, tensor in module.state_dict().items()}
    save_file(wanted, tmp_path / "16.safetensors", {"format": "pt"})
    written = packaged(folder, tmp_path / "16.safetensors", module.to(dtype), tmp_path / "package")
    assert written.keys() == wanted.keys()
    assert all(written[name].dtype == dtype and written[name].equal(wanted[name]) for name in wanted)
    card = (tmp_path / "package" / "MLmodel").read_text()
    assert "text-classification" in card
    assert str(folder) not in card


@pytest.mark.parametrize(
    ("theirs", "ours", "wanted"),
    [
        ({}, ["bad", "good"], ["bad", "good"]),
        ({"0": "LABEL_0", "1": "LABEL_1"}, ["bad", "good"], ["bad", "good"]),
        ({"0": "no", "1": "yes"}, ["bad", "good"], ["no", "yes"]),
        ({"0": "no", "1": "yes"}, ["LABEL_0", "LABEL_1"], ["no", "yes"]),
        ({"0": "no", "1": "yes"}, ["LABEL_0", "LABEL_1", "LABEL_2"], ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ],
)
def test_a_configuration_without_names_of_classes_takes_those_of_the_tasks_model(
    module: Any, tmp_path: Path, theirs: dict[str, str], ours: list[str], wanted: list[str]
) -> None:
    module.config.id2label = dict(enumerate(ours))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"id2label": theirs} if theirs else {}))
    complete_config(config, module, adapted=True)
    found = json.loads(config.read_text())
    assert list(found["id2label"].values()) == wanted
    assert found["architectures"] == ["BertForSequenceClassification"]


@pytest.mark.parametrize("content", ['{"pad_token_id": 0}', "[]", "{", "[" * 100_000])
def test_a_configuration_that_lacks_nothing_or_is_none_is_left_as_it_is(
    module: nn.Module, tmp_path: Path, content: str
) -> None:
    config = tmp_path / "config.json"
    config.write_text(content)
    complete_config(config, module, adapted=False)
    assert config.read_text() == content


def _code(config: dict[str, Any]) -> None:
    config["auto_map"] = {"AutoModel": "evil.Model"}


def _quantised(config: dict[str, Any]) -> None:
    config["quantization_config"] = {"bits": 4}


def _unknown(config: dict[str, Any]) -> None:
    config["architectures"] = ["NobodysModel"]


def _no_model(config: dict[str, Any]) -> None:
    config["architectures"] = ["pipeline"]


def _several(config: dict[str, Any]) -> None:
    config["architectures"] = ["BertModel", "BertForMaskedLM"]


def _another_head(config: dict[str, Any]) -> None:
    config["architectures"] = ["BertForMaskedLM"]


def _larger(config: dict[str, Any]) -> None:
    config["hidden_size"] = 16


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_code, "auto_map"),
        (_quantised, "quantization_config"),
        (_unknown, "has no model NobodysModel"),
        (_no_model, "has no model pipeline"),
        (_several, "does not name one architecture"),
        (_another_head, "keys"),
        (_larger, "size|shape"),
    ],
)
def test_a_folder_of_another_model_is_told(
    spoil: Callable[[dict[str, Any]], None],
    told: str,
    folder: Path,
    weights: Path,
    module: nn.Module,
    tmp_path: Path,
) -> None:
    config = json.loads((folder / "config.json").read_text())
    spoil(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises((NotSo, RuntimeError), match=told):
        packaged(folder, weights, module, tmp_path / "package")


@pytest.mark.parametrize(
    "name", ["preprocessor_config.json", pytest.param("tokenizer.json", marks=pytest.mark.slow)]
)
def test_a_file_that_transformers_cannot_read_is_no_fault_of_the_disk(
    folder: Path, weights: Path, module: nn.Module, tmp_path: Path, name: str
) -> None:
    (folder / name).write_text("{")
    packaged = package(
        MlflowClient(f"sqlite:///{tmp_path}/unused.db"),
        module,
        weights,
        EXAMPLE,
        tmp_path / "package",
        model_id=None,
        theirs=folder,
        architecture=(f"{__name__}:BertTask", {}),
    )
    assert packaged.instead
    assert not packaged.kind.startswith("transformers")
    assert load_file(tmp_path / "package" / "model.safetensors").keys() == module.state_dict().keys()


def test_without_a_tokenizer_there_is_no_pipeline(
    folder: Path, weights: Path, module: nn.Module, tmp_path: Path
) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(NotSo, match="no tokenizer"):
        packaged(folder, weights, module, tmp_path / "package")


def test_a_model_that_answers_otherwise_than_the_tasks_is_told(
    folder: Path, weights: Path, module: nn.Module, tmp_path: Path
) -> None:
    with torch.no_grad():
        module.get_parameter("classifier.bias").add_(1)  # the task's own does something else with them
    with pytest.raises(NotSo, match="outputs differ"):
        packaged(folder, weights, module, tmp_path / "package")


def test_a_module_with_another_input_is_compared_by_its_weights(
    folder: Path, weights: Path, module: nn.Module, tmp_path: Path
) -> None:
    package_transformers(folder, weights, module, torch.zeros(2, 3), Model(), tmp_path / "package")
    assert (tmp_path / "package" / "model" / "model.safetensors").exists()
