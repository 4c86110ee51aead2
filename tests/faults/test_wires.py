"""The proxy of the harness: what it does to a message, the server and the client see as a real fault."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from tests.faults.harness import prefect_strikes
from tests.faults.harness.counting import batches, repeated
from tests.faults.harness.strikes import FAULTS, drawn
from tests.faults.harness.wires import Wire, creates

CREATING = "/api/2.0/mlflow/runs/create"


class Counter(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.made.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Stay silent."""


@pytest.fixture
def made() -> list[str]:
    """What the server was asked for."""
    return []


@pytest.fixture
def wire(made: list[str]) -> Iterator[Wire]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Counter) as server:
        server.made = made  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        found = Wire("mlflow", server.server_port)
        yield found
        found.close()
        server.shutdown()


def post(wire: Wire) -> int:
    with requests.Session() as session:
        session.trust_env = False
        return session.post(f"http://127.0.0.1:{wire.port}{CREATING}", data="{}", timeout=10).status_code


@pytest.mark.parametrize(("when", "effects"), [("before", []), ("after", [CREATING])])
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 503 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]
)
def test_an_answer_is_lost_or_another_one_before_the_effect_or_after_it(
    wire: Wire, made: list[str], when: str, effects: list[str], answer: bytes
) -> None:
    heard = []

    def listener(name: str, message: str, at: str) -> bytes | None:
        heard.append((name, message, at))
        return answer if at == when else None

    wire.listener = listener
    if answer:
        assert post(wire) == 503
    else:
        with pytest.raises(requests.ConnectionError):
            post(wire)
    assert made == effects
    assert heard[0] == ("mlflow", "POST mlflow/runs/create", "before")
    assert creates(heard[0][1])
    wire.listener = None
    assert post(wire) == 200


def test_what_is_cut_while_it_is_held_has_no_effect(wire: Wire, made: list[str]) -> None:
    def cut(_name: str, _message: str, _when: str) -> None:
        wire.cut()

    wire.listener = cut
    with pytest.raises(requests.ConnectionError):
        post(wire)
    assert made == []
    wire.listener, wire.refuses = None, True
    with pytest.raises(requests.ConnectionError):
        post(wire)
    wire.refuses = False
    assert post(wire) == 200


def test_a_seed_draws_the_same_strikes_and_many_seeds_draw_every_fault() -> None:
    assert drawn(7) == drawn(7)
    assert {strike.fault for seed in range(200) for strike in drawn(seed)} == {*FAULTS}
    assert {strike.fault for strike in drawn(7, only="kill both")} == {"kill both"}


def test_a_seed_draws_what_strikes_prefects_side_and_how_the_request_gets_there() -> None:
    assert prefect_strikes.drawn(7) == prefect_strikes.drawn(7)
    strikes = [strike for seed in range(300) for strike in prefect_strikes.drawn(seed)[0]]
    assert {strike.fault for strike in strikes} == {*prefect_strikes.PREFECT_FAULTS}
    moments = {strike.wire for strike in strikes if strike.fault == "kill the worker"}
    assert {"soup-sweep Scheduled", "soup-sweep Pending", "soup-sweep Submitting"} < moments
    assert {ways[0] for _, ways in map(prefect_strikes.drawn, range(20))} == {"submit", "scan"}


def test_only_whole_passes_of_other_processes_count_as_repeated(tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    assert repeated(tally) == 0
    whole = sorted(batches()["test"])
    passes = [("1", "a", whole), ("1", "a", whole), ("2", "a", whole[1:]), ("2", "b", whole)]
    lines = [f"{process} {weights} {batch}" for process, weights, found in passes for batch in found]
    tally.write_text("\n".join(lines))
    assert repeated(tally) == 0
    tally.write_text("\n".join([*lines, f"2 a {whole[0]}"]))
    assert repeated(tally) == 1
