"""The sweep of `make demo-domains`: trained once, found again in no time."""

from dataclasses import asdict
from pathlib import Path

from stockpot.demo.domains.plan import DomainsConfig
from stockpot.demo.kept import alone_in, keep_sweep, kept_sweep, tracking_uri
from stockpot.ports import Watcher

FULL = DomainsConfig()


def train_sweep(home: Path, watch: Watcher, config: DomainsConfig = FULL) -> str:
    """Gather the text, train and log the sweep below `home`, unless that was done before: whatever text the
    machine has by now. Returns the parent run's id.

    A sweep that was interrupted starts over; what it logged goes to a deleted experiment.
    """
    data = data_path(home)
    with alone_in(home):
        parent = kept_sweep(home, asdict(config), data)
        if parent is None:
            # torch and MLflow: seconds that a finished sweep does not cost.
            from stockpot.demo.domains.runs import log_sweep
            from stockpot.demo.domains.texts import write_texts

            write_texts(data, config.texts, config.model.context)
            parent = log_sweep(tracking_uri(home), home.absolute() / "artifacts", data, config, watch)
            keep_sweep(home, asdict(config), parent)
        else:
            watch.say(f"The sweep was trained before: run {parent}.")
    return parent


def data_path(home: Path) -> Path:
    """The ``.npz`` with all text."""
    return home.absolute() / "texts.npz"
