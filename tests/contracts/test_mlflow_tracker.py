"""The tracker over MLflow keeps what every tracker promises: on a database, and through a server."""

import json
import socket
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast
from urllib.parse import quote
from uuid import uuid4

import boto3
import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, ViewType
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from moto.server import ThreadedMotoServer
from safetensors.torch import save

from stockpot.entities import ExclusionReason, Publication, SoupRequest, SweepSelector
from stockpot.errors import BadCheckpoint, NotArrived, UnknownSweep
from stockpot.evaluation import TorchBench
from stockpot.soup import CheckpointCache
from stockpot.store import MemoryStore
from stockpot.testing.crashes import CrashingTracker
from stockpot.testing.tiny import TinyTask, weights
from stockpot.testing.tracker_backend import (
    Backend,
    Logged,
    child,
    fresh,
    plant,
    publication_of,
    publish,
    registered,
)
from stockpot.testing.tracker_contract import TrackerContract
from stockpot.tracking import MlflowTracker
from stockpot.tracking.mlflow_weights import download
from stockpot.watching import Silent
from stockpot.workflow.gathering.arrivals import Arrivals, read_all
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.gathering.supply import Supply

if TYPE_CHECKING:
    from stockpot.ports import Tracker

StartMlflow = Callable[[Path], AbstractContextManager[str]]


class MlflowBackend:
    """Plants and looks with MLflow's own client; artifacts lie where MLflow says, or below `artifacts`."""

    def __init__(self, uri: str, artifacts: str | None = None) -> None:
        self.uri = uri
        self.tracker = MlflowTracker(uri, page_size=2)
        self.client = MlflowClient(uri)
        self._artifacts = artifacts

    def add_experiment(self, name: str) -> str:
        location = f"{self._artifacts}/{uuid4().hex}" if self._artifacts else None
        return str(self.client.create_experiment(name, location))

    def add_run(
        self,
        experiment_id: str,
        name: str,
        *,
        parent: str | None = None,
        status: str = "FINISHED",
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        nesting = {"mlflow.parentRunId": parent} if parent else {}
        run = self.client.create_run(experiment_id, run_name=name, tags={**(tags or {}), **nesting})
        self.client.log_batch(
            run.info.run_id,
            metrics=[Metric(key, value, 0, 0) for key, value in (metrics or {}).items()],
            params=[Param(key, value) for key, value in (params or {}).items()],
        )
        self.client.set_terminated(run.info.run_id, status)
        return str(run.info.run_id)

    def add_file(self, run_id: str, path: str, content: bytes) -> None:
        with TemporaryDirectory() as folder:
            write(Path(folder), {path: content})
            self.client.log_artifacts(run_id, folder)

    def add_model(self, run_id: str, name: str, files: Mapping[str, bytes]) -> str:
        experiment_id = self.client.get_run(run_id).info.experiment_id
        model = self.client.create_logged_model(experiment_id, name=name, source_run_id=run_id)
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        with TemporaryDirectory() as folder:
            write(Path(folder), files)
            if files:
                self.client.log_model_artifacts(model.model_id, folder)
        self.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def logged(self, run_id: str) -> Logged:
        run = self.client.get_run(run_id)
        assert run.inputs is not None
        assert run.outputs is not None
        histories = [self.client.get_metric_history(run_id, key) for key in run.data.metrics]
        return Logged(
            name=run.info.run_name or "",
            status=run.info.status,
            parent=run.data.tags.get("mlflow.parentRunId"),
            tags=run.data.tags,
            params=run.data.params,
            metrics=[(metric.key, metric.value) for history in histories for metric in history],
            datasets=sorted(used.dataset.name for used in run.inputs.dataset_inputs),
            inputs=sorted(model.model_id for model in run.inputs.model_inputs),
            outputs=sorted(model.model_id for model in run.outputs.model_outputs),
            files=sorted(self._files(run_id, None)),
        )

    def content(self, run_id: str, path: str) -> bytes:
        with TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, path, folder)).read_bytes()

    def everything(self, experiment_id: str) -> Sequence[str]:
        experiment = self.client.get_experiment(experiment_id)
        runs = self.client.search_runs([experiment_id], run_view_type=ViewType.ALL)
        repository = get_artifact_repository(experiment.artifact_location, tracking_uri=self.uri)
        return sorted(
            [
                *(f"run {run.info.run_name}, {run.info.lifecycle_stage}" for run in runs),
                *(f"artifact {path}" for path in below(repository, None)),
                *(f"tag {key}" for key in experiment.tags),
                *(f"model {model.name}" for model in self.client.search_registered_models(max_results=1000)),
            ]
        )

    def add_dataset(self, run_id: str, digest: str, name: str = "data", context: str = "") -> None:
        dataset = Dataset(name, digest, source_type="test", source="{}")
        told = [InputTag("mlflow.data.context", context)] if context else []
        self.client.log_inputs(run_id, [DatasetInput(dataset, told)])

    def delete_run(self, run_id: str) -> None:
        self.client.delete_run(run_id)

    def copy_version(self, uri: str, model: str) -> None:
        self.client.copy_model_version(uri, model)

    def versions(self, model: str) -> Sequence[str]:
        return [v.version for v in self.client.search_model_versions() if v.name == model]

    def add_version(self, model: str) -> str:
        if model not in {one.name for one in self.client.search_registered_models(max_results=1000)}:
            self.client.create_registered_model(model)
        source = f"{self._artifacts or 's3://nobody'}/nothing"  # a server takes no folder
        return str(self.client.create_model_version(model, source=source).version)

    def move_alias(self, model: str, alias: str, version: str | None) -> None:
        if version is None:
            self.client.delete_registered_model_alias(model, alias)
        else:
            self.client.set_registered_model_alias(model, alias, version)

    def remove_version(self, model: str, version: str) -> None:
        self.client.delete_model_version(model, version)

    def remove_model(self, model: str) -> None:
        self.client.delete_registered_model(model)

    def rename_model(self, model: str, name: str) -> None:
        self.client.rename_registered_model(model, name)

    def _files(self, run_id: str, folder: str | None) -> Iterator[str]:
        for file in self.client.list_artifacts(run_id, folder):
            if file.is_dir:
                yield from self._files(run_id, file.path)
            else:
                yield file.path


