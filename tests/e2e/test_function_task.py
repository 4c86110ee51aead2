"""A plain function scores a sweep, from the request to a version that answers new inputs."""

import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest

from stockpot import soup
from stockpot.entities import Register, SoupRequest

SCORING = """
from stockpot.testing.tiny import TinyTask, dense as make_model

unit = "hits"

def score(model, split):
    task = TinyTask(n="80")
    x, labels = task.collate(list(task.examples(split)))
    return (model(x).argmax(dim=1) == labels).tolist()
"""


def test_a_sweep_is_souped_by_a_function(
    tiny_sweep: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("scoring_by_function.py").write_text(SCORING)
    request = replace(
        tiny_sweep, task="scoring_by_function:score", task_args={}, margin="-300%", register=Register.ALL
    )
    outcome = soup(request, flow=False)
    best, *soups = outcome.report.rows
    assert outcome.report.unit == "hits"
    assert soups[0].scores["validation"] >= best.scores["validation"]
    assert soups[0].versus_best["test"].n == 80
    report = outcome.report
    assert (report.ensembles, report.notes) == ((), ()), "scores are no answers that could be averaged"
    uri = next(one.uri for one in outcome.registered if "greedy" in one.methods)
    assert "challenger" in next(one.aliases for one in outcome.registered if "greedy" in one.methods)
    page = mlflow.MlflowClient().get_model_version("tiny", uri.rpartition("/")[2]).description or ""
    assert " hits (95" in page
    assert "points" not in page
    answer = mlflow.pyfunc.load_model(uri).predict(np.zeros((5, 8), np.float32))
    assert np.asarray(answer).shape == (5, 4)
    again = soup(request, flow=False)
    assert again.evaluations == 0
    assert [one.uri for one in again.soups] == [one.uri for one in outcome.soups]
