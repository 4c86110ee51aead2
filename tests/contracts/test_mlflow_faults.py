"""What the tracker makes of a server that refuses, fails or is not there."""

import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stockpot.entities import ModelVersion, Publication, Recipe, Run, SweepSelector, digest_of_bytes
from stockpot.errors import BadModelName, NotPermitted, StockpotError, TrackingError, Unreachable
from stockpot.tracking import MlflowTracker, mlflow_server
from stockpot.tracking.mlflow_calls import asking, connecting, creating, redacted

PUBLICATION = Publication(
    model="model",
    recipe=Recipe.mean([digest_of_bytes(b"a"), digest_of_bytes(b"b")]),
    checkpoint=digest_of_bytes(b"soup"),
    ingredients=(),
    experiment_id="1",
    parent_run_id=None,
    name="soup",
    description="",
    tags={},
    params={},
    measurements=(),
    files={},
)


class FailingServer(ThreadingHTTPServer):
    """Answers the first look-around, or more, and all else with one status; counts what it was asked."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(("127.0.0.1", 0), FailingHandler)
        self.status = status
        self.body = body
        self.asked: list[str] = []
        self.answers = {"experiments/search"}

    @property
    def uri(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server_port}"


class FailingHandler(BaseHTTPRequestHandler):
    server: FailingServer

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        endpoint = self.path.partition("?")[0].rpartition("/mlflow/")[2]
        self.server.asked.append(endpoint)
        answered = endpoint in self.server.answers
        status, body = (200, "{}") if answered else (self.server.status, self.server.body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_DELETE = do_POST  # noqa: N815 - the library calls it by this name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Stay silent."""


