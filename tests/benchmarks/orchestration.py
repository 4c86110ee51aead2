"""Soup a 24-candidate sweep in this process; print what the flow took, and what of it was the work itself."""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stockpot.calls import soup
from stockpot.entities import SoupRequest
from stockpot.watching import Silent

CANDIDATES = 24


def prepare(folder: Path) -> None:
    """Log the sweep."""
    from mlflow import MlflowClient

    from stockpot.testing.sweeps import plant_sweep
    from stockpot.testing.tiny import weights

    folder.mkdir()
    client = MlflowClient(_uri(folder))
    client.create_experiment("bench", artifact_location=(folder / "artifacts").absolute().as_uri())
    runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(CANDIDATES)}
    (folder / "sweep").write_text(plant_sweep(client, "bench", runs))


class Clock:
    """Seconds spent in, and calls of, the functions that it is put around."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0

    def around(self, owner: Any, name: str) -> None:
        """Put the clock around an attribute."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start
                self.calls += 1

        setattr(owner, name, timed)


def flow(folder: Path, model: str) -> dict[str, float]:
    """Run the flow as the command does, in a process that has imported what it needs."""
    os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = _uri(folder)
    for library in ("stockpot_flows.soup_sweep", "mlflow.pytorch", "matplotlib.figure", "scipy.stats"):
        importlib.import_module(library)
    from stockpot.evaluation.torch_evaluator import TorchEvaluator
    from stockpot.tracking import MlflowTracker
    from stockpot.workflow.gathering import supply

    evaluating, averaging, fetching = Clock(), Clock(), Clock()
    evaluating.around(TorchEvaluator, "evaluate")
    averaging.around(supply, "build")
    fetching.around(MlflowTracker, "fetch")
    request = SoupRequest(
        model=model,
        sweep=(folder / "sweep").read_text(),
        task="stockpot.testing.tiny:TinyTask",
        task_args={"kind": "dense", "n": "200"},
        shifts=("shifted",),
    )
    start = time.perf_counter()
    outcome = soup(request, flow=True, watch=Silent())
    took = time.perf_counter() - start
    return {
        "flow": took,
        "rest": took - evaluating.seconds - averaging.seconds,
        "evaluations": outcome.evaluations,
        "averages": averaging.calls,
        "downloads": fetching.calls,
    }


def _uri(folder: Path) -> str:
    return f"sqlite:///{folder.absolute() / 'mlflow.db'}"


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
        print("{}")
    else:
        figures = flow(Path(sys.argv[2]), sys.argv[3])
        print(json.dumps(figures))
