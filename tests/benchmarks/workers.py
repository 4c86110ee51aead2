"""A sweep that k real process workers share, each with an evaluator that sleeps; one line of JSON.

    python -m tests.benchmarks.workers FOLDER [--workers 2] [--seconds 4] [--candidates 24]

One of them leads, the others help, as Prefect starts them: a server, a pool and its workers are started, and
keep their things in the empty folder. `seconds`: from each worker's first evaluation until all have every
score, of all workers together. `workers`: how many took part; `units`: the evaluations.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from tests.flows.prefect_site import prefect_site

from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights

TASK = '''
import os
import time
from pathlib import Path
from stockpot.evaluation.torch_evaluator import TorchEvaluator
from stockpot.testing.tiny import TinyTask

HERE = Path(__file__).parent
within = TorchEvaluator.evaluate

def sleeping(*arguments, **options):
    """In the GPU's place."""
    begin = time.time()
    time.sleep(float((HERE / "seconds").read_text()))
    found = within(*arguments, **options)
    with (HERE / f"{os.getpid()}.times").open("a") as log:
        log.write(f"{begin} {time.time()}\\n")
    return found

TorchEvaluator.evaluate = sleeping

class Sleeping(TinyTask):
    pass
'''


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """One request, from an empty store."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder.absolute() / 'mlflow.db'}"
    os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    os.environ["STOCKPOT_HOME"] = str(folder.absolute() / "home")
    tasks = folder.absolute() / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "sleeping.py").write_text(TASK)
    (tasks / "seconds").write_text(str(arguments.seconds))
    client = MlflowClient(uri)
    client.create_experiment("bench", artifact_location=(folder.absolute() / "artifacts").as_uri())
    runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(arguments.candidates)}
    sweep = plant_sweep(client, "bench", runs)
    with prefect_site(folder / "prefect") as site:
        site.deploy(tasks)
        for number in range(arguments.workers):
            site.start_worker(f"worker-{number}")
        site.run(
            *(sys.executable, "-m", "stockpot", "soup", "--submit", "--helpers", str(arguments.workers - 1)),
            *(
                "--model",
                "bench",
                "--sweep",
                sweep,
                "--task",
                "sleeping:Sleeping",
                "--task-arg",
                "kind=dense",
            ),
            *("--method", "uniform", "--points", "all"),
        )
        times = [_times(file) for file in tasks.glob("*.times")]
    end = max(end for each in times for _, end in each)
    seconds = sum(end - each[0][0] for each in times)
    return {"seconds": seconds, "workers": len(times), "units": sum(map(len, times))}


def _times(file: Path) -> list[tuple[float, float]]:
    """When each evaluation of this process began and ended."""
    pairs = (line.split() for line in file.read_text().splitlines())
    return [(float(begin), float(end)) for begin, end in pairs]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="that an evaluation takes")
    parser.add_argument("--candidates", type=int, default=24)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.folder, arguments)))


if __name__ == "__main__":
    main()
