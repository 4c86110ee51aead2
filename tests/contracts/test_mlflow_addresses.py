"""What is kept of a weights file holds no address, whose password would be published with the soup."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stockpot.documents import to_document
from stockpot.entities import SweepSelector, WeightsSource
from stockpot.tracking import MlflowTracker

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
