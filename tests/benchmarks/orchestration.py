"""Soup a 24-candidate sweep in this process; print what that took, and what of it was the work itself."""

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


def run(folder: Path, model: str, *, flow: bool) -> dict[str, float]:
    """Run the request as the command does: as a flow when all is imported, else plainly, from nothing."""
    os.environ["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_REGISTRY_URI"] = _uri(folder)
    before = _seconds_since_start()
    if flow:
        _import_all()
        before = 0.0
    start = time.perf_counter()
    evaluating, averaging, fetching = _clocks()
    request = SoupRequest(
        model=model,
        sweep=(folder / "sweep").read_text(),
        task="stockpot.testing.tiny:TinyTask",
        task_args={"kind": "dense", "n": "200"},
        shifts=("shifted",),
    )
    outcome = soup(request, flow=flow, watch=Silent())
    took = before + time.perf_counter() - start
    return {
        "took": took,
        "rest": took - evaluating.seconds - averaging.seconds,
        "evaluations": outcome.evaluations,
        "averages": averaging.calls,
        "downloads": fetching.calls,
    }


def _seconds_since_start() -> float:
    """Of this process, as Linux tells: a person at the shell waits for the interpreter as well."""
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / os.sysconf("SC_CLK_TCK")


def _import_all() -> None:
    for library in ("stockpot_flows.soup_sweep", "mlflow.pytorch", "matplotlib.figure", "scipy.stats"):
        importlib.import_module(library)


def _clocks() -> tuple[Clock, Clock, Clock]:
    from stockpot.evaluation.torch_evaluator import TorchEvaluator
    from stockpot.tracking import MlflowTracker
    from stockpot.workflow.gathering import supply

    evaluating, averaging, fetching = Clock(), Clock(), Clock()
    evaluating.around(TorchEvaluator, "evaluate")
    averaging.around(supply, "build")
    fetching.around(MlflowTracker, "fetch")
    return evaluating, averaging, fetching


def _uri(folder: Path) -> str:
    return f"sqlite:///{folder.absolute() / 'mlflow.db'}"


if __name__ == "__main__":
    what, folder, *model = sys.argv[1:]
    if what == "prepare":
        prepare(Path(folder))
        print("{}")
    else:
        print(json.dumps(run(Path(folder), *model, flow=what == "flow")))
