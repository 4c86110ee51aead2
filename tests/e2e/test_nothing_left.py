"""A request leaves nothing behind in MLflow until it has something to register."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from stockpot.entities import SoupRequest, SoupState
from stockpot.errors import NothingToSoup
from stockpot.testing.crashes import CrashingTracker
from stockpot.testing.sweeps import plant_run
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from stockpot.ports import Tracker

ARTIFACTS = "artifacts"


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


def _traces(client: "MlflowClient", experiment: str, folder: Path) -> list[str]:
    """All runs, deleted ones too, LoggedModels, registered models, tags of the experiment, and artifacts."""
    from mlflow.entities import ViewType

    found = client.get_experiment_by_name(experiment)
    assert found
    here = [found.experiment_id]
    runs = [run.info.run_id for run in client.search_runs(here, run_view_type=ViewType.ALL)]
    logged = [model.model_id for model in client.search_logged_models(here)]
    models = [model.name for model in client.search_registered_models()]
    files = [str(path) for path in (folder / ARTIFACTS).rglob("*")]
    return sorted([*runs, *logged, *models, *found.tags, *files])


def test_a_request_that_ends_in_nothing_to_soup_leaves_no_run_no_model_no_artifact(
    tiny_sweep: SoupRequest, client: "MlflowClient", experiment: str, tmp_path: Path
) -> None:
    place = Workplace()
    _, *others = place.tracker.runs(tiny_sweep.selector)
    for run in others:
        file = tmp_path / ARTIFACTS / run.run_id / "artifacts" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-4] + struct.pack("<f", float("nan")))
    watched = CrashingTracker(place.tracker)
    place.tracker = cast("Tracker", watched)
    before = _traces(client, experiment, tmp_path)
    for _ in range(2):
        with pytest.raises(NothingToSoup):
            walk(tiny_sweep, place, in_turn, Silent())
    assert watched.calls.count("prove_writable") == 2, "only the bytes show what is wrong"
    assert _traces(client, experiment, tmp_path) == before


def test_a_request_whose_soups_are_all_left_out_leaves_nothing_either(
    tiny_sweep: SoupRequest, client: "MlflowClient", experiment: str, tmp_path: Path
) -> None:
    found = client.get_experiment_by_name(experiment)
    assert found
    assert tiny_sweep.sweep
    diverged = weights("dense", seed=9, spread=40.0)
    plant_run(client, found.experiment_id, tiny_sweep.sweep, "diverged", diverged)
    before = _traces(client, experiment, tmp_path)
    request = replace(tiny_sweep, methods=("uniform",), shifts=())
    (soup,) = walk(request, Workplace(), in_turn, Silent()).soups
    assert soup.state is SoupState.LEFT_OUT
    assert _traces(client, experiment, tmp_path) == before


def test_a_model_that_a_person_deleted_does_not_come_back_empty(
    tiny_sweep: SoupRequest, client: "MlflowClient"
) -> None:
    request = replace(tiny_sweep, methods=("greedy",), shifts=(), margin=-100.0)
    walk(request, Workplace(), in_turn, Silent())
    client.delete_registered_model("tiny")
    (soup,) = walk(request, Workplace(), in_turn, Silent()).soups
    assert soup.state is SoupState.WITHDRAWN
    assert list(client.search_registered_models()) == []
