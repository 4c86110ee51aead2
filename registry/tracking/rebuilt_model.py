"""The code of a registered soup that could not be exported: MLflow copies this file into the model's
folder, and runs the copy when the model is loaded.

It needs nothing of Stockpot where it is loaded, only the module that defines the task.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from safetensors.torch import load_model


class RebuiltModel(PythonModel):
    """A task's architecture with the soup's weights, from safetensors: nothing is unpickled."""

    def load_context(self, context: PythonModelContext) -> None:
        """Make the architecture, then fill it."""
        config: Any = context.model_config
        module, _, name = config["task"].partition(":")
        task = getattr(importlib.import_module(module), name)(**config["task_args"])
        self.module: torch.nn.Module = task.model()
        load_model(self.module, context.artifacts["weights"])
        self.module.eval()

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: Any = None) -> Any:  # noqa: ARG002 - MLflow's signature; it warns at any other hint
        """Takes an array, or a dict of arrays: by name, or by position where the names are numbers."""
        given: Any = model_input
        arrays = given if isinstance(given, dict) else {"0": given}
        named = {name: torch.as_tensor(array) for name, array in arrays.items()}
        by_position = all(name.isdecimal() for name in named)
        with torch.inference_mode():
            return _arrays(self.module(*named.values()) if by_position else self.module(**named))


def _arrays(outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return (outputs.float() if outputs.dtype == torch.bfloat16 else outputs).numpy()
    if isinstance(outputs, Mapping):
        return {name: _arrays(value) for name, value in outputs.items()}
    return [_arrays(value) for value in outputs]


mlflow.models.set_model(RebuiltModel())
