"""An MLflow model of language models that answer together: their exported graphs, and a file of code."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.pyfunc
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from stockpot.tracking.mlflow_cards import REQUIREMENTS
from stockpot.tracking.mlflow_packaging import exported

if TYPE_CHECKING:
    from torch import Tensor, nn

CODE = Path(__file__).with_name("ensemble_model.py")
GRAPH = "data/model.pt2"
"""Where MLflow puts a graph in a model's folder."""


def package_together(
    models: Iterable[tuple["nn.Module", "Tensor", Path]], prior: Sequence[float], into: Path
) -> None:
    """Write the folder. Raises Incompatible where a model cannot be exported."""
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f"{into.name}-") as name:
        folder, graphs = Path(name), Path(name) / "models"
        graphs.mkdir()
        for place, (module, ids, weights) in enumerate(models):
            alone = folder / str(place)
            interface = exported(module, weights, ids, alone)
            (alone / GRAPH).rename(graphs / f"{place}.pt2")
        card = Model()
        (answer,) = interface.signature.outputs.inputs
        mlflow.pyfunc.save_model(
            into,
            python_model=str(CODE),
            artifacts={graphs.name: str(graphs)},
            model_config={"prior": list(prior)},
            mlflow_model=card,
            signature=ModelSignature(
                interface.signature.inputs, Schema([TensorSpec(np.dtype(np.float32), answer.shape)])
            ),
            input_example=interface.example,
            pip_requirements=(alone / REQUIREMENTS).read_text().split(),
        )
        held = card.flavors["python_function"]["artifacts"][graphs.name]
        held["uri"] = held["path"]  # in place of a folder that is gone
        card.save(str(into / "MLmodel"))
