"""The demo's sweep, trained and logged to MLflow run by run."""

import tempfile
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from safetensors.torch import save_file
from torch import Tensor, nn

from stockpot.demo.data import load_splits, scanned
from stockpot.demo.experiment import fresh_experiment, one_thread, quiet_mlflow
from stockpot.demo.search import Hyperparameters, PlannedRun, SweepConfig, plan
from stockpot.demo.training import accuracy, initialised, train
from stockpot.entities import Digest, digest_of_bytes
from stockpot.entities.tags import BASE
from stockpot.ports import Watcher
from stockpot.tracking.mlflow_calls import logging_left_alone

EXPERIMENT = "stockpot-demo"
Images = tuple[Tensor, Tensor]


def log_sweep(uri: str, artifacts: Path, config: SweepConfig, watch: Watcher) -> str:
    """Train everything, and log it as nested runs of one parent, whose id is returned."""
    planned = list(plan(config))
    stage = "training the sweep"
    watch.start(stage, len(planned) + 1)
    with quiet_mlflow(uri), one_thread():
        sweep = _Sweep.started(MlflowClient(), artifacts, config)
        watch.advance(stage)
        for run in planned:
            sweep.log(run)
            watch.advance(stage)
        sweep.client.set_terminated(sweep.parent)
    return sweep.parent


@dataclass
class _Sweep:
    """The parent run in MLflow, and what its runs are trained from."""

    client: MlflowClient
    experiment: str
    parent: str
    start: nn.Module
    """The starting point, its head included: an average needs a shared head too."""
    base: Digest
    finetune: Images
    validation: Images
    trained: dict[tuple[Hyperparameters, int | None], tuple[nn.Module, float]] = field(default_factory=dict)

    @classmethod
    def started(cls, client: MlflowClient, artifacts: Path, config: SweepConfig) -> "_Sweep":
        """Pre-train the starting point, and log it on the new parent run."""
        clean = _tensors(*load_splits()["pretrain"])
        start = initialised(config.seed)
        train(start, *clean, Hyperparameters(2e-3, 1e-2, config.pretrain_epochs, seed=config.seed))
        experiment = fresh_experiment(client, EXPERIMENT, artifacts)
        parent = client.create_run(experiment, run_name="digits-sweep").info.run_id
        client.log_batch(parent, params=[Param(key, str(value)) for key, value in asdict(config).items()])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "starting-point.safetensors"
            save_file(start.state_dict(), file, {"format": "pt"})
            client.log_artifact(parent, str(file))
            base = digest_of_bytes(file.read_bytes())
        finetune, validation = (_tensors(*scanned(split)[:2]) for split in ("finetune", "validation"))
        return cls(client, experiment, parent, start, base, finetune, validation)

    def log(self, run: PlannedRun) -> None:
        """Create the run, train it, log what came of it, and end it as planned."""
        tags = {"mlflow.parentRunId": self.parent}
        if run.width is None:
            tags[BASE] = self.base
        run_id = self.client.create_run(self.experiment, run_name=run.name, tags=tags).info.run_id
        self.client.log_batch(
            run_id, params=[Param(key, str(value)) for key, value in asdict(run.how).items()]
        )
        if run.weights != "none":
            net, loss = self._train(run)
            now = int(time.time() * 1000)
            metrics = {"val_accuracy": accuracy(net, *self.validation), "train_loss": loss}
            self.client.log_batch(run_id, [Metric(key, value, now, 0) for key, value in metrics.items()])
            self._log_weights(run_id, run, net)
        if run.status != "RUNNING":
            self.client.set_terminated(run_id, run.status)

    def _train(self, run: PlannedRun) -> tuple[nn.Module, float]:
        """Fine-tune. The same hyperparameters and seed give the same weights: they are trained once."""
        key = run.how, run.width
        if key not in self.trained:
            net = deepcopy(self.start) if run.width is None else initialised(run.how.seed, run.width)
            self.trained[key] = net, train(net, *self.finetune, run.how)
        return self.trained[key]

    def _log_weights(self, run_id: str, run: PlannedRun, net: nn.Module) -> None:
        if run.weights == "pt2":
            self._log_model(run_id, f"model-{run.name}", net)
            return
        with tempfile.TemporaryDirectory() as folder:
            if run.weights == "pickle":
                torch.save(net, f"{folder}/model.pt")  # the module, which only its code can open
            else:
                save_file(net.state_dict(), f"{folder}/model.safetensors", {"format": "pt"})
            self.client.log_artifacts(run_id, folder)

    def _log_model(self, run_id: str, name: str, net: nn.Module) -> None:
        with logging_left_alone():
            import mlflow.pytorch  # not `from mlflow import pytorch`, which waits until it is used

        with mlflow.start_run(run_id):
            mlflow.pytorch.log_model(
                net,
                name=name,
                input_example=self.finetune[0][:2].numpy(),
                pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
                serialization_format="pt2",
            )


def _tensors(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Images:
    return torch.from_numpy(x), torch.from_numpy(y)
