"""The first bytes of a weights file over HTTP: what a server says is believed only where it is the range."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stockpot.entities import WeightsFormat, WeightsSource
from stockpot.tracking import MlflowTracker, mlflow_heads

CONTENT = bytes(range(200)) * 50_000


class FileServer(ThreadingHTTPServer):
    """Answers a request for a file as it is told to; counts the bytes that it got rid of."""

    def __init__(self, status: int, told: str, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), FileHandler)
        self.status, self.told, self.body = status, told, body
        self.asked: list[tuple[str, str, str]] = []
        self.gone = threading.Event()
        self.stuck: threading.Event | None = None
        """Set when it may go on: it sends half of what it announced, or not a word where that is nothing."""

    @property
    def uri(self) -> str:
        return f"http://me:secret@127.0.0.1:{self.server_port}"


class FileHandler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        if "mlflow-artifacts" not in self.path:
            self._answer(200, "", b"{}")
            return
        headers = self.headers
        self.server.asked.append((self.path, headers.get("Range", ""), headers.get("Authorization", "")))
        try:
            if self.server.stuck and not self.server.body:
                self.server.stuck.wait(20)
            self._answer(self.server.status, self.server.told, self.server.body)
        except ConnectionError:
            self.server.gone.set()

    do_POST = do_GET  # noqa: N815 - the library calls it by this name

    def _answer(self, status: int, told: str, body: bytes) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        if told:
            self.send_header("Content-Range", told)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.stuck and body != b"{}":
            self.wfile.write(body[: len(body) // 2])
            self.server.stuck.wait(20)
        for begin in range(0, len(body), 1 << 16):
            self.wfile.write(body[begin : begin + (1 << 16)])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Stay silent."""


Serve = Callable[[int, str, bytes], FileServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that runs until the test ends."""
    with ExitStack() as running:

        def start(status: int, told: str, body: bytes) -> FileServer:
            server = running.enter_context(FileServer(status, told, body))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            running.callback(server.shutdown)
            return server

        yield start


def _source(uri: str = "mlflow-artifacts:/1/run/artifacts/model.safetensors") -> WeightsSource:
    return WeightsSource("run", WeightsFormat.SAFETENSORS, "model.safetensors", uri, None, len(CONTENT))


def test_the_range_is_asked_for_with_mlflows_credentials(serve: Serve) -> None:
    server = serve(206, f"bytes 0-99/{len(CONTENT)}", CONTENT[:100])
    assert MlflowTracker(server.uri).head(_source(), 100) == CONTENT[:100]
    (asked,) = server.asked
    path = "/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/model.safetensors"
    assert asked == (path, "bytes=0-99", "Basic bWU6c2VjcmV0")


@pytest.mark.parametrize(
    ("status", "told", "body"),
    [
        (200, "", CONTENT[:100]),
        (200, f"bytes 0-99/{len(CONTENT)}", CONTENT[:100]),
        (206, "", CONTENT[:100]),
        (206, f"bytes 1-100/{len(CONTENT)}", CONTENT[:100]),
        (206, "bytes 0-99/100", CONTENT[:100]),
        (206, "bytes 0-99/*", CONTENT[:100]),
        (206, f"bytes 0-99/{len(CONTENT)}", CONTENT[:99]),
        (206, f"bytes 0-99/{len(CONTENT)}", CONTENT[:101]),
        (404, "", b"no such file"),
        (403, "", b"no"),
        (416, f"bytes */{len(CONTENT)}", b""),
    ],
)
def test_any_other_answer_is_left_to_the_download(serve: Serve, status: int, told: str, body: bytes) -> None:
    assert MlflowTracker(serve(status, told, body).uri).head(_source(), 100) is None


@pytest.mark.parametrize("status", [200, 429, 500, 503])
def test_a_server_that_gives_no_range_is_asked_once_and_not_again(serve: Serve, status: int) -> None:
    server = serve(status, "", b"no")
    tracker = MlflowTracker(server.uri)
    assert [tracker.head(_source(), 100) for _ in range(3)] == [None] * 3
    assert len(server.asked) == 1


@pytest.mark.parametrize("body", [b"", CONTENT[:100]], ids=["at once", "half-way"])
def test_a_server_that_gets_stuck_is_asked_once_and_not_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(mlflow_heads, "SECONDS", 0.2)
    server = serve(206, f"bytes 0-99/{len(CONTENT)}", body)
    server.stuck = threading.Event()
    tracker = MlflowTracker(server.uri)
    assert [tracker.head(_source(), 100) for _ in range(3)] == [None] * 3
    server.stuck.set()
    assert len(server.asked) <= 1, "it may not have come to noting the one"


def test_a_file_without_a_range_says_nothing_of_the_next_one(serve: Serve) -> None:
    server = serve(404, "", b"no such file")
    tracker = MlflowTracker(server.uri)
    assert tracker.head(_source(), 100) is None
    server.status, server.told, server.body = 206, f"bytes 0-99/{len(CONTENT)}", CONTENT[:100]
    assert tracker.head(_source(), 100) == CONTENT[:100]


def test_a_server_that_ignores_ranges_does_not_make_us_download_the_file(serve: Serve) -> None:
    server = serve(200, "", CONTENT)
    assert MlflowTracker(server.uri).head(_source(), 100) is None
    assert server.gone.wait(20), "the whole file was taken"


def test_a_store_without_ranges_has_no_heads(serve: Serve) -> None:
    server = serve(206, f"bytes 0-99/{len(CONTENT)}", CONTENT[:100])
    assert MlflowTracker(server.uri).head(_source("ftp://127.0.0.1/folder/model.safetensors"), 100) is None
    assert server.asked == []


def test_a_link_has_no_head_since_it_is_no_weights_file(tmp_path: Path, mlflow_uri: str) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "secret")
    for uri in (f"{tmp_path.as_uri()}/model.safetensors", f"{tmp_path}/model.safetensors"):
        assert MlflowTracker(mlflow_uri).head(_source(uri), 100) is None
