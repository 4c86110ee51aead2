"""`make bench`: ratios measured side by side in one run, with their spread. The README quotes the table.

Seconds are given where a promise is in seconds. Every figure is the median of its repeats, the spread their
least and greatest.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    work: str
    reference: str
    goal: str
    figures: tuple[float, ...]
    unit: str

    def __str__(self) -> str:
        middle = statistics.median(self.figures)
        spread = f"{min(self.figures):.2f} to {max(self.figures):.2f}"
        return f"| {self.work} | {self.reference} | {self.goal} | {middle:.2f} {self.unit} | {spread} |"


def measured(script: str, *arguments: str | int | Path, **variables: str) -> dict[str, float]:
    """What a script of this folder printed last, in a process of its own: no run warms up another."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | variables, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def averaging(scratch: Path, repeats: int, megabytes: int) -> list[Row]:
    """Eight checkpoints to one: ours against load, add, save_file; in turn, page-cached."""
    folder = scratch / "averaging"
    measured("averaging.py", "prepare", folder, megabytes)
    pairs = [
        (measured("averaging.py", "naive", folder), measured("averaging.py", "hashed", folder))
        for _ in range(repeats + 1)
    ][1:]
    shutil.rmtree(folder)
    work = f"average 8 x {megabytes} MB fp32"
    return [
        Row(work, "load, add, save_file", ">= 2 x", tuple(n["s"] / s["s"] for n, s in pairs), "x faster"),
        Row(work, "the imports' memory", "<= 64 MiB", tuple(s["mib"] for _, s in pairs), "MiB more"),
    ]


def orchestration(scratch: Path, repeats: int) -> list[Row]:
    """A 24-candidate sweep through the flow, imports done: all that is neither evaluation nor averaging."""
    cold: list[dict[str, float]] = []
    warm: list[dict[str, float]] = []
    again: list[dict[str, float]] = []
    sweep = scratch / "sweep"
    measured("orchestration.py", "prepare", sweep)
    for repeat in range(repeats):
        prefect = scratch / f"prefect-{repeat}"
        for kept, home in ((cold, "first"), (warm, "second")):
            fresh = {"STOCKPOT_HOME": str(scratch / f"{home}-{repeat}"), "PREFECT_HOME": str(prefect)}
            kept.append(measured("orchestration.py", "flow", sweep, f"model-{home}-{repeat}", **fresh))
        again.append(measured("orchestration.py", "flow", sweep, f"model-second-{repeat}", **fresh))
    for figures in again:
        assert figures["evaluations"] == figures["downloads"] == figures["averages"] == 0, figures
    work, outside = "24-candidate sweep, flow", "evaluation and averaging"
    return [
        Row(f"{work}, cold Prefect home", outside, "<= 30 s", tuple(f["rest"] for f in cold), "s more"),
        Row(f"{work}, warm Prefect home", outside, "<= 15 s", tuple(f["rest"] for f in warm), "s more"),
        Row(
            f"{work}, the same request again",
            "the first time",
            "no evaluation, download, average",
            tuple(a["flow"] / w["flow"] for a, w in zip(again, warm, strict=True)),
            "x its time",
        ),
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=500, help="of each averaged checkpoint")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as folder:
        scratch = Path(folder)
        parts: list[Callable[[], list[Row]]] = [
            lambda: averaging(scratch, chosen.repeats, chosen.megabytes),
            lambda: orchestration(scratch, min(3, chosen.repeats)),
        ]
        rows = [row for part in parts for row in part()]
    print(f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}\n")
    print("| work | against | goal | median | spread |\n|---|---|---|---|---|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
