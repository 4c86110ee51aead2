"""Several processes, and killed ones: still one version per soup."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stockpot.documents import to_document
from stockpot.entities import SoupRequest
from stockpot.testing.crashes import CREATING_CALLS

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("souping_process.py")


def _start(request: SoupRequest, die_after: str = "") -> "subprocess.Popen[str]":
    command = [sys.executable, str(PROGRAM), json.dumps(to_document(request)), die_after]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _ended(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    soups: list[dict[str, Any]] = json.loads(out)
    return soups


def _versions(uri: str) -> list[str]:
    from mlflow import MlflowClient

    return [v.tags["stockpot.recipe"] for v in MlflowClient(uri).search_model_versions("name='tiny'")]


def test_the_same_request_three_times_at_once_makes_each_soup_once(
    tiny_sweep: SoupRequest, mlflow_uri: str
) -> None:
    outcomes = [_ended(process) for process in [_start(tiny_sweep) for _ in range(3)]]
    recipes = _versions(mlflow_uri)
    assert len(recipes) == len(set(recipes)) == len(outcomes[0])
    for place in range(len(recipes)):
        assert len({soups[place]["uri"] for soups in outcomes}) == 1
        assert sorted(soups[place]["state"] for soups in outcomes) == ["adopted", "adopted", "registered"]


@pytest.mark.parametrize("call", CREATING_CALLS)
def test_what_a_killed_process_began_the_next_one_finishes(
    tiny_sweep: SoupRequest, mlflow_uri: str, call: str
) -> None:
    killed = _start(tiny_sweep, die_after=call)
    killed.communicate(timeout=240)
    assert killed.returncode == -signal.SIGKILL
    soups = _ended(_start(tiny_sweep))
    recipes = _versions(mlflow_uri)
    assert sorted(recipes) == sorted(soup["recipe"] for soup in soups)
