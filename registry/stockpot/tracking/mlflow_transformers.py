"""A soup of models that Hugging Face's transformers wrote, as MLflow's flavour of that name.

What lies beside an ingredient's weights (`stockpot.entities.model_folder`) tells the model: its configuration
names the class, and a class of transformers' own is made of it. Nothing of the folder is run.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mlflow.models import Model, ModelSignature
from safetensors import safe_open

from stockpot.tracking.model_cards import CARD, document_of
from stockpot.tracking.requirements import requirements
from stockpot.tracking.tensor_trees import BATCH_SIZES, agree, arrays, call, rows, tensors

if TYPE_CHECKING:
    from torch import nn

FLAVOUR = "transformers"
TASKS: Mapping[str, str] = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "ForAudioClassification": "audio-classification",
}
"""What an architecture is for, by the end of its name. Of any other, its features are asked for."""
FEATURES = "feature-extraction"
MOST_EXAMPLE_BYTES = 1 << 16


class NotSo(Exception):
    """The model cannot be packaged in this way, and why."""


def package_transformers(
    folder: Path, weights: Path, module: "nn.Module", example: Any, card: Model, into: Path
) -> None:
    """Write a model folder of the flavour: `folder` holds a model's data files, and perhaps an ingredient's
    ``MLmodel`` with the example that it names. `card`: the soup's.

    Raises NotSo where it is no model of transformers, or where it would not answer as the module does;
    whatever transformers raises; and ImportError without it.
    """
    import transformers

    config = json.loads((folder / "config.json").read_bytes())
    architecture = architecture_in(config)
    kind = getattr(transformers, architecture, None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise NotSo(f"transformers {transformers.__version__} has no model {architecture}")
    theirs = document_of((folder / CARD).read_text()) if (folder / CARD).exists() else {}
    with quiet_and_offline():
        shutil.copyfile(weights, folder / "model.safetensors")
        model = _loaded(kind, folder, weights)
        components = {"model": model, **_processors(folder)}
        task = _task(theirs, architecture)
        model.config._name_or_path = model.name_or_path = ""  # noqa: SLF001 - else a temporary folder's
        _save(components, task, theirs, folder, card, into)
        _require_same_answers(into, module, example)


def architecture_in(config: Any) -> str:
    """The one that a ``config.json`` names. Raises NotSo where it brings code, or is of quantised weights."""
    named = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise NotSo("config.json does not name one architecture")
    for refused in ("auto_map", "quantization_config"):
        if config.get(refused):
            raise NotSo(f"config.json has {refused}")
    return named[0]


def _loaded(kind: Any, folder: Path, weights: Path) -> Any:
    """With the soup's weights in their own dtype. Raises NotSo where they are not the model's."""
    model, told = kind.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=dtype_of(weights),
        output_loading_info=True,
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if told.get(what):
            raise NotSo(f"{kind.__name__} of this config.json has {what}: {sorted(map(str, told[what]))[:3]}")
    return model.eval()


def dtype_of(weights: Path) -> "torch.dtype | str":
    """Of all floating-point tensors; ``auto`` where they have several."""
    with safe_open(weights, framework="pt") as file:
        dtypes = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no mapping
    floats = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
    found = [dtype for dtype, name in floats.items() if name in dtypes]
    return found[0] if len(found) == 1 else "auto"


def _processors(folder: Path) -> dict[str, Any]:
    """What the model's input is made with."""
    import transformers

    untyped: Any = transformers
    local = {"local_files_only": True, "trust_remote_code": False}
    found: dict[str, Any] = {}
    if (folder / "preprocessor_config.json").exists():
        found["image_processor"] = untyped.AutoImageProcessor.from_pretrained(folder, **local)
    if any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        found["tokenizer"] = untyped.AutoTokenizer.from_pretrained(folder, **local)
    if not found:
        raise NotSo("no tokenizer or preprocessor lies beside its config.json")
    return found


def _task(theirs: Mapping[str, Any], architecture: str) -> str:
    told = _flavour(theirs, FLAVOUR).get("task")
    if isinstance(told, str) and told in {*TASKS.values(), FEATURES}:
        return told
    return next((task for end, task in TASKS.items() if architecture.endswith(end)), FEATURES)


def _flavour(theirs: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    flavours = theirs.get("flavors")
    found = flavours.get(name) if isinstance(flavours, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _save(
    components: dict[str, Any], task: str, theirs: Mapping[str, Any], folder: Path, card: Model, into: Path
) -> None:
    import mlflow.transformers

    used = {"transformers", *({"PIL"} if "image_processor" in components else ())}
    mlflow.transformers.save_model(
        components,
        str(into),
        task=task,
        mlflow_model=card,
        signature=signature_of(theirs, FLAVOUR),
        input_example=example_of(theirs, folder, FLAVOUR),
        pip_requirements=requirements(used, "safetensors"),
    )


def signature_of(theirs: Mapping[str, Any], flavour: str) -> ModelSignature | None:
    """The ingredient's, where it logged this flavour; else MLflow's own for the task."""
    found = theirs.get("signature")
    if not _flavour(theirs, flavour) or not isinstance(found, Mapping):
        return None
    parts = {name: found.get(name) for name in ("inputs", "outputs", "params")}
    if not isinstance(parts["inputs"], str):
        return None
    signature: ModelSignature = ModelSignature.from_dict(parts)
    return signature


def example_of(theirs: Mapping[str, Any], folder: Path, flavour: str) -> Any:
    """The ingredient's, where it is plain JSON."""
    info = theirs.get("saved_input_example_info")
    file = folder / "input_example.json"
    if not _flavour(theirs, flavour) or not isinstance(info, Mapping) or info.get("type") != "json_object":
        return None
    if not file.exists() or file.stat().st_size > MOST_EXAMPLE_BYTES:
        return None
    return json.loads(file.read_bytes())


def _require_same_answers(into: Path, module: "nn.Module", example: Any) -> None:
    """Load the folder as its users will, and compare. A module with an input of another kind than the model's
    is compared by its weights alone, which are the same bits.
    """
    import mlflow.transformers

    model = mlflow.transformers.load_model(str(into), return_type="components")["model"].cpu().eval()
    if not isinstance(example, Mapping):
        return
    given = arrays(example)
    for size in BATCH_SIZES:
        batch = tensors(rows(given, size))
        found, wanted = (_first(call(each, batch)) for each in (model, module))
        if not agree(found, wanted):
            raise NotSo(f"its outputs differ from those of the task's model at batch size {size}")


def _first(outputs: Any) -> Any:
    """The logits, or whatever a model gives first: what a task's own module may give alone."""
    if isinstance(outputs, Mapping):
        return outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))
    return outputs[0] if isinstance(outputs, tuple | list) else outputs


@contextmanager
def quiet_and_offline() -> Iterator[None]:
    """No progress bars, no hub: whatever is not here is not asked for."""
    from huggingface_hub import constants
    from transformers.utils import logging as module

    logging: Any = module
    before, showed = constants.HF_HUB_OFFLINE, logging.is_progress_bar_enabled()
    variable = os.environ.get("HF_HUB_OFFLINE")
    constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable_progress_bar()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        if variable is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = variable
        if showed:
            logging.enable_progress_bar()
