"""`make demo-domains`, at tiny sizes: as its command runs it, without a terminal, twice, from two folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stockpot.demo.domains.runs import EXPERIMENT
from stockpot.demo.kept import tracking_uri
from stockpot.entities import tags

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROGRAM = """
from pathlib import Path
from stockpot.demo.domains.__main__ import run
from stockpot.demo.domains.plan import DomainsConfig, Sizes
from stockpot.demo.domains.texts import TextsConfig
if __name__ == "__main__":
    texts = TextsConfig(validation=6, test=8, train=10, windows=2)
    sizes = Sizes(width=16, depth=1, context=32)
    tiny = DomainsConfig(texts, sizes, base_steps=20, steps=4, batch=8, rates=(1e-3, 3e-3))
    run(Path({home!r}), tiny)
"""


def _run(folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    program = folder / "demo.py"  # a file: the processes that train import it
    program.write_text(PROGRAM.format(home=str(home)))
    names = ("PREFECT", "MLFLOW", "STOCKPOT")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    environment["HOME"] = str(folder)
    command = [sys.executable, str(program)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def test_the_demo_across_domains_is_trained_once_and_answers_both_questions(tmp_path: Path) -> None:
    first = _run(tmp_path / "here", tmp_path / "home").stdout
    assert first.count("best single") >= 2
    for told in (
        "Of the branches",
        "Of all runs",
        "base",
        "greedy soup",
        "uniform soup",
        "unseen",
        "sha256:",
    ):
        assert told in first
    client = MlflowClient(tracking_uri(tmp_path / "home"))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    tagged = client.search_runs([experiment.experiment_id], "tags.`stockpot.domain` != ''")
    runs = [run for run in tagged if tags.ROLE not in run.data.tags]  # specialists' tell theirs, too
    domains = sorted(run.data.tags["stockpot.domain"] for run in runs)
    assert domains == sorted([*["python", "stubs", "headers", "prose"] * 2, "*", "*", "*"])
    assert {run.data.params["steps"] for run in runs} == {"4", "32"}
    again = _run(tmp_path / "there", tmp_path / "home")
    assert "was trained before" in again.stderr
    assert again.stdout.count("\n0 evaluations") == 2
    (digest,) = [line for line in first.splitlines() if "sha256:" in line and "Figures" in line]
    assert digest in again.stdout
