"""What an earlier process left half-done in MLflow is taken up, or taken away."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND, PERMISSION_DENIED
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

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
from stockpot.errors import BadModelName, NotPermitted, TrackingError
from stockpot.testing.crashes import Crash
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


def test_a_dataset_that_another_soup_writes_in_the_same_moment_is_shared(place: Place) -> None:
    """Between MLflow's look and its insertion: the database refuses the second of two."""
    from mlflow.store.tracking.dbmodels.models import SqlDataset
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    ours = place.publication()
    theirs = replace(ours, name="theirs")
    runs = [place.tracker.create_run(soup) for soup in (ours, theirs)]
    models = [place.tracker.create_model(run, ours) for run in runs]
    others = MlflowTracker(f"sqlite:///{place.folder}/mlflow.db")
    met: list[bool] = []

    def first(session: Session, *_: object) -> None:
        if not met and any(isinstance(row, SqlDataset) for row in session.new):
            met.append(True)
            others.record(runs[1], models[1], [], theirs)

    event.listen(Session, "before_flush", first)
    try:
        place.tracker.record(runs[0], models[0], [], ours)
    finally:
        event.remove(Session, "before_flush", first)
    assert met
    inputs = [place.client.get_run(run).inputs for run in runs]
    digests = [[found.dataset.digest for found in each.dataset_inputs] for each in inputs if each]
    assert digests[0] == digests[1] != []
    assert place.client.get_run(runs[0]).info.status == "FINISHED"


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


def traces(place: Place, publication: Publication) -> list[str]:
    """What is in the experiment beside its runs, and whether the model is registered."""
    experiment = place.client.get_experiment(publication.experiment_id)
    models = [model.name for model in place.client.search_registered_models(max_results=1000)]
    artifacts = [file.name for file in Path(experiment.artifact_location).rglob("*")]
    return [*experiment.tags, *artifacts, *(name for name in models if name == publication.model)]


@pytest.mark.parametrize(
    "taken_away", [(MlflowClient, "delete_experiment_tag"), (LocalArtifactRepository, "delete_artifacts")]
)
def test_what_a_killed_proof_left_behind_goes_with_the_next_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, taken_away: tuple[type, str]
) -> None:
    def killed(*_: object) -> None:
        raise Crash

    publication = place.publication()
    with monkeypatch.context() as dying:
        dying.setattr(*taken_away, killed)
        with pytest.raises(Crash):
            place.tracker.prove_writable(publication.model, publication.experiment_id)
    assert len(traces(place, publication)) == 1
    place.tracker.prove_writable(publication.model, publication.experiment_id)
    assert traces(place, publication) == []


def test_where_nothing_can_be_taken_away_again_proofs_leave_one_tag_and_one_line_of_text(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise MlflowException("Not found", ENDPOINT_NOT_FOUND)

    monkeypatch.setattr(MlflowClient, "delete_experiment_tag", unknown)
    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", unknown)
    publication = place.publication()
    left = set()
    for _ in range(3):
        place.tracker.prove_writable(publication.model, publication.experiment_id)
        left |= {*traces(place, publication)}
    tag, line = sorted(left, key=len, reverse=True)
    assert tag.startswith("stockpot.permission_check.")
    assert line == "stockpot-permission-check.txt"


def test_a_database_that_may_only_be_read_is_refused_before_anything_is_done(place: Place) -> None:
    publication = place.publication()
    uri = f"sqlite:///file:{place.folder}/mlflow.db?mode=ro&uri=true"
    with pytest.raises(TrackingError, match="readonly database"):
        MlflowTracker(uri).prove_writable(publication.model, publication.experiment_id)


def test_a_name_that_is_too_long_for_a_database_is_told_before_anything_is_done(place: Place) -> None:
    publication = place.publication()
    place.tracker.prove_writable("x" * 256, publication.experiment_id)
    with pytest.raises(BadModelName, match="its name has 257 characters"):
        place.tracker.prove_writable("x" * 257, publication.experiment_id)
    long = "y" * 300
    place.client.create_registered_model(long)
    place.tracker.prove_writable(long, publication.experiment_id)  # SQLite has room for it


@pytest.mark.parametrize(
    "refused",
    [
        (MlflowClient, "delete_registered_model_tag"),
        (MlflowClient, "create_registered_model"),
        (MlflowClient, "set_experiment_tag"),
        (LocalArtifactRepository, "log_artifact"),
    ],
)
def test_each_right_that_is_missing_is_told_and_nothing_is_left_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch, refused: tuple[type, str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("Permission denied", PERMISSION_DENIED)

    publication = place.publication()
    monkeypatch.setattr(*refused, refuse)
    with pytest.raises(NotPermitted):
        place.tracker.prove_writable(publication.model, publication.experiment_id)
    assert traces(place, publication) == []


@pytest.fixture
def any_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that takes any tag."""
    create = MlflowClient.create_registered_model

    def taken(client: MlflowClient, name: str, tags: object = None) -> object:
        del tags
        return create(client, name)

    monkeypatch.setattr(MlflowClient, "create_registered_model", taken)


def test_a_registry_that_makes_the_model_all_the_same_has_it_taken_away(place: Place, any_tag: None) -> None:
    publication = place.publication()
    place.tracker.prove_writable(publication.model, publication.experiment_id)
    assert traces(place, publication) == []


def test_a_model_that_has_got_a_version_meanwhile_is_never_deleted(
    place: Place, any_tag: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    publication = place.publication()
    create = MlflowClient.create_registered_model

    def while_another_registers(client: MlflowClient, name: str, tags: object = None) -> object:
        made = create(client, name)
        client.create_model_version(name, source=str(place.folder))
        return made

    monkeypatch.setattr(MlflowClient, "create_registered_model", while_another_registers)
    place.tracker.prove_writable(publication.model, publication.experiment_id)
    assert traces(place, publication) == [publication.model]


def test_a_model_that_was_there_before_outlives_a_proof_that_fails(place: Place) -> None:
    model = fresh("model")
    place.client.create_registered_model(model)
    with pytest.raises(TrackingError):
        place.tracker.prove_writable(model, "987654321")
    assert place.client.get_registered_model(model).name == model
