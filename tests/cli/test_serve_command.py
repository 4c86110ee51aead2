"""`stockpot serve`, as a process on a real socket."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.unit.webhook_deliveries import NEW, OLD, Sent, payload, sent

from stockpot.cli import main

STOCKPOT = (sys.executable, "-m", "stockpot")


@dataclass
class Served:
    """The process, and what it has told so far."""

    process: "subprocess.Popen[str]"
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def post(self, delivery: Sent) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=60) as client:
            return client.post(self.url, headers=delivery.headers, content=delivery.body)

    def raw(self, data: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(data)
        return connection

    def healthy(self) -> bool:
        with httpx.Client(trust_env=False, timeout=60) as client:
            return client.get(self.url.replace("/webhooks/mlflow", "/health")).text == "ok"


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[Served]:
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "STOCKPOT", "MLFLOW"))}
    home = {"STOCKPOT_HOME": str(folder), "HOME": str(folder), "PREFECT_HOME": str(folder / "prefect")}
    log = folder / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*STOCKPOT, "serve", "--port", "0", "--json"],
            env=bare | home | variables,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        try:
            told = "".join(iter(process.stdout.readline, "}\n")) + "}"
            yield Served(process, json.loads(told)["url"], log)
        finally:
            process.kill()
            process.wait(30)
            process.stdout.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "secrets").write_text(f"{NEW}\n{OLD}\n")
    with serving(folder, STOCKPOT_WEBHOOK_SECRETS_FILE=str(folder / "secrets")) as found:
        yield found


def test_what_is_signed_is_taken_once_and_told_in_the_log(served: Served) -> None:
    delivery = sent(1, at=time.time(), body=payload(name="birds\x1b[31m"))
    answers = [served.post(delivery) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 409]
    assert [answer.text for answer in answers] == ["", "refused: taken before"]
    assert served.post(sent(2, at=time.time(), secret=OLD)).status_code == 200


def test_what_is_forged_or_late_is_refused_and_nothing_of_it_is_told(served: Served) -> None:
    forged = sent(3, at=time.time(), secret=NEW[::-1], body=payload(name="do-not-log-me"))
    assert served.post(forged).status_code == 401
    assert served.post(sent(4, at=time.time() - 200)).status_code == 401
    log = served.log.read_text()
    assert "refused: not signed with a secret that is known here" in log
    assert "do-not-log-me" not in log
    assert NEW not in log


def test_an_endless_body_is_cut_off(served: Served) -> None:
    head = "POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\n"
    with served.raw(f"{head}Content-Length: 100000000000\r\n\r\n".encode()) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")
    with served.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()) as connection:
        taken = 0
        with suppress(ConnectionError):
            while taken < 2**26:
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                taken += 65536
        assert taken < 2**25, "the limit and what the sockets hold"
    assert served.healthy()


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\x16\x03\x01garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\nX-MLflow-Signature: \xff\xfe\r\n\r\n",
        b"GET /webhooks/mlflow HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nothing/here HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_delivery_is_answered_as_a_fault_of_the_sender(served: Served, data: bytes) -> None:
    with served.raw(data) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 4")
    assert served.healthy()


def test_a_body_that_is_cut_off_leaves_the_receiver_well(served: Served) -> None:
    served.raw(b"POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf").close()
    assert served.healthy()
    assert "Traceback" not in served.log.read_text()


def test_without_prefect_a_change_is_a_line_in_the_log_and_sigterm_ends_it(tmp_path: Path) -> None:
    with serving(tmp_path, STOCKPOT_WEBHOOK_SECRETS=NEW) as found:
        assert found.post(sent(1, at=time.time())).status_code == 200
        told = ["birds: the alias champion is on version 3", "Prefect is not configured"]
        end = time.monotonic() + 60
        while not all(line in found.log.read_text() for line in told):
            assert time.monotonic() < end, found.log.read_text()
            time.sleep(0.05)
        found.process.send_signal(signal.SIGTERM)
        assert found.process.wait(60) == 128 + signal.SIGTERM
        assert "Traceback" not in found.log.read_text()


@pytest.mark.parametrize(
    ("told", "file", "what"),
    [
        (None, None, "no secret of MLflow's webhook is known: STOCKPOT_WEBHOOK_SECRETS holds none"),
        ("  ", None, "no secret of MLflow's webhook is known"),
        (None, "", "no secret of MLflow's webhook is known"),
        (NEW, NEW, "both STOCKPOT_WEBHOOK_SECRETS and STOCKPOT_WEBHOOK_SECRETS_FILE are set"),
        (
            f"{NEW} {OLD} a-third-secret-there",
            None,
            "STOCKPOT_WEBHOOK_SECRETS holds 3 secrets, and 2 may live",
        ),
        (f"{NEW} fifteen-letters", None, "fewer than 16 characters: it can be guessed"),
        (None, "\udcff" * 20, "cannot be read: it is no text"),
    ],
)
@pytest.mark.parametrize("arguments", [["--port", "0"], ["--register", "http://127.0.0.1:1"]])
def test_it_does_not_begin_without_a_secret_that_is_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str | None,
    file: str | None,
    what: str,
) -> None:
    monkeypatch.delenv("STOCKPOT_WEBHOOK_SECRETS", raising=False)
    if told is not None:
        monkeypatch.setenv("STOCKPOT_WEBHOOK_SECRETS", told)
    if file is not None:
        (tmp_path / "secrets").write_text(file, errors="surrogateescape")
        monkeypatch.setenv("STOCKPOT_WEBHOOK_SECRETS_FILE", str(tmp_path / "secrets"))
    with pytest.raises(SystemExit, match="3"):
        main(["serve", *arguments])
    error = " ".join(capsys.readouterr().err.split())
    assert what in error
    assert "To mend it: " in error
    assert not {NEW, OLD, "fifteen-letters"} & {*error.split()}


def test_a_file_of_secrets_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOCKPOT_WEBHOOK_SECRETS_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="3"):
        main(["serve"])
    assert "nowhere, from STOCKPOT_WEBHOOK_SECRETS_FILE, cannot be read: No such file" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_port_that_is_taken_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOCKPOT_WEBHOOK_SECRETS", NEW)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit, match="3"):
            main(["serve", "--port", str(port)])
    assert f"127.0.0.1:{port} cannot be listened at: Address already in use" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="3"):
        main(["serve", "--host", "no.such.host.invalid"])
    assert "no.such.host.invalid:4300 cannot be listened at" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    [
        "",
        "stockpot",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://me:word@x",
        "http://x/?a=1",
        "http://[x",
    ],
)
def test_an_address_that_is_none_is_not_registered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("STOCKPOT_WEBHOOK_SECRETS", NEW)
    with pytest.raises(SystemExit, match="3"):
        main(["serve", "--register", url])
    error = capsys.readouterr().err
    assert "--register takes the address that MLflow posts to" in error
    assert "word" not in error