def below(repository: ArtifactRepository, folder: str | None) -> Iterator[str]:
    """Files and folders, at any depth."""
    for file in repository.list_artifacts(folder):
        yield file.path
        if file.is_dir:
            yield from below(repository, file.path)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> MlflowBackend:
    """One database for all tests: making one takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    return MlflowBackend(f"sqlite:///{folder}/mlflow.db", f"{folder}/artifacts")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowBackend]:
    """Artifacts in an S3-compatible store."""
    folder = tmp_path_factory.mktemp("bucket")
    store = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    store.start()
    endpoint = "http://{}:{}".format(*store.get_host_and_port())
    keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {**keys, "MLFLOW_S3_ENDPOINT_URL": endpoint}.items():
            environment.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="sweeps")
        yield MlflowBackend(f"sqlite:///{folder}/mlflow.db", "s3://sweeps/artifacts")
    store.stop()


@pytest.fixture(scope="module")
def server(start_mlflow: StartMlflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowBackend]:
    """A real server that proxies artifacts."""
    with start_mlflow(tmp_path_factory.mktemp("server")) as uri:
        yield MlflowBackend(uri)


class TestMlflowTrackerOnADatabase(TrackerContract):
    @pytest.fixture
    def backend(self, database: MlflowBackend) -> Backend:
        return database


@pytest.mark.slow
class TestMlflowTrackerOnAnS3CompatibleStore(TrackerContract):
    @pytest.fixture
    def backend(self, bucket: MlflowBackend) -> Backend:
        return bucket

    def test_a_file_that_is_gone_or_another_has_no_head(self, bucket: MlflowBackend) -> None:
        run = child(bucket)
        bucket.add_file(run.run_id, "model.safetensors", b"nine byte")
        (source,) = bucket.tracker.weights(run)
        gone = replace(source, uri=source.uri.replace("model.", "gone."))
        assert bucket.tracker.head(gone, 4) is None
        assert bucket.tracker.head(replace(source, size=8), 4) is None
        assert bucket.tracker.head(source, 4) == b"nine"

    def test_a_store_that_refuses_says_so(
        self, bucket: MlflowBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = child(bucket)
        bucket.add_file(run.run_id, "model.safetensors", b"nine byte")
        (source,) = bucket.tracker.weights(run)
        elsewhere = replace(source, uri="s3://nobodys/artifacts/model.safetensors")
        with pytest.raises(BadCheckpoint, match="bucket does not exist"):
            bucket.tracker.fetch(elsewhere, tmp_path)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
            monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
            assert MlflowTracker(bucket.uri).head(source, 4) is None


@pytest.mark.slow
class TestMlflowTrackerThroughAServer(TrackerContract):
    @pytest.fixture
    def backend(self, server: MlflowBackend) -> Backend:
        return server

    def test_the_link_opens_the_versions_page(self, server: MlflowBackend, publication: Publication) -> None:
        version = registered(server.tracker, publication)
        name = quote(version.name, safe="")
        assert server.tracker.link(version) == f"{server.uri}/#/models/{name}/versions/1"
        run = publication.ingredients[0].run
        path = f"experiments/{run.experiment_id}/runs/{run.run_id}"
        assert server.tracker.run_link(run) == f"{server.uri}/#/{path}"


def test_runs_of_one_millisecond_stay_in_order_over_all_pages(database: MlflowBackend) -> None:
    name = fresh("at once")
    experiment_id = database.add_experiment(name)
    created = [database.client.create_run(experiment_id, start_time=1 + place // 5) for place in range(11)]
    runs = list(database.tracker.runs(SweepSelector(experiment=name)))
    assert [run.run_id for run in runs] == sorted(
        (run.info.run_id for run in created),
        key=lambda run_id: next((r.info.start_time, run_id) for r in created if r.info.run_id == run_id),
    )


def _questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The filters of all searches for runs from now on, one for each page."""
    asked: list[str] = []
    search = MlflowClient.search_runs

    def noted(client: MlflowClient, experiments: list[str], condition: str, **kwargs: object) -> object:
        asked.append(condition)
        return search(client, experiments, condition, **kwargs)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(MlflowClient, "search_runs", noted)
    return asked


