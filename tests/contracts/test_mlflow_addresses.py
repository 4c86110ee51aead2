"""What is kept of a weights file holds no address, whose password would be published with the soup."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stockpot.documents import to_document
from stockpot.entities import Run, SweepSelector, WeightsSource
from stockpot.errors import BadCheckpoint, NotArrived, NotPermitted, TrackingError
from stockpot.tracking import MlflowTracker
from stockpot.tracking.mlflow_calls import asking

CONTENT = b"nine byte"


class ArtifactStore(BaseHTTPRequestHandler):
    """Lists one weights file in each folder, as MLflow's proxy does, and hands it out."""

    def do_GET(self) -> None:
        weights = {"path": "model.safetensors", "is_dir": False, "file_size": len(CONTENT)}
        files = [] if self.path.endswith(".safetensors") else [weights]
        body = json.dumps({"files": files}).encode() if "?path=" in self.path else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Stay silent."""


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    """The address of an artifact store, password and all."""
    with ThreadingHTTPServer(("127.0.0.1", 0), ArtifactStore) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://me:S3cret@127.0.0.1:{server.server_port}/api/2.0/mlflow-artifacts/artifacts"
        server.shutdown()


@pytest.fixture(scope="module")
def sources(root: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[WeightsSource]]:
    """A database, and the weights of a run, of a LoggedModel and of a registered version in it."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('addresses')}/mlflow.db"
    client, tracker = MlflowClient(uri), MlflowTracker(uri)
    experiment = client.create_experiment("sweep", root)
    run_id = client.create_run(experiment).info.run_id
    client.finalize_logged_model(
        client.create_logged_model(experiment, name="model", source_run_id=run_id).model_id, "READY"
    )
    client.create_registered_model("birds")
    client.create_model_version("birds", f"{root}/birds", run_id=run_id)
    (run,) = tracker.runs(SweepSelector(experiment="sweep"))
    return uri, [*tracker.weights(run), *tracker.version_weights(tracker.version("models:/birds/1"))]


def test_what_is_kept_of_a_weights_file_is_run_path_and_model(
    sources: tuple[str, list[WeightsSource]],
) -> None:
    in_run, in_model, in_version = sources[1]
    kept = json.dumps([to_document(source) for source in sources[1]])
    assert "S3cret" not in kept
    assert "127.0.0.1" not in kept
    assert in_model.uri == f"models:/{in_model.model_id}/model.safetensors"
    assert in_run.uri == f"runs:/{in_run.run_id}/model.safetensors"
    assert in_version.uri == "models:/birds/1/model.safetensors"


@pytest.mark.parametrize("place", [0, 1, 2], ids=["run", "model", "version"])
def test_another_process_finds_the_file_again_by_what_is_kept(
    sources: tuple[str, list[WeightsSource]], place: int, tmp_path: Path
) -> None:
    uri, found = sources
    assert MlflowTracker(uri).fetch(found[place], tmp_path).read_bytes() == CONTENT


def _run_with_artifacts_at(location: str, uri: str) -> Run:
    client = MlflowClient(uri)
    client.create_run(client.create_experiment("elsewhere", location))
    (run,) = MlflowTracker(uri).runs(SweepSelector(experiment="elsewhere"))
    return run


@pytest.mark.parametrize(
    ("location", "lacking"),
    [
        ("ftp://me:S3cret@127.0.0.1:1/x", "the network"),
        ("s3://bucket/x", "credentials"),
        ("gs://bucket/x", "client package"),
        ("sftp://me:S3cret@127.0.0.1:1/x", "client package"),
        ("hdfs://host/x", "client package"),
    ],
)
def test_a_store_that_cannot_be_reached_from_here_is_told_with_what_this_machine_lacks(
    mlflow_uri: str, monkeypatch: pytest.MonkeyPatch, location: str, lacking: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    run = _run_with_artifacts_at(location, mlflow_uri)
    with pytest.raises(TrackingError, match="listing the weights of run") as caught:
        MlflowTracker(mlflow_uri).weights(run)
    assert "this machine" in caught.value.mend
    assert lacking in caught.value.mend
    assert "log the run's weights again" not in caught.value.mend
    assert "S3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "mend"),
    [("foo://me:S3cret@host/x", "install the MLflow plugin"), ("mlflow-artifacts:/x", "MLFLOW_TRACKING_URI")],
)
def test_a_place_that_is_none_here_concerns_its_experiments_runs_alone(
    mlflow_uri: str, location: str, mend: str
) -> None:
    run = _run_with_artifacts_at(location, mlflow_uri)
    with pytest.raises(NotArrived) as caught:
        MlflowTracker(mlflow_uri).weights(run)
    assert mend in caught.value.mend
    assert "--filter" in caught.value.mend
    assert "S3cret" not in str(caught.value)


def test_a_bucket_that_refuses_is_not_blamed_on_the_rights_in_mlflow() -> None:
    with pytest.raises(NotPermitted) as caught, asking("listing"):
        raise OSError("An error occurred (AccessDenied) when calling the ListObjectsV2 operation: Denied")
    assert "the artifact store" in caught.value.mend
    assert "MLFLOW" not in caught.value.mend


def test_a_file_of_a_version_without_a_run_is_told_without_one(mlflow_uri: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").touch()
    (tmp_path / "model" / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    client, tracker = MlflowClient(mlflow_uri), MlflowTracker(mlflow_uri)
    client.create_registered_model("birds")
    client.create_model_version("birds", (tmp_path / "model").as_uri())
    (source,) = tracker.version_weights(tracker.version("models:/birds/1"))
    with pytest.raises(BadCheckpoint, match=r"^model\.safetensors is no regular file"):
        tracker.fetch(source, tmp_path)
