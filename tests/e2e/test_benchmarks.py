"""`make bench` in tiny sizes: rows are measured, and a kept release stands beside the next run."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.run import PARTS
from tests.benchmarks.table import Goal, Row

ROOT = Path(__file__).parents[2]
ON_PREFECT = {"orchestration", "workers", "triggers"}
"""Parts that start Prefect's servers, and take as long as all others: what they time, `tests/flows` test."""
ROWS = {  # of the table, by the goal or the words in its place: how many
    "<= 1.15 x": 3,
    "<= 1.2 x": 1,
    "<= 1.25 x": 6,
    "<= 1.3 x": 4,
    "<= 2 x": 2,
    ">= 2 x": 1,
    "<= 64 MiB": 6,
    "<= 0.2 s": 5,
    "<= 1.5 x": 2,
    "<= 1 x": 2,
    "<= 1 %": 1,
    "<= 0 of them": 2,
    "<= 0.25 x": 3,
    "<= 12 rounds": 1,
    ">= 100 x": 1,
    "<= 0.25 x on CUDA": 1,
    ">= 0.9 of it": 1,
    "about its time": 3,
    "what is new alone": 1,
    "about its memory": 3,
    ">= 0.92 x": 2,
    "<= 20 ms": 1,
    "<= 50 ms": 5,
    "<= 30 ms": 1,
    "": 16,
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def bench(*arguments: str | Path) -> str:
    # Without a CUDA device, whose row takes minutes.
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.run", "--quick", *arguments],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("target", ["bench", "bench-peers"])
def test_the_commands_of_make_find_all_their_modules(target: str) -> None:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHONPATH"))}
    asked = ["make", "--dry-run", target, f"VENV={sys.prefix}", "ARGS=--help"]
    told = subprocess.run(asked, cwd=ROOT, env=quiet, capture_output=True, text=True, check=True).stdout
    *_, command = (line for line in told.splitlines() if "benchmarks" in line)
    done = subprocess.run(
        command.split(), cwd=ROOT, env=quiet, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    parts = [part for part in PARTS if part not in ON_PREFECT]
    assert "no release kept" in bench("--save", "--results", folder, "--only", *parts)
    return folder


@pytest.fixture
def document(kept: Path) -> dict[str, Any]:
    (path,) = kept.iterdir()
    found: dict[str, Any] = json.loads(path.read_text())
    assert path.name == f"{found['version']}.json"
    return found


def test_every_row_is_there_with_finite_figures(document: dict[str, Any]) -> None:
    rows = document["rows"]
    assert {goal: [row["goal"] for row in rows].count(goal) for goal in ROWS} == ROWS
    assert len(rows) == sum(ROWS.values()) == len({(row["work"], row["against"]) for row in rows})
    for row in rows:
        assert row["figures"], row
        assert all(math.isfinite(figure) for figure in row["figures"]), row
        assert row["work"], row
        assert row["against"], row
        assert row["unit"], row


def test_a_release_names_its_machine_and_its_day(document: dict[str, Any]) -> None:
    assert document["date"]
    assert {"cpus", "cpu", "python", "torch", "mlflow", "prefect"} == set(document["machine"])


def test_the_kept_release_stands_beside_the_next_run(kept: Path, document: dict[str, Any]) -> None:
    printed = bench("--only", "speculation", "--results", kept)
    head, *rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    column = head.index(f"{document['version']} had")
    known = [f"{row['median']:.0f}" for row in document["rows"] if "by 8 processes" in row["work"]]
    assert [row[column] for row in rows] == known
    assert known[0] == "12"


@pytest.mark.parametrize(
    ("goal", "figures", "over"),
    [
        (Goal("<=", 1.5), (9.0, 1.6, 1.0), True),
        (Goal("<=", 1.5), (9.0, 1.5, 1.0), False),
        (Goal(">=", 0.9), (0.8, 0.89, 2.0), True),
        ("about its time", (99.0,), False),
    ],
)
def test_a_row_over_its_goal_says_so(goal: Goal | str, figures: tuple[float, ...], *, over: bool) -> None:
    row = Row("work", "reference", goal, figures, "x")
    assert row.over is over
    assert row.line().endswith("| **MISSES ITS GOAL** |") is over


def test_a_kept_row_is_over_its_goal_where_its_median_is(document: dict[str, Any]) -> None:
    measured = [row for row in document["rows"] if row["goal"] == "<= 1.5 x"]
    assert len(measured) == ROWS["<= 1.5 x"]
    assert [row["over"] for row in measured] == [row["median"] > 1.5 for row in measured]


def test_tiny_figures_are_never_kept_as_a_release_of_ours() -> None:
    with pytest.raises(AssertionError, match="full size"):
        bench("--save")


def test_the_study_of_domains_tells_every_way_and_trains_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.domains", str(tmp_path), "--quick", "--seeds", "2"]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in first.splitlines() if line.startswith("| ")]
    ways = {line.split(" | ")[0].removeprefix("| ") for line in lines}
    assert {"base", "best single", "uniform", "specialists, routed", "all data, the sweep's compute"} <= ways
    cells = [line.split(" | ") for line in lines if line.startswith("| best single")]
    assert all(cell.count(" to ") == 1 for cell in cells[0][1:]), "each has the spread over seeds"
    trained = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert len(trained) == 2 * (1 + 4 * 2 + 3)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert again == first
    assert trained == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