def test_pages_are_asked_for_as_they_are_needed(
    database: MlflowBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = plant(database, 5)
    pages = _questions(monkeypatch)
    runs = MlflowTracker(database.uri, page_size=2).runs(sweep.selector)
    assert pages == []
    assert [next(runs).run_id for _ in range(2)] == list(sweep.children[:2])
    assert len(pages) == 1
    assert [run.run_id for run in runs] == list(sweep.children[2:])
    assert pages[:3] == [f"tags.`mlflow.parentRunId` = '{sweep.parent}'"] * 3
    assert pages[3] == f"tags.`mlflow.parentRunId` != '{sweep.parent}'"


def test_a_run_that_is_restored_while_pages_are_turned_is_listed_once(database: MlflowBackend) -> None:
    sweep = plant(database, 5)
    first, *_ = sweep.children
    database.client.delete_run(first)
    runs = MlflowTracker(database.uri, page_size=2).runs(sweep.selector)
    listed = [next(runs).run_id for _ in range(2)]
    database.client.restore_run(first)
    listed += [run.run_id for run in runs]
    assert listed == list(sweep.children[1:])


@pytest.mark.parametrize("status", ["PENDING", "FAILED", "READY"])
def test_only_a_model_that_was_logged_to_its_end_has_weights(database: MlflowBackend, status: str) -> None:
    run = child(database)
    model_id = database.add_model(run.run_id, "model", {"model.safetensors": b"weights"})
    with sqlite3.connect(
        database.uri.removeprefix("sqlite:///")
    ) as mlflow:  # as whoever was killed leaves it
        number = {"PENDING": 1, "READY": 2, "FAILED": 3}[status]
        mlflow.execute("UPDATE logged_models SET status = ? WHERE model_id = ?", (number, model_id))
    assert len(database.tracker.weights(run)) == (status == "READY")


@pytest.mark.slow
def test_through_the_proxy_incompatible_candidates_are_never_downloaded(
    server: MlflowBackend, tmp_path: Path
) -> None:
    name = fresh("mixed")
    experiment_id = server.add_experiment(name)
    norm = {"bn.running_mean": torch.zeros(2), "bn.running_var": torch.ones(2)}
    files = {
        "good": weights("dense", seed=1),
        "norm": {**weights("dense", seed=2), **norm},
        "conv": weights("conv"),
        "fine": weights("dense", seed=3),
    }
    for run, tensors in files.items():
        server.add_file(server.add_run(experiment_id, run), "model.safetensors", save(tensors))
    watched = CrashingTracker(server.tracker)
    tracker = cast("Tracker", watched)
    supply = Supply(tracker, MemoryStore(), CheckpointCache(tmp_path))
    bench = TorchBench(
        TinyTask(), identity=("tiny", "1"), task_args={}, checkpoints=supply, device=torch.device("cpu")
    )
    request = SoupRequest(model="m", task="t", experiment=name)
    prospects = gather(request, tracker, supply, bench.fits, Silent())
    assert watched.calls.count("head") == len(files)
    assert "fetch" not in watched.calls
    sweep = read_all(Arrivals(prospects, supply, bench.fits, Silent()))
    assert [candidate.run.name for candidate in sweep.candidates] == ["good", "fine"]
    assert [(e.run_name, e.reason) for e in sweep.exclusions] == [
        ("norm", ExclusionReason.INCOMPATIBLE),
        ("conv", ExclusionReason.INCOMPATIBLE),
    ]
    assert watched.calls.count("fetch") == 2


@pytest.mark.filterwarnings(
    "ignore:MLflowCallback has been deprecated:FutureWarning"
)  # Optuna's, until its 6.0
def test_a_real_optuna_study_is_listed(database: MlflowBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna = pytest.importorskip("optuna")
    integration = pytest.importorskip("optuna_integration")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri)
    # The callback chooses MLflow's active experiment, for good: put back what other tests start from.
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")
    name = fresh("study")
    database.add_experiment(name)
    study = optuna.create_study(study_name=name, direction="maximize")
    callback = integration.MLflowCallback(metric_name="accuracy")
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=5, callbacks=[callback])
    runs = list(database.tracker.runs(SweepSelector(experiment=name, filter="tags.state = 'COMPLETE'")))
    assert [run.metrics["accuracy"] for run in runs] == [trial.value for trial in study.trials]
    assert [float(run.params["lr"]) for run in runs] == [trial.params["lr"] for trial in study.trials]


