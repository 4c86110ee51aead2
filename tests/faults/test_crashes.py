"""A crash around any call that creates something in MLflow loses nothing and doubles nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import pytest

from stockpot.entities import SoupOutcome, SoupRequest
from stockpot.testing.crashes import CREATING_CALLS, WRITING_CALLS, Crash, CrashingTracker
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from stockpot.ports import Tracker

pytestmark = pytest.mark.slow
Walk = Callable[..., tuple[SoupOutcome, list[str]]]


@pytest.fixture
def soup(tiny_sweep: SoupRequest) -> Walk:
    def run(
        call: str = "", when: Literal["before", "after"] = "before", nth: int = 1
    ) -> tuple[SoupOutcome, list[str]]:
        place = Workplace()
        watched = CrashingTracker(place.tracker, call, when, nth)
        place.tracker = cast("Tracker", watched)
        request = replace(tiny_sweep, margin=-100.0)  # so that the alias is earned
        return walk(request, place, in_turn, Silent()), watched.calls

    return run


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("call", "nth"),
    [
        *((call, 1) for call in (*CREATING_CALLS, *WRITING_CALLS)),
        *((call, 2) for call in CREATING_CALLS),  # in the middle of the ingredients; in the second soup
    ],
)
def test_a_second_run_goes_on_where_a_crash_stopped_the_first(
    soup: Walk, mlflow_uri: str, call: str, nth: int, when: Literal["before", "after"]
) -> None:
    from mlflow import MlflowClient

    with pytest.raises(Crash, match=call):
        soup(call, when, nth)
    outcome, _ = soup()
    client = MlflowClient(mlflow_uri)
    # Permissions are proven before anything is evaluated: all that comes later finds it remembered.
    assert call == "prove_writable" or outcome.evaluations == 0, "a committed evaluation was repeated"
    assert client.get_model_version_by_alias("tiny", "challenger").run_id == outcome.soups[0].run_id
    versions = client.search_model_versions("name='tiny'")
    assert len(versions) == len(outcome.soups)
    recipes = [version.tags["stockpot.recipe"] for version in versions]
    assert len(set(recipes)) == len(recipes)
    for soup_run in outcome.soups:
        experiment = client.get_run(soup_run.run_id).info.experiment_id
        role = "tags.`stockpot.role` = 'soup'"
        runs = client.search_runs([experiment], f"{role} and tags.`stockpot.recipe` = '{soup_run.recipe}'")
        assert [run.info.run_id for run in runs] == [soup_run.run_id]
        assert runs[0].info.status == "FINISHED"
        models = client.search_logged_models([experiment], f"source_run_id = '{soup_run.run_id}'")
        assert len(models) == 1
    everything = client.search_logged_models([experiment])
    standing_in = [m.source_run_id for m in everything if m.tags.get("stockpot.role") == "ingredient"]
    assert len(set(standing_in)) == len(standing_in)


def test_a_crash_between_an_aliass_tag_and_the_alias_loses_neither(
    soup: Walk, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def crash(*_: object) -> None:
        raise Crash("set_registered_model_alias")

    with monkeypatch.context() as dying:
        dying.setattr(MlflowClient, "set_registered_model_alias", crash)
        with pytest.raises(Crash):
            soup()
    outcome, _ = soup()
    version = MlflowClient(mlflow_uri).get_model_version_by_alias("tiny", "challenger")
    assert version.run_id == outcome.soups[0].run_id


def test_a_repeated_request_creates_downloads_and_evaluates_nothing(soup: Walk) -> None:
    first, _ = soup()
    again, calls = soup()
    assert [s.uri for s in again.soups] == [s.uri for s in first.soups]
    assert all(s.adopted for s in again.soups)
    assert again.evaluations == 0
    busy = {"fetch", "download", "upload", "package", "record", *CREATING_CALLS}
    assert not busy & set(calls)
    assert again.report.rows == first.report.rows
