"""A sweep across domains whose task measures by F1: each domain by that of its own examples."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from sklearn.metrics import f1_score
from tests.e2e.domain_sweep import USED, plant_domains, published_loop, walked

from stockpot.entities import Job, Objective, Recipe, SoupRequest
from stockpot.testing.tiny import MeasuredDomainTask
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.helping import _Help
from stockpot.workflow.selecting.by_domain import ROUTED
from stockpot.workflow.selecting.measure import open_splits
from stockpot.workflow.sharing.opening import opening_of

N = 300


@pytest.fixture
def request_(mlflow_uri: str, experiment: str, tiny_sweep: SoupRequest) -> SoupRequest:
    from mlflow import MlflowClient

    client: MlflowClient = MlflowClient(mlflow_uri)
    asked = plant_domains(client, experiment, tiny_sweep)
    task = "stockpot.testing.tiny:MeasuredDomainTask"
    return replace(asked, task=task, methods=("greedy",), verify_exact=True)


class Plain:
    """F1 by scikit-learn, from outputs of all examples."""

    def __init__(self, request: SoupRequest, split: str) -> None:
        task = MeasuredDomainTask(str(N))
        self._bench = Workplace().bench(request)
        self._x, self._labels = task.collate(list(task.examples(split)))
        self._domains = task.domains(split)

    def of(self, recipe: Recipe, domain: str) -> float:
        with torch.inference_mode():
            answers = self._bench.module_with(recipe)(self._x)[:, :4].argmax(1)
        own = [place for place, label in enumerate(self._domains) if label == domain]
        there, answered = self._labels[own].tolist(), answers[own].tolist()
        classes = sorted({*there, *answered})
        return float(f1_score(there, answered, average="macro", labels=classes))

    def mixture(self, recipe: Recipe) -> float:
        return sum(self.of(recipe, domain) for domain in USED) / len(USED)

    def worst(self, recipe: Recipe) -> float:
        return min(self.of(recipe, domain) for domain in USED)


def rounded(value: Callable[[Recipe], float]) -> Callable[[Recipe], float]:
    """So that sums in another order are the same."""
    return lambda recipe: round(value(recipe), 12)


@pytest.mark.parametrize("objective", [None, pytest.param(Objective.WORST, marks=pytest.mark.slow)])
def test_choices_and_rows_are_by_the_metric_of_each_domains_own_examples(
    request_: SoupRequest, objective: Objective | None
) -> None:
    asked = replace(request_, objective=objective)
    outcome = walked(asked)
    report, held_out, test = outcome.report, Plain(asked, "validation"), Plain(asked, "test")
    assert not [note for note in report.notes if "metric" in note]
    names = {point.checkpoint: point.run_name for point in report.candidates}
    greedy = next(s for s in report.selections if s.method == "greedy")
    aimed = held_out.worst if objective else held_out.mixture
    assert isinstance(greedy.recipe, Recipe)
    assert greedy.recipe.checkpoints == published_loop([*names], rounded(aimed))
    assert greedy.score == pytest.approx(aimed(greedy.recipe), abs=1e-9)
    for domain in USED:
        own = [digest for digest, name in names.items() if name.startswith(domain)]
        found = next(s for s in report.selections if s.method == f"specialist:{domain}")
        value = rounded(partial(held_out.of, domain=domain))
        assert found.recipe.checkpoints == published_loop(own, value)
    single = report.rows[0]
    for row in report.rows:
        assert row.scores["test"] == pytest.approx(test.mixture(row.recipe), abs=1e-9)
        for domain in USED:
            cell = (row.domains or {})[domain]
            assert cell.score == pytest.approx(test.of(row.recipe, domain), abs=1e-9)
            if row is not single:
                assert cell.versus_best is not None
                gain = test.of(row.recipe, domain) - test.of(single.recipe, domain)
                assert cell.versus_best.difference == pytest.approx(gain, abs=1e-9)
                assert cell.versus_best.method == "jackknife"
    gained = next(row for row in report.rows if "greedy" in row.methods).versus_best["test"]
    assert gained.method == "jackknife"
    assert gained.low < gained.difference < gained.high
    specialists = {d: next(r for r in report.rows if f"specialist:{d}" in r.methods) for d in USED}
    routed = next(row for row in report.references or () if row.label == ROUTED)
    each = [test.of(specialists[domain].recipe, domain) for domain in USED]
    assert routed.scores["test"] == pytest.approx(sum(each) / 3, abs=1e-9)
    assert walked(replace(asked, verify_exact=False)).passes == 0, "the second time everything is remembered"


@pytest.mark.slow
def test_a_helper_measures_the_same_parts(request_: SoupRequest) -> None:
    asked = replace(request_, verify_exact=False)
    with Workplace() as place:
        bench, job = place.bench(asked), Job.of(asked, [])
        place.store.begin_job(job)
        place.store.take_lease(job.lease, owner="host/1/leader", seconds=600)
        opening = opening_of(open_splits(asked, bench), bench, bench.batch_size, None)
        place.store.open_job(job, opening, owner="host/1/leader")
        assert _Help(job, opening, place, Silent()).give({})
    assert walked(asked).passes <= 4, "of each domain's best run and their mean, on the report split"