Serve = Callable[[int, str], FailingServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that runs until the test ends."""
    with ExitStack() as running:

        def start(status: int, body: str) -> FailingServer:
            server = running.enter_context(FailingServer(status, body))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            running.callback(server.shutdown)
            return server

        yield start


@pytest.mark.parametrize("status", [500, 503])
def test_a_creating_call_is_sent_once(serve: Serve, status: int) -> None:
    server = serve(status, "down")
    with pytest.raises(TrackingError, match="creating the run soup") as caught:
        MlflowTracker(server.uri).create_run(PUBLICATION)
    assert server.asked == ["experiments/search", "/version", "runs/create"]
    assert isinstance(caught.value, Unreachable)
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


class TiredHandler(FailingHandler):
    """Closes a connection in the moment in which it is used again: it lay idle for as long as is allowed."""

    protocol_version = "HTTP/1.1"
    idle = False

    def do_POST(self) -> None:
        if self.idle:
            self.close_connection = True
        else:
            super().do_POST()
        self.idle = True


def test_a_creating_call_goes_over_no_connection_that_lay_idle(serve: Serve) -> None:
    server = serve(200, '{"experiment_id": "1"}')
    server.RequestHandlerClass = TiredHandler
    client = MlflowClient(server.uri)
    for name in ("one", "two"):
        with creating(f"creating the experiment {name}"):
            client.create_experiment(name)
    assert server.asked.count("experiments/create") == 2


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "body", ["<html>no</html>", json.dumps({"error_code": "PERMISSION_DENIED", "message": "no"})]
)
def test_a_refusal_is_told_as_one(serve: Serve, status: int, body: str) -> None:
    tracker = MlflowTracker(serve(status, body).uri)
    with pytest.raises(NotPermitted, match="registered model 'model'") as caught:
        tracker.prove_writable("model", "1")
    assert "MLFLOW_TRACKING_TOKEN" in caught.value.mend
    with pytest.raises(NotPermitted):
        tracker.runs(SweepSelector(parent_run_id="0" * 32))


def test_a_name_that_only_the_server_refuses_is_a_bad_name(serve: Serve) -> None:
    refusal = {"error_code": "INVALID_PARAMETER_VALUE", "message": "too rude"}
    with pytest.raises(BadModelName, match="too rude"):
        MlflowTracker(serve(400, json.dumps(refusal)).uri).prove_writable("model", "1")


def test_a_server_that_is_too_old_is_told_by_its_version_in_one_sentence(serve: Serve) -> None:
    server = serve(200, "2.22.1")
    server.answers |= {"experiments/search"}
    with pytest.raises(
        TrackingError, match=r"has version 2\.22\.1, and Stockpot needs 3\.0 or later"
    ) as caught:
        MlflowTracker(server.uri).runs(SweepSelector(experiment="sweep"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("told", ["3.0.0", "3.17.2.dev0", "10.1", "<html>2.0.0</html>", ""])
def test_a_server_of_a_later_or_unknown_version_passes(serve: Serve, told: str) -> None:
    mlflow_server.require_version(serve(200, told).uri)


def test_links_go_below_the_static_prefix_of_the_server(serve: Serve) -> None:
    server = serve(404, "no")
    tracker = MlflowTracker(f"{server.uri}/behind/prefix/")
    version = ModelVersion("it's", "3", None, None, {}, ())
    run = Run("r1", "run", "7", "FINISHED", 0, {}, {}, {})
    host = f"http://127.0.0.1:{server.server_port}/behind/prefix"
    assert tracker.link(version) == f"{host}/#/models/it%27s/versions/3"
    assert tracker.run_link(run) == f"{host}/#/experiments/7/runs/r1"


def test_a_web_page_in_place_of_an_answer_is_told_and_not_shown(serve: Serve) -> None:
    server = serve(404, "<!doctype html>\n<html lang=en><title>404 Not Found</title></html>")
    with pytest.raises(TrackingError, match="the answer is a web page") as caught:
        MlflowTracker(server.uri).create_run(PUBLICATION)
    assert "<" not in str(caught.value)


NO_MLFLOW = {
    "a page": (200, "<!doctype html><html>hello</html>"),
    "no such page": (404, "<html>404 Not Found</html>"),
    "not found": (404, "nope"),
    "not implemented": (501, "no"),
    "not allowed": (405, ""),
    "a list": (200, "[1]"),
    "an empty object": (200, "{}"),
    "another object": (200, '{"experiments": 3}'),
}


@pytest.mark.parametrize("selector", [SweepSelector("0" * 32), SweepSelector(experiment="sweep")])
@pytest.mark.parametrize("answer", NO_MLFLOW.values(), ids=NO_MLFLOW)
def test_what_is_no_mlflow_is_told_with_its_address_the_variable_and_a_mend(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str], selector: SweepSelector
) -> None:
    server = serve(*answer)
    server.answers = set()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with pytest.raises(TrackingError) as caught:
        list(MlflowTracker().runs(selector))
    assert f"http://***@127.0.0.1:{server.server_port} (from MLFLOW_TRACKING_URI)" in caught.value.what
    assert "set MLFLOW_TRACKING_URI to the address of an MLflow server" in caught.value.mend


def test_an_empty_answer_is_no_version(serve: Serve) -> None:
    server = serve(200, "{}")
    with pytest.raises(TrackingError, match="is no MLflow: its answers are empty"):
        MlflowTracker(server.uri).version("models:/birds/1")


@pytest.mark.parametrize(
    "uri", ["foo://me:secret@host/x", "file:///tmp/mlruns", "localhost:5000", "http://[::1"]
)
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_an_address_that_mlflow_does_not_take_is_told_with_its_variable_and_a_mend(
    mlflow_uri: str, monkeypatch: pytest.MonkeyPatch, uri: str, variable: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.setenv(variable, uri)
    with pytest.raises(TrackingError) as caught:
        list(MlflowTracker().runs(SweepSelector(experiment="sweep")))
    assert f"MLflow at {redacted(uri)} (from {variable}): " in caught.value.what
    assert f"set {variable} to the address of an MLflow server" in caught.value.mend
    assert "secret" not in str(caught.value)


def test_an_address_that_nobody_set_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    told = r"sqlite:///x\.db \(MLFLOW_TRACKING_URI is not set\)"
    with pytest.raises(TrackingError, match=told), connecting("sqlite:///x.db"):
        raise OSError("disk I/O error")


def test_a_server_that_is_not_there_is_told_within_seconds() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        uri = f"http://user:secret@127.0.0.1:{nobody.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            MlflowTracker(uri).runs(SweepSelector(experiment="sweep"))
    assert time.monotonic() - started < 10
    assert "MLFLOW_TRACKING_URI" in caught.value.mend


def test_credentials_are_never_shown(serve: Serve) -> None:
    server = serve(503, "down")
    with pytest.raises(StockpotError) as caught:
        MlflowTracker(server.uri).create_run(PUBLICATION)
    shown = "".join(traceback.format_exception(caught.value))
    assert "503" in shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db and a@b.c", "postgresql://***@host/db and a@b.c"),
        ("at mysql+pymysql://me:sec/re@t@host/db", "at mysql+pymysql://***@host/db"),
        ("at http://me:sec@ret@host/x", "at http://***@host/x"),
        ("for url: https://s3/b/k?X-Amz-Signature=secret&a=b (403)", "for url: https://s3/b/k?*** (403)"),
        ("with url: /bucket/key?sig=secret (Caused by", "with url: /bucket/key?*** (Caused by"),
        ("why? no reason", "why? no reason"),
    ],
)
def test_what_is_secret_is_cut_out_of_a_text(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_credentials_are_in_no_traceback() -> None:
    def fail() -> None:
        cause = OSError("https://bucket/key?X-Amz-Signature=secret")
        raise RuntimeError("http://user:secret@host is down") from cause

    try:
        with asking("anything"):
            fail()
    except TrackingError:
        shown = traceback.format_exc()
    assert "anything: http://***@host is down" in shown
    assert shown.count("secret") == 0


def test_a_cause_without_secrets_is_kept() -> None:
    with pytest.raises(TrackingError) as caught, asking("anything"):
        raise RuntimeError("disk is full")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_database_that_cannot_be_opened_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError):
        MlflowTracker(f"sqlite:///{tmp_path}/file/mlflow.db").runs(SweepSelector(experiment="sweep"))


def test_settings_are_as_before_after_calls_that_overlapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    both = threading.Barrier(2)

    def create(number: int) -> str:
        with creating("creating"):
            both.wait(10)
            if number:
                both.wait(10)  # leaves last
                assert float(os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_JITTER"]) < 2, "others may wait so long"
                return os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]
        both.wait(10)
        return "0"

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(create, range(2))) == ["0", "0"]
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
    assert "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR" not in os.environ


def test_our_own_errors_pass_unchanged() -> None:
    wanted = TrackingError("ours")
    with pytest.raises(TrackingError) as caught, asking("anything"):
        raise wanted
    assert caught.value is wanted
