"""The code of a registered soup that could not be exported: MLflow copies this file into the model's
folder, and runs the copy when the model is loaded.

It needs nothing of Stockpot where it is loaded, only the module that makes the architecture: the task,
unless that names a factory, and what it reads when it is constructed.
"""

import importlib
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from safetensors.torch import load_file


class RebuiltModel(PythonModel):
    """A task's architecture with the soup's weights, from safetensors: nothing is unpickled."""

    def load_context(self, context: PythonModelContext) -> None:
        """Make the architecture, then fill it."""
        config: Any = context.model_config
        module, _, name = config["maker"].partition(":")
        try:
            made = attrgetter(name)(importlib.import_module(module))(**config["args"])
            self.module: torch.nn.Module = made if isinstance(made, torch.nn.Module) else made.model()
        except Exception as error:
            raise RuntimeError(
                f"loading this model runs {config['maker']} with {config['args']}: it must be importable "
                f"here, and the files that it names must exist here: {type(error).__name__}: {error}"
            ) from error
        tensors = load_file(context.artifacts["weights"])
        self.module.load_state_dict({name: tensors[stored] for name, stored in config["names"].items()})
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
