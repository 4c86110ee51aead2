"""What a demo keeps of a trained sweep, so that the second time costs nothing."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_RECORD = "sweep.json"
_DATABASE = "mlflow.db"


def kept_sweep(home: Path, config: dict[str, Any], data: Path) -> str | None:
    """The parent run's id, if a sweep of this configuration was trained to its end below `home`."""
    record = home / _RECORD
    if not all(file.is_file() for file in (record, home / _DATABASE, data)):
        return None
    finished = json.loads(record.read_text())
    asked = json.loads(json.dumps(config))  # tuples are lists there
    return str(finished["parent_run_id"]) if finished["config"] == asked else None


def keep_sweep(home: Path, config: dict[str, Any], parent: str) -> None:
    """Record, atomically, that this sweep was trained to its end."""
    unfinished = home / f"sweep.{os.getpid()}.json"
    unfinished.write_text(json.dumps({"parent_run_id": parent, "config": config}))
    unfinished.replace(home / _RECORD)


def tracking_uri(home: Path) -> str:
    """Where the sweep is logged."""
    return f"sqlite:///{home.absolute() / _DATABASE}"


@contextmanager
def alone_in(home: Path) -> Iterator[None]:
    """Wait until no other process trains below `home`, and be the one. Who was killed is no obstacle."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "training.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