def test_plain_nested_runs_are_listed(database: MlflowBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri)
    experiment_id = database.add_experiment(fresh("nested"))
    with mlflow.start_run(experiment_id=experiment_id) as parent:
        for seed in range(3):
            with mlflow.start_run(experiment_id=experiment_id, nested=True):
                mlflow.log_param("seed", seed)
    runs = database.tracker.runs(SweepSelector(parent_run_id=parent.info.run_id))
    assert [run.params["seed"] for run in runs] == ["0", "1", "2"]


def test_what_is_deleted_is_gone(database: MlflowBackend) -> None:
    sweep = plant(database, 3)
    publication = publication_of(database, sweep)
    run_id = publish(database.tracker, publication)
    database.client.delete_run(run_id)
    assert database.tracker.find_run(publication) is None
    database.client.delete_run(sweep.children[0])
    assert [run.run_id for run in database.tracker.runs(sweep.selector)] == list(sweep.children[1:])
    database.client.delete_run(sweep.parent)
    with pytest.raises(UnknownSweep, match="deleted") as caught:
        database.tracker.runs(sweep.selector)
    assert sweep.parent in caught.value.mend
    database.client.delete_experiment(sweep.experiment_id)
    for selector in (SweepSelector(experiment=sweep.experiment), sweep.selector):
        with pytest.raises(UnknownSweep, match=r"experiment .* is deleted") as caught:
            database.tracker.runs(selector)
        assert caught.value.mend == f"mlflow experiments restore --experiment-id {sweep.experiment_id}"


ANOTHER = '[{"name": "a", "version": "7"}]'


