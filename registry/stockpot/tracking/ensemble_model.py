"""The code of language models that answer together: MLflow copies this file into the model's folder, and runs
the copy when the model is loaded.

It needs nothing but torch where it is loaded: the models are graphs that torch exported.

Source: Li et al., "Branch-Train-Merge" (2022), section 2.2.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from torch import Tensor


def mixed(models: Sequence[Callable[[Tensor], Tensor]], prior: Sequence[float], ids: Tensor) -> Tensor:
    """The logarithm of the probability of each token behind each position, ``[n, t, vocabulary]``, float32.

    `models`: from ids, ``[n, t]``, to logits. `prior`: of each, above zero; they add up to one. At a position
    a model counts by its prior times the likelihood that it gave to the row's ids up to there, of which the
    first one is given. NaN behind what all models hold impossible.
    """
    joint: Tensor | None = None
    told: Tensor | None = None
    for model, share in zip(models, prior, strict=True):
        logs = model(ids).double().log_softmax(2)
        seen = logs[:, :-1].gather(2, ids[:, 1:, None]).squeeze(2)
        weight = math.log(share) + torch.nn.functional.pad(seen.cumsum(1), (1, 0))
        both = logs.add_(weight[:, :, None])
        joint = both if joint is None else torch.logaddexp(joint, both, out=joint)
        told = weight if told is None else torch.logaddexp(told, weight)
    assert joint is not None and told is not None  # noqa: S101, PT018 - there is a model
    return joint.sub_(told[:, :, None]).float()


class Together(PythonModel):
    """Exported models, and how much each counts beforehand."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the graphs."""
        config: Any = context.model_config
        folder = Path(context.artifacts["models"])
        self.prior: Sequence[float] = config["prior"]
        files = [folder / f"{place}.pt2" for place in range(len(self.prior))]
        self.models = [torch.export.load(str(file)).module() for file in files]

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: Any = None) -> Any:  # noqa: ARG002 - MLflow's signature; it warns at any other hint
        """From ids, int64 ``[n, t]``, to logarithms of probabilities, float32 ``[n, t, vocabulary]``."""
        with torch.inference_mode():
            return mixed(self.models, self.prior, torch.as_tensor(np.asarray(model_input))).numpy()


mlflow.models.set_model(Together())
