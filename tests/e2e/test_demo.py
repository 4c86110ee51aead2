"""`make demo`, twice, as a person runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _run(folder: Path, *arguments: str) -> str:
    names = ("PREFECT", "MLFLOW", "STOCKPOT")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    command = [sys.executable, "-m", *arguments]
    environment["HOME"] = str(folder)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert "INFO:" not in done.stderr, "Prefect's lines come beside our own: everything is told twice"
    return done.stdout


def test_the_demo_soups_a_real_sweep_and_finds_it_done_the_second_time(tmp_path: Path) -> None:
    first = _run(tmp_path, "stockpot.demo")
    odd_runs = ("tune-23-again", "nan-weights", "out-of-memory", "unfinished", "wide-net", "pickle-only")
    assert all(name in first for name in odd_runs)
    for heading in (
        "held-out",
        "test",
        "noise",
        "blur",
        "rotation",
        "contrast",
        "occlusion",
        "95 % interval",
    ):
        assert heading in first
    assert all(row in first for row in ("best single", "greedy", "uniform"))
    assert "mlflow server" in first
    (command,) = [line for line in first.splitlines() if "stockpot show" in line]
    shown = command.split()[-1]  # on the same line: people copy it
    assert shown.startswith("models:/digits/")
    counted = re.search(
        r"\n(\d+) evaluations over a split by this process, the work of (\d+\.\d) forward passes", first
    )
    assert counted is not None
    assert float(counted[2]) <= 90 < int(counted[1]), "early rejection saves passes"
    second = _run(tmp_path, "stockpot.demo", "--no-flow")
    assert "\n0 evaluations" in second
    assert "was registered before as" in second
    uri = f"sqlite:///{tmp_path / '.stockpot' / 'demo' / 'mlflow.db'}"
    program = f"from stockpot.cli import main; main(['show', {shown!r}, '--json'])"
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "STOCKPOT_HOME": str(tmp_path / "another")}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    assert json.loads(told.stdout)["version"]["name"] == "digits"