@pytest.mark.parametrize(
    ("home", "before"),
    [("server", ANOTHER), ("database", ANOTHER), ("database", ""), ("database", "by hand")],
)
def test_a_models_page_in_mlflow_tells_which_version_it_is(
    home: str, before: str, request: pytest.FixtureRequest
) -> None:
    backend: MlflowBackend = request.getfixturevalue(home)
    tracker, publication = backend.tracker, publication_of(backend, plant(backend, 2))
    run_id = tracker.create_run(publication)
    model_id = tracker.create_model(run_id, publication)
    if before:
        backend.client.set_logged_model_tags(model_id, {"mlflow.modelVersions": before})
    version = tracker.create_version(run_id, model_id, publication)
    *others, ours = json.loads(backend.client.get_logged_model(model_id).tags["mlflow.modelVersions"])
    assert (ours["name"], str(ours["version"])) == (version.name, version.version)
    assert others == (json.loads(ANOTHER) if before == ANOTHER else [])


def test_what_was_noted_on_a_run_outlives_its_version_and_itself(database: MlflowBackend) -> None:
    tracker, publication = database.tracker, publication_of(database, plant(database, 2))
    recipe, here = publication.recipe.digest, [publication.experiment_id]
    version = registered(tracker, publication)
    tracker.note_version(version)
    database.client.delete_registered_model(version.name)
    database.client.delete_run(version.run_id or "")
    assert tracker.noted_versions(recipe, here) == (version.uri,)
    tracker.note_version(replace(version, version="2"))
    assert tracker.noted_versions(recipe, here) == (version.uri,), "a deleted run takes no note"


@pytest.mark.parametrize("written", ["by hand", "7", "[7]", "{}"])
def test_what_a_person_wrote_in_place_of_a_note_is_no_version(database: MlflowBackend, written: str) -> None:
    tracker, publication = database.tracker, publication_of(database, plant(database, 2))
    version = registered(tracker, publication)
    database.client.set_tag(version.run_id or "", "stockpot.version", written)
    assert tracker.noted_versions(publication.recipe.digest, [publication.experiment_id]) == ()
    tracker.note_version(version)
    assert tracker.noted_versions(publication.recipe.digest, [publication.experiment_id]) == (version.uri,)


def test_a_logged_model_that_a_person_deleted_is_not_there(database: MlflowBackend) -> None:
    version = registered(database.tracker, publication_of(database, plant(database, 2)))
    database.client.delete_logged_model(version.model_id or "")
    assert not database.tracker.has_model(version)


def test_where_the_lowest_version_was_deleted_the_next_is_no_duplicate_any_more(
    database: MlflowBackend,
) -> None:
    sweep = plant(database, 3)
    publication = publication_of(database, sweep)
    first, second, third = [registered(database.tracker, publication) for _ in range(3)]
    assert database.tracker.reconcile(publication.model, publication.recipe.digest) == first
    database.client.delete_model_version(first.name, first.version)
    assert database.tracker.reconcile(publication.model, publication.recipe.digest) == second
    assert "stockpot.duplicate_of" not in database.tracker.version(second.uri).tags
    assert database.tracker.version(third.uri).tags["stockpot.duplicate_of"] == "2"


@pytest.mark.slow
def test_the_registry_may_be_another_database(database: MlflowBackend, tmp_path: Path) -> None:
    publication = publication_of(database, plant(database, 2))
    tracker = MlflowTracker(database.uri, f"sqlite:///{tmp_path}/registry.db")
    version = registered(tracker, publication)
    assert tracker.version(version.uri) == version
    assert version.model_id == tracker.find_model(version.run_id or "", publication)
    assert database.versions(publication.model) == []


def test_a_version_links_to_its_model_where_mlflow_can_resolve_it(
    database: MlflowBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri)
    publication = publication_of(database, plant(database, 2))
    version = registered(MlflowTracker(), publication)
    made = database.client.get_model_version(version.name, version.version)
    assert made.source == f"models:/{version.model_id}"


def test_what_mlflow_has_no_room_for_is_cut_after_a_whole_line(database: MlflowBackend) -> None:
    publication = publication_of(database, plant(database, 2))
    row = "| a row of a table with {run_id} |"
    version = registered(
        database.tracker,
        replace(
            publication,
            description="\n".join([row] * 200),
            params={"a param: odd?": "x" * 9000},
            tags={"stockpot.verdict": "x" * 9000},
        ),
    )
    description = database.client.get_model_version(version.name, version.version).description
    *rows, last = (description or "").split("\n")
    assert len(description or "") <= 5000
    assert set(rows) == {row.format(run_id=version.run_id)}
    assert last == "…"
    assert len(version.tags["stockpot.verdict"]) == 8000


