"""A soup of models by sentence-transformers, as MLflow's flavour of that name.

The modules are classes of the library itself, made of plain data; nothing of an ingredient's folder is run.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mlflow.models import Model
from safetensors import safe_open

from stockpot.entities import CONFIG, MODULES, modules_in
from stockpot.tracking.mlflow_transformers import (
    NotSo,
    architecture_in,
    dtype_of,
    example_of,
    quiet_and_offline,
    signature_of,
)
from stockpot.tracking.model_cards import CARD, document_of
from stockpot.tracking.requirements import requirements
from stockpot.tracking.tensor_trees import BATCH_SIZES, agree, arrays, call, rows, tensors

if TYPE_CHECKING:
    from torch import nn

FLAVOUR = "sentence_transformers"


def package_sentences(
    folder: Path, weights: Path, module: "nn.Module", example: Any, card: Model, into: Path
) -> None:
    """As `package_transformers`, for a folder with a ``modules.json``."""
    import mlflow.sentence_transformers
    import sentence_transformers

    try:
        modules = modules_in((folder / MODULES).read_bytes())
    except ValueError as error:
        raise NotSo(str(error)) from error
    architecture_in(json.loads((folder / CONFIG).read_bytes()))
    theirs = document_of((folder / CARD).read_text()) if (folder / CARD).exists() else {}
    for _, path in modules[1:]:
        (folder / path).mkdir(exist_ok=True)  # a store keeps no empty folder
    with quiet_and_offline():
        shutil.copyfile(weights, folder / "model.safetensors")
        model = sentence_transformers.SentenceTransformer(
            str(folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": dtype_of(weights), "use_safetensors": True},
        ).eval()
        _require_weights(model, weights)
        mlflow.sentence_transformers.save_model(
            model,
            str(into),
            mlflow_model=card,
            signature=signature_of(theirs, FLAVOUR),
            input_example=example_of(theirs, folder, FLAVOUR),
            pip_requirements=requirements({"sentence_transformers", "transformers"}, "safetensors"),
        )
        _require_same_answers(into, module, example)


def _require_weights(model: Any, weights: Path) -> None:
    """Raise NotSo unless the first module holds these very weights."""
    held = model[0].auto_model.state_dict()
    with safe_open(weights, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    differing = [name for name in stored if name not in held or not torch.equal(held[name], stored[name])]
    missing = sorted(held.keys() - stored.keys())
    if differing or missing:
        raise NotSo(f"{type(model).__name__} does not hold the weights of {(differing or missing)[:3]}")


def _require_same_answers(into: Path, module: "nn.Module", example: Any) -> None:
    """Load the folder as its users will, and compare where the task's module takes the same input."""
    import mlflow.sentence_transformers

    loaded = mlflow.sentence_transformers.load_model(str(into)).cpu().eval()
    if not isinstance(example, Mapping) or "input_ids" not in example:
        return
    for size in BATCH_SIZES:
        batch = tensors(rows(arrays(example), size))
        with torch.inference_mode():
            found = loaded(dict(batch))["sentence_embedding"]
        if not agree(found, call(module, batch)):
            raise NotSo(f"its embeddings differ from those of the task's model at batch size {size}")
