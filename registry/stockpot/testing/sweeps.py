"""Plant small real sweeps in MLflow."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import Tensor


def plant_sweep(
    client: "MlflowClient", experiment: str, weights: Mapping[str, "Mapping[str, Tensor]"]
) -> str:
    """Log nested runs, each with ``model.safetensors``, under a new parent run, whose id is returned.

    `weights` maps run names to state dicts. The experiment is created if it does not exist.
    """
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    parent: str = client.create_run(experiment_id, run_name="sweep").info.run_id
    for place, (name, tensors) in enumerate(weights.items()):
        run_id = plant_run(client, experiment_id, parent, name, tensors)
        client.log_param(run_id, "seed", str(place))
    client.set_terminated(parent)
    return parent


def plant_run(
    client: "MlflowClient", experiment_id: str, parent: str, name: str, tensors: "Mapping[str, Tensor]"
) -> str:
    """Log one finished run below `parent`. Returns its id."""
    tags = {"mlflow.parentRunId": parent}
    run_id: str = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file(dict(tensors), file, metadata={"format": "pt"})
        client.log_artifact(run_id, str(file))
    client.set_terminated(run_id)
    return run_id
