"""`stockpot soup` of 8 runs of 22M parameters, and the bare forward passes that it needed; one line of JSON.

    python -m tests.benchmarks.whole_command [--width 4224] [--examples 40000]

`command`: seconds of the whole command, in a process of its own, imports, downloads and the registration
included. `passes`: the forward passes that it did, over a split. `bare`: seconds of one, by a loop that keeps
batches and model in memory. The sweep lies in SQLite and local files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

FEATURES, CLASSES, BATCH = 512, 10, 256
WIDTH = "STOCKPOT_BENCH_WIDTH"


def make() -> nn.Module:
    """``[n, 512]`` to ``[n, 10]``; 22M parameters where it is 4224 wide."""
    width = int(os.environ[WIDTH])
    inner = (nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return nn.Sequential(*inner, nn.Linear(width, CLASSES))


def plant(folder: Path, examples: int, variants: int) -> str:
    """A sweep whose runs are near one start, and data that the start labels. Returns the parent's id."""
    from mlflow import MlflowClient

    from stockpot.testing.sweeps import plant_sweep

    torch.manual_seed(0)
    start, arrays = make().eval(), dict[str, Any]()
    for split in ("validation", "test"):
        x = torch.randn(examples, FEATURES)
        with torch.inference_mode():
            labels = torch.cat([start(part).argmax(-1) for part in torch.split(x, BATCH)])
        arrays |= {f"{split}_x": x.numpy(), f"{split}_y": labels.numpy()}
    np.savez(folder / "data.npz", **arrays)
    runs = {}
    for number in range(variants):
        noise = torch.Generator().manual_seed(number)
        runs[f"tune-{number}"] = {
            name: tensor + 0.3 * tensor.std() * torch.randn(tensor.shape, generator=noise)
            for name, tensor in start.state_dict().items()
        }
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
    return plant_sweep(client, "bench", runs)


def command(folder: Path, sweep: str) -> tuple[float, float]:
    """Seconds, and passes."""
    uri = f"sqlite:///{folder}/mlflow.db"
    surroundings = {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_REGISTRY_URI": uri,
        "STOCKPOT_HOME": str(folder / "home"),
    }
    asked = ["soup", "--sweep", sweep, "--model", "bench", "--task", "arrays", "--no-flow", "--json"]
    asked += ["--task-arg", f"data={folder}/data.npz", "--task-arg", f"model={__spec__.name}:make"]
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "stockpot", *asked, "--points", "0"],
        env={**os.environ, **surroundings},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return time.perf_counter() - begin, json.loads(done.stdout)["passes"]


def bare(folder: Path, repeats: int) -> float:
    """The least seconds of a pass over the held-out split."""
    arrays = np.load(folder / "data.npz")
    batches = torch.split(torch.from_numpy(arrays["validation_x"]), BATCH)
    model, seconds = make().eval(), []
    with torch.inference_mode():
        for _ in range(repeats):
            begin = time.perf_counter()
            for batch in batches:
                model(batch)
            seconds.append(time.perf_counter() - begin)
    return min(seconds)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=4224)
    parser.add_argument("--examples", type=int, default=40_000)
    parser.add_argument("--variants", type=int, default=8)
    chosen = parser.parse_args()
    os.environ[WIDTH] = str(chosen.width)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = plant(folder, chosen.examples, chosen.variants)
        before = bare(folder, 2)
        seconds, passes = command(folder, sweep)
        each = min(before, bare(folder, 2))
    parameters = sum(p.numel() for p in make().parameters())
    print(json.dumps({"command": seconds, "passes": passes, "bare": each, "parameters": parameters}))


if __name__ == "__main__":
    main()
