"""Which soups become versions, and which version is the newest."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from stockpot.cli.printing import show_outcome
from stockpot.entities import Register, SoupOutcome, SoupRequest, SoupState
from stockpot.testing.sweeps import plant_run
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.trace import rebuild, snapshot_of
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

pytestmark = pytest.mark.slow
UNIFORM = ("uniform",)


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def collapsing(tiny_sweep: SoupRequest, client: "MlflowClient", experiment: str) -> SoupRequest:
    """Of a sweep with one run that diverged: greedy leaves it out, uniform collapses."""
    found = client.get_experiment_by_name(experiment)
    assert found
    assert tiny_sweep.sweep
    diverged = weights("dense", seed=9, spread=40.0)
    plant_run(client, found.experiment_id, tiny_sweep.sweep, "diverged", diverged)
    return replace(tiny_sweep, shifts=(), margin=-100.0)


def _walk(request: SoupRequest) -> SoupOutcome:
    return walk(request, Workplace(), in_turn, Silent())


def _versions(client: "MlflowClient") -> Iterator[tuple[str, str]]:
    """Numbers and methods, oldest first."""
    for version in sorted(client.search_model_versions("name='tiny'"), key=lambda v: int(v.version)):
        yield str(version.version), version.tags["stockpot.methods"]


def test_a_soup_that_is_worse_is_reported_and_not_registered_unless_all_are_wanted(
    collapsing: SoupRequest, client: "MlflowClient", capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = _walk(collapsing)
    states = {soup.methods: soup for soup in outcome.soups}
    left_out = states[UNIFORM]
    assert (states["greedy",].state, left_out.state) == (SoupState.REGISTERED, SoupState.LEFT_OUT)
    assert list(_versions(client)) == [("1", "greedy")]
    assert "worse than the best single candidate" in left_out.why
    assert "--register all" in left_out.why
    show_outcome(outcome, as_json=False)
    assert f"uniform soup is left out: {left_out.why}" in capsys.readouterr().out
    _, snapshot = snapshot_of(states["greedy",].uri, Workplace().tracker)
    assert "uniform soup" in [row.label for row in snapshot.report.rows]

    everything = {s.methods: s.state for s in _walk(replace(collapsing, register=Register.ALL)).soups}
    assert everything == {("greedy",): SoupState.ADOPTED, UNIFORM: SoupState.REGISTERED}


def test_only_soups_that_are_shown_to_be_better_are_registered_where_that_is_asked(
    tiny_sweep: SoupRequest, client: "MlflowClient"
) -> None:
    request = replace(tiny_sweep, task_args={"kind": "dense", "n": "8"}, shifts=(), register=Register.BETTER)
    assert {soup.state for soup in _walk(request).soups} == {SoupState.LEFT_OUT}
    assert list(_versions(client)) == []


@pytest.mark.parametrize("methods", [("greedy", "uniform"), ("uniform", "greedy")])
def test_the_best_by_held_out_score_is_the_newest_version(
    collapsing: SoupRequest, client: "MlflowClient", methods: tuple[str, ...]
) -> None:
    outcome = _walk(replace(collapsing, register=Register.ALL, methods=methods))
    assert [soup.methods for soup in outcome.soups] == [(method,) for method in methods], "the report's order"
    assert list(_versions(client)) == [("1", "uniform"), ("2", "greedy")]


def test_where_no_soup_is_left_the_best_single_is_registered_in_the_same_manner(
    collapsing: SoupRequest, client: "MlflowClient", tmp_path: "Path", capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow.pytorch

    request = replace(collapsing, methods=UNIFORM, or_best_single=True)
    outcome = _walk(request)
    best, uniform = outcome.soups
    assert (best.methods, best.state, uniform.state) == ((), SoupState.REGISTERED, SoupState.LEFT_OUT)
    assert list(_versions(client)) == [("1", "best_single")]
    assert best.aliases == ("challenger",)
    page = client.get_model_version("tiny", "1").description or ""
    assert "the best of the sweep on the held-out split" in page
    assert "comparison" not in page, "nothing was compared with itself"
    show_outcome(outcome, as_json=False)
    assert f"best single is registered as {best.uri}, alias challenger" in capsys.readouterr().out

    place = Workplace()
    built = rebuild(best.uri, place.tracker, place.supply, tmp_path / "best.safetensors")
    assert built.digest == best.checkpoint == outcome.report.candidates[0].checkpoint
    assert len(list(mlflow.pytorch.load_model(best.uri).parameters())) == 4
    assert [soup.state for soup in _walk(request).soups] == [SoupState.ADOPTED, SoupState.LEFT_OUT]


def test_where_a_soup_is_registered_the_best_single_is_not(
    collapsing: SoupRequest, client: "MlflowClient"
) -> None:
    _walk(replace(collapsing, or_best_single=True))
    assert [methods for _, methods in _versions(client)] == ["greedy"]


def test_a_best_single_that_is_worse_than_the_challenger_does_not_take_its_alias(
    collapsing: SoupRequest, client: "MlflowClient"
) -> None:
    _walk(replace(collapsing, methods=("greedy",)))
    best, _ = _walk(replace(collapsing, methods=UNIFORM, or_best_single=True, margin=0.0)).soups
    assert "challenger stays with models:/tiny/1" in best.why
    assert str(client.get_model_version_by_alias("tiny", "challenger").version) == "1"
