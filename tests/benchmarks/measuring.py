"""How much is measured, and the scripts that measure it, each in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Scale:
    """Sizes and numbers of repeats. The defaults are those of the promises."""

    repeats: int = 5
    few: int = 3
    """Repeats of what takes minutes."""
    megabytes: int = 536
    """Of each of eight checkpoints."""
    checkpoint: int = 1000
    """Megabytes of one that is read."""
    sharded: int = 4000
    """Megabytes of each checkpoint that was cut into shards."""
    large: tuple[tuple[int, int], ...] = ((32, 350), (8, 2000))
    """Checkpoints and their megabytes."""
    width: int = 1280
    """Of the hot-swapped model."""
    swaps: int = 20
    sweeps: int = 24
    """For early rejection; each with both rules."""
    candidates: int = 24
    examples: int = 4000
    drawn: int = 26_000
    """Examples of an interval."""
    runs: int = 10_000
    """Of the listed sweep."""
    finished: int = 5000
    """Sweeps that a scan sees."""
    watched: int = 100
    """Models whose aliases are looked at."""
    edges: int = 100_000
    """Ingredients of soups, and of recipes that were tried."""
    recalled: tuple[int, int] = (4, 16)
    """Sweeps of which each candidate is recalled, and their candidates."""
    shared: int = 32
    """Candidates that several processes rank."""
    sleep: float = 0.5
    """Seconds that each of their evaluations takes."""
    workers: tuple[int, ...] = (2, 4)
    """Process workers of Prefect,"""
    helped: int = 30
    """that rank so many candidates,"""
    long_sleep: float = 4.0
    """each for so many seconds: a minute of work for each of four."""
    deliveries: int = 100
    """Of MLflow's webhooks, which arrive at once."""
    command: tuple[str, ...] = ()
    trainer: tuple[str, ...] = ()
    selection: tuple[str, ...] = ("--variants", "24", "--examples", "4096", "--batch", "64")


FULL = Scale()
QUICK = Scale(
    repeats=1,
    few=1,
    megabytes=2,
    checkpoint=2,
    sharded=2,
    large=((5, 1), (3, 4)),
    width=32,
    swaps=1,
    sweeps=2,
    candidates=4,
    examples=200,
    drawn=40,
    runs=30,
    finished=20,
    watched=5,
    edges=2000,
    recalled=(1, 3),
    shared=4,
    sleep=0.01,
    workers=(2,),
    helped=4,
    long_sleep=0.01,
    deliveries=10,
    command=("--width", "64", "--examples", "512", "--variants", "3"),
    trainer=("--runs", "3", "--examples", "64", "--width", "32"),
    selection=("--variants", "4", "--examples", "128", "--batch", "32", "--pictures", "256", "--steps", "20"),
)
CUDA_SELECTION: tuple[str | int, ...] = (
    *("--model", "vit-b32", "--variants", 72, "--steps", 600, "--pictures", 50_000),
    *("--examples", 26_000, "--batch", 256, "--bf16"),
)
"""In bfloat16: 72 passes in float32 would take an H200 seven minutes."""


def measured(script: str, *arguments: str | int | Path, **variables: str) -> dict[str, Any]:
    """What a script of this folder printed last, in a process of its own: no run warms up another."""
    command = [sys.executable, "-m", f"tests.benchmarks.{script}", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, stdout=subprocess.PIPE, check=True, text=True
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
