"""The sweep across domains, trained and logged to MLflow."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from stockpot.demo.domains.plan import DomainsConfig, PlannedRun, all_data, base, branches
from stockpot.demo.domains.texts import digest_of
from stockpot.demo.domains.training import Trained, train, train_all
from stockpot.demo.experiment import fresh_experiment, one_thread, quiet_mlflow
from stockpot.entities import digest_of_bytes
from stockpot.entities.tags import BASE, DOMAIN
from stockpot.ports import Watcher

EXPERIMENT = "stockpot-demo-domains"
STARTING_POINT = "starting-point.safetensors"


def log_sweep(uri: str, artifacts: Path, data: Path, config: DomainsConfig, watch: Watcher) -> str:
    """Train the start and all runs from it; log them as nested runs of one parent, whose id is returned."""
    runs = [*branches(config), *all_data(config)]
    stage = "training the sweep"
    watch.start(stage, 1 + len(runs))
    with quiet_mlflow(uri), one_thread():
        client = MlflowClient()
        start = train(base(config), config.model, data)
        watch.advance(stage)
        experiment = fresh_experiment(client, EXPERIMENT, artifacts)
        parent = client.create_run(experiment, run_name="domains-sweep").info.run_id
        flat = {"text": digest_of(data), **asdict(base(config).how), **asdict(config.model)}
        client.log_batch(parent, params=[Param(key, str(value)) for key, value in flat.items()])
        _log_trained(client, parent, STARTING_POINT, start)
        tags = {"mlflow.parentRunId": parent, BASE: digest_of_bytes(start.weights)}
        trained = train_all(runs, config.model, data, start.weights)
        for run, done in zip(runs, trained, strict=True):
            _log_run(client, experiment, run, done, tags)
            watch.advance(stage)
        client.set_terminated(parent)
    return str(parent)


def _log_run(
    client: MlflowClient, experiment: str, run: PlannedRun, done: Trained, tags: Mapping[str, str]
) -> None:
    created = client.create_run(experiment, run_name=run.name, tags={**tags, DOMAIN: run.domain})
    run_id = created.info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in asdict(run.how).items()])
    _log_trained(client, run_id, "model.safetensors", done)
    client.set_terminated(run_id)


def _log_trained(client: MlflowClient, run_id: str, name: str, done: Trained) -> None:
    now = int(time.time() * 1000)
    by_domain = {f"val_{domain}": value for domain, value in done.validation.items()}
    by_domain["val_mixture"] = sum(done.validation.values()) / len(done.validation)
    curve = [Metric("train_loss", value, now, step) for step, value in enumerate(done.curve)]
    client.log_batch(run_id, [*curve, *(Metric(key, value, now, 0) for key, value in by_domain.items())])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(done.weights)
        client.log_artifact(run_id, str(file))
