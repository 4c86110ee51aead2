"""The sweep of `make demo`: trained once, found again in no time."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from stockpot.demo.search import SweepConfig
from stockpot.ports import Watcher

FULL = SweepConfig()


def train_sweep(home: Path, watch: Watcher, config: SweepConfig = FULL) -> str:
    """Train and log the sweep below `home`, unless that was done before. Returns the parent run's id.

    A sweep that was interrupted starts over; what it logged goes to a deleted experiment.
    """
    parent = finished_sweep(home, config)
    if parent is not None:
        watch.say(f"The sweep was trained before: run {parent}.")
        return parent
    # torch, scikit-learn and MLflow: seconds that a finished sweep does not cost.
    from stockpot.demo.data import write_digits
    from stockpot.demo.runs import log_sweep

    write_digits(data_path(home))
    parent = log_sweep(tracking_uri(home), home.absolute() / "artifacts", config, watch)
    unfinished = home / f"sweep.{os.getpid()}.json"
    unfinished.write_text(json.dumps({"parent_run_id": parent, "config": asdict(config)}))
    unfinished.replace(home / "sweep.json")
    return parent


def finished_sweep(home: Path, config: SweepConfig) -> str | None:
    """The parent run's id, if a sweep of this configuration was trained to its end."""
    record = home / "sweep.json"
    if not all(file.is_file() for file in (record, home / "mlflow.db", data_path(home))):
        return None
    finished = json.loads(record.read_text())
    return str(finished["parent_run_id"]) if finished["config"] == asdict(config) else None


def data_path(home: Path) -> Path:
    """The ``.npz`` with every split and shifted set."""
    return home.absolute() / "digits.npz"


def tracking_uri(home: Path) -> str:
    """Where the sweep is logged."""
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"
