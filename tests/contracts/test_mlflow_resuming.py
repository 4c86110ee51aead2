"""What an earlier process left half-done in MLflow is taken up, or taken away."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Measurement,
    Publication,
    Recipe,
    SweepSelector,
    WeightsFormat,
    WeightsSource,
    digest_of_bytes,
)
from stockpot.errors import TrackingError
from stockpot.testing.tracker_backend import fresh
from stockpot.tracking import MlflowTracker
from stockpot.tracking.names import ingredient_tags

DATASET = digest_of_bytes(b"images")
ACCURACY = Measurement("score.test", 0.75, "test", DATASET)


@dataclass
class Place:
    """A database, and a folder for artifacts."""

    client: MlflowClient
    tracker: MlflowTracker
    folder: Path

    def publication(self) -> Publication:
        """A soup of one run, in an experiment of its own."""
        name = fresh("sweep")
        experiment_id = self.client.create_experiment(name, str(self.folder / name))
        self.client.create_run(experiment_id)
        (run,) = self.tracker.runs(SweepSelector(experiment=name))
        source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "model.safetensors", "", None, None)
        digest = digest_of_bytes(b"weights")
        return Publication(
            model=fresh("model"),
            recipe=Recipe.mean([digest, digest_of_bytes(b"others")]),
            checkpoint=digest_of_bytes(b"soup"),
            ingredients=(Candidate(run, source, digest, Checkpoint(digest, 0, (), digest)),),
            experiment_id=experiment_id,
            parent_run_id=None,
            name="soup",
            description="",
            tags={},
            params={},
            measurements=(ACCURACY,),
            files={},
        )

    def runs(self, publication: Publication) -> list[str]:
        """The ids of its experiment's active runs."""
        return [run.info.run_id for run in self.client.search_runs([publication.experiment_id])]

    def model_metrics(self, model_id: str) -> list[float]:
        """Every value that the model ever had, oldest first."""
        metrics = self.client.get_logged_model(model_id).metrics or []
        return [metric.value for metric in sorted(metrics, key=lambda metric: metric.timestamp)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("resuming")
    uri = f"sqlite:///{folder}/mlflow.db"
    return Place(MlflowClient(uri), MlflowTracker(uri), folder)


@pytest.mark.parametrize("value", [0.5, 1.0])
def test_another_value_is_recorded_once_beside_the_first(place: Place, value: float) -> None:
    first = place.publication()
    run_id = place.tracker.create_run(first)
    model_id = place.tracker.create_model(run_id, first)
    place.tracker.record(run_id, model_id, [], first)
    second = replace(
        first,
        measurements=(replace(ACCURACY, value=value), replace(ACCURACY, name="score.validation")),
    )
    for _ in range(2):
        place.tracker.record(run_id, model_id, [], second)
    assert sorted(place.model_metrics(model_id)) == sorted([0.75, 0.75, value])
    assert place.client.get_run(run_id).data.metrics == {"score.test": value, "score.validation": 0.75}
    history = place.client.get_metric_history(run_id, "score.test")
    assert [metric.value for metric in history] == [0.75, value]


def test_a_value_for_another_dataset_is_recorded(place: Place) -> None:
    publication = place.publication()
    run_id = place.tracker.create_run(publication)
    model_id = place.tracker.create_model(run_id, publication)
    other = replace(publication, measurements=(replace(ACCURACY, dataset=digest_of_bytes(b"new images")),))
    for recorded in (publication, other, other):
        place.tracker.record(run_id, model_id, [], recorded)
    assert place.model_metrics(model_id) == [0.75, 0.75]


def test_a_stand_in_that_was_left_pending_is_made_ready(place: Place) -> None:
    publication = place.publication()
    (candidate,) = publication.ingredients
    pending = place.client.create_logged_model(
        publication.experiment_id,
        "ingredient",
        source_run_id=candidate.run.run_id,
        tags=ingredient_tags(candidate),
    )
    assert place.tracker.find_ingredient_model(candidate) == pending.model_id
    assert str(place.client.get_logged_model(pending.model_id).status) == "READY"


def test_proving_permission_leaves_no_file(place: Place) -> None:
    publication = place.publication()
    place.tracker.prove_writable(publication.model, publication.experiment_id)
    experiment = place.client.get_experiment(publication.experiment_id)
    assert [path for path in Path(experiment.artifact_location).rglob("*") if path.is_file()] == []


def test_a_run_whose_creation_was_never_answered_goes_with_the_next_proof(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    publication = place.publication()
    before = place.runs(publication)
    create_run = MlflowClient.create_run

    def unanswered(*args: Any, **kwargs: Any) -> None:
        create_run(*args, **kwargs)
        raise MlflowException("the gateway timed out")

    with monkeypatch.context() as lossy:
        lossy.setattr(MlflowClient, "create_run", unanswered)
        with pytest.raises(TrackingError, match="timed out"):
            place.tracker.prove_writable(publication.model, publication.experiment_id)
    assert len(place.runs(publication)) == len(before) + 1
    place.tracker.prove_writable(publication.model, publication.experiment_id)
    assert place.runs(publication) == before


def test_proofs_at_the_same_time_do_not_disturb_each_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    publication = place.publication()
    log_text = MlflowClient.log_text

    def while_another_proves(*args: Any) -> None:
        with monkeypatch.context() as alone:
            alone.setattr(MlflowClient, "log_text", log_text)
            place.tracker.prove_writable(publication.model, publication.experiment_id)
        log_text(*args)

    before = place.runs(publication)
    with monkeypatch.context() as crowded:
        crowded.setattr(MlflowClient, "log_text", while_another_proves)
        place.tracker.prove_writable(publication.model, publication.experiment_id)
    assert place.runs(publication) == before


def test_a_model_made_for_a_proof_that_fails_is_removed(place: Place) -> None:
    model = fresh("model")
    with pytest.raises(TrackingError):
        place.tracker.prove_writable(model, "987654321")
    with pytest.raises(MlflowException, match="not found"):
        place.client.get_registered_model(model)


def test_a_model_that_was_there_before_outlives_a_proof_that_fails(place: Place) -> None:
    model = fresh("model")
    place.client.create_registered_model(model)
    with pytest.raises(TrackingError):
        place.tracker.prove_writable(model, "987654321")
    assert place.client.get_registered_model(model).name == model
