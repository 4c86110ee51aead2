"""The sweep of `make demo`: trained once, found again in no time."""

from dataclasses import asdict
from pathlib import Path

from stockpot.demo.kept import alone_in, keep_sweep, kept_sweep, tracking_uri
from stockpot.demo.search import SweepConfig
from stockpot.ports import Watcher

FULL = SweepConfig()


def train_sweep(home: Path, watch: Watcher, config: SweepConfig = FULL) -> str:
    """Train and log the sweep below `home`, unless that was done before. Returns the parent run's id.

    A sweep that was interrupted starts over; what it logged goes to a deleted experiment.
    """
    with alone_in(home):
        parent = finished_sweep(home, config)
        if parent is not None:
            watch.say(f"The sweep was trained before: run {parent}.")
            return parent
        # torch, scikit-learn and MLflow: seconds that a finished sweep does not cost.
        from stockpot.demo.data import write_digits
        from stockpot.demo.runs import log_sweep

        write_digits(data_path(home))
        parent = log_sweep(tracking_uri(home), home.absolute() / "artifacts", config, watch)
        keep_sweep(home, asdict(config), parent)
    return parent


def finished_sweep(home: Path, config: SweepConfig) -> str | None:
    """The parent run's id, if a sweep of this configuration was trained to its end."""
    return kept_sweep(home, asdict(config), data_path(home))


def data_path(home: Path) -> Path:
    """The ``.npz`` with every split and shifted set."""
    return home.absolute() / "digits.npz"
