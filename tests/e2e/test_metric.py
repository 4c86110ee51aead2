"""A sweep whose task measures each split as a whole, from its runs to its versions."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from stockpot.entities import MEAN_OF_SHIFTS, Recipe, Score, SoupRequest
from stockpot.errors import BadTask
from stockpot.statistics import compare
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.publishing.verdict import sentence
from stockpot.workflow.walk import in_turn, walk

TASK = """
from stockpot.testing.tiny import TinyTask

class Fickle(TinyTask):
    calls = 0

    def metric(self, outputs, batch):
        self.calls += 1
        return self.score(outputs, batch).mean() + self.calls * 1e-6
"""


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.mark.slow
def test_a_sweep_is_ranked_searched_and_reported_by_the_metric_with_the_jackknifes_interval(
    tiny_sweep: SoupRequest,
) -> None:
    told = Told()
    place = Workplace(watch=told)
    request = replace(tiny_sweep, task="stockpot.testing.tiny:MeasuredTask", verify_exact=True)
    outcome = walk(request, place, in_turn, told)
    protocols = {protocol.split: protocol for protocol in outcome.report.protocols}
    assert any("the task measures the split as a whole: every trial" in line for line in told.lines)
    assert any("greedy: the plain search agrees" in line and " 0 bounds" in line for line in told.lines)

    def score(recipe: Recipe, split: str) -> Score:
        found = place.store.score(recipe.digest, protocols[split].digest)
        assert found is not None
        assert found.metric is not None
        assert len(found.metric.without) == (0 if split == "validation" else 50)
        return found

    singles = [Recipe.mean([point.checkpoint]) for point in outcome.report.candidates]
    held_out = [score(recipe, "validation").value for recipe in singles]
    assert held_out == sorted(held_out, reverse=True) == [p.held_out for p in outcome.report.candidates]
    assert held_out != [math.fsum(e) / len(e) for e in (score(r, "validation").examples for r in singles)]
    best, *soups = outcome.report.rows
    assert best.recipe == singles[0]
    for row in soups:
        assert row.scores["test"] == score(row.recipe, "test").value
        for split in ("test", "shifted"):
            gain = row.versus_best[split]
            assert gain == compare(split, score(best.recipe, split), score(row.recipe, split))
            assert gain.mcnemar_p is None
            assert -math.inf < gain.low <= gain.difference <= gain.high < math.inf
        assert MEAN_OF_SHIFTS in row.versus_best
        assert "McNemar" not in sentence(row, "test", None)
    labels = [f"ensemble of the {row.label}" for row in soups if row.recipe.is_soup]
    assert [row.label for row in outcome.report.ensembles] == [*labels, "greedy ensemble"]
    again = walk(request, place, in_turn, Silent())
    assert again.evaluations == 0
    assert again.report == outcome.report


def test_a_metric_that_changes_from_pass_to_pass_is_named(
    tiny_sweep: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fickle_metric.py").write_text(TASK)
    request = replace(tiny_sweep, task="fickle_metric:Fickle", verify_exact=True)
    with pytest.raises(BadTask, match="same scores twice") as caught:
        walk(request, Workplace(), in_turn, Silent())
    assert all("the split as a whole scores" in fault for fault in caught.value.faults[:5])
