"""The code of a registered soup whose exported graph has several outputs: MLflow copies this file into the
model's folder, and runs the copy when ``mlflow.pyfunc`` loads it. MLflow's own code hands out one tensor.

It needs nothing but torch where it is loaded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


class ExportedGraph:
    """The graph, called with arrays."""

    def __init__(self, file: Path) -> None:
        self._graph = torch.export.load(str(file)).module()

    def predict(self, data: Any, params: Any = None) -> Any:  # noqa: ARG002 - MLflow's signature
        """Takes an array, or a dict of arrays by position; returns arrays as the model nests them."""
        given = [data[name] for name in sorted(data, key=int)] if isinstance(data, Mapping) else [data]
        with torch.inference_mode():
            return _arrays(self._graph(*map(torch.as_tensor, given)))


def _load_pyfunc(path: str, model_config: Any = None) -> ExportedGraph:  # noqa: ARG001 - MLflow's signature
    """As MLflow calls it, with the folder of the graph's file."""
    (file,) = Path(path).glob("*.pt2")
    return ExportedGraph(file)


def _arrays(outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return (outputs.float() if outputs.dtype == torch.bfloat16 else outputs).numpy()
    if isinstance(outputs, Mapping):
        return {name: _arrays(value) for name, value in outputs.items()}
    return [_arrays(value) for value in outputs]