def test_a_version_that_did_not_come_whole_is_not_told_from_what_came(
    database: MlflowBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = registered(database.tracker, publication_of(database, plant(database, 2)))
    write(tmp_path / "package", {"MLmodel": b"flavors: {}", "data/model.pt2": b"graph"})
    database.tracker.upload(version.model_id or "", tmp_path / "package")

    def broken(client: MlflowClient, uri: str, into: Path) -> Path:
        folder = download(client, uri, into)
        (folder / "data" / "model.pt2").write_bytes(b"gra")
        return folder

    monkeypatch.setattr("stockpot.tracking.mlflow_weights.download", broken)
    with pytest.raises(NotArrived, match=r"data/model.pt2 of .* listed with 5 bytes, but 3 came"):
        database.tracker.download_version(version, tmp_path / "returned")


def test_a_run_with_too_many_folders_is_refused_rather_than_half_read(database: MlflowBackend) -> None:
    run = child(database)
    with TemporaryDirectory() as folder:
        write(Path(folder), {f"step {n}/model.safetensors": b"" for n in range(201)})
        database.client.log_artifacts(run.run_id, folder)
    with pytest.raises(BadCheckpoint, match="more than 200 folders") as caught:
        database.tracker.weights(run)
    assert "fewer folders" in caught.value.mend


@pytest.mark.slow
@pytest.mark.parametrize(("listed", "named"), [(0, 1), (10**6, 500)], ids=["one by one", "at once"])
def test_runs_below_a_parent_are_the_same_however_they_are_asked_for(
    database: MlflowBackend, monkeypatch: pytest.MonkeyPatch, listed: int, named: int
) -> None:
    monkeypatch.setattr("stockpot.tracking.mlflow_runs.PER_QUESTION", listed)
    monkeypatch.setattr("stockpot.tracking.mlflow_runs.NAMED", named)
    sweep = plant(database, 3)
    elsewhere = database.add_experiment(fresh("elsewhere"))
    group = database.add_run(sweep.experiment_id, "group", parent=sweep.children[2])
    leaves = {
        database.add_run(place, "leaf", parent=group, params={"lr": "1"})
        for place in (sweep.experiment_id, elsewhere)
    }
    other = database.add_run(elsewhere, "another's", parent=database.add_run(elsewhere, "another"))
    database.client.set_tag(sweep.parent, "mlflow.parentRunId", min(leaves))  # below itself, by mistake
    found = [run.run_id for run in database.tracker.runs(sweep.selector)]
    assert sorted(found) == sorted([*sweep.children, group, *leaves])
    assert other not in found
    filtered = database.tracker.runs(replace(sweep.selector, filter="params.lr = '1'"))
    assert {run.run_id for run in filtered} == leaves


def test_grandchildren_in_other_experiments_are_found_below_more_than_a_hundred_runs(
    database: MlflowBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = database.add_experiment(fresh("sweep"))
    parent = database.add_run(experiment, "parent")
    nested = {"mlflow.parentRunId": parent}
    children = [database.client.create_run(experiment, tags=nested).info.run_id for _ in range(101)]
    leaf = database.add_run(database.add_experiment(fresh("elsewhere")), "leaf", parent=children[50])
    questions = _questions(monkeypatch)
    found = MlflowTracker(database.uri).runs(SweepSelector(parent_run_id=parent))
    assert {run.run_id for run in found} == {*children, leaf}
    assert len(questions) == 3, "for the children, for theirs, and for those of the leaf"


def test_an_mlflow_is_known_by_its_oldest_experiment_also_when_that_is_deleted(
    tmp_path: Path, migrated_mlflow: Path
) -> None:
    (tmp_path / "mlflow.db").write_bytes(migrated_mlflow.read_bytes())
    own = MlflowBackend(f"sqlite:///{tmp_path / 'mlflow.db'}", (tmp_path / "artifacts").as_uri())
    own.add_experiment("young")
    before = own.tracker.born()
    assert before == own.client.get_experiment("0").creation_time
    own.client.delete_experiment("0")
    assert [one.name for one in own.tracker.experiments()] == ["young"]
    assert own.tracker.born() == before
