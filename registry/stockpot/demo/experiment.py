"""Where a demo's sweep is logged: an experiment of its own, and an MLflow that keeps quiet."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import mlflow
import torch
from mlflow import MlflowClient


def fresh_experiment(client: MlflowClient, name: str, artifacts: Path) -> str:
    """An empty experiment: one that an interrupted sweep left is put away under another name."""
    left = client.get_experiment_by_name(name)
    if left is not None:
        client.rename_experiment(left.experiment_id, f"{name}-interrupted-{left.experiment_id}")
        client.delete_experiment(left.experiment_id)
    experiment: str = client.create_experiment(name, artifact_location=artifacts.as_uri())
    return experiment


@contextmanager
def quiet_mlflow(uri: str) -> Iterator[None]:
    """Point MLflow at `uri` and silence its log lines; afterwards as before."""
    logger = logging.getLogger("mlflow")
    before, level = os.environ.get("MLFLOW_TRACKING_URI"), logger.level
    logger.setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        # MLflow mirrors its setting in the variable; None unsets both, which the annotation leaves out.
        mlflow.set_tracking_uri(cast("str", before))
        logger.setLevel(level)


@contextmanager
def one_thread() -> Iterator[None]:
    """So small a network trains no faster on more threads, and other work has the rest."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
