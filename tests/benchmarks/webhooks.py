"""Deliveries that arrive at once at `stockpot serve`, each on a connection of its own; one line of JSON.

    python -m tests.benchmarks.webhooks FOLDER [--at-once 100] [--rounds 20]

`p99`: of each round, after how many milliseconds 99 % of its deliveries were answered, each counted from the
moment before it is sent, one right behind the other. The first round warms up, and is left out.
"""

import argparse
import json
import selectors
import socket
import time
from pathlib import Path

from tests.cli.test_serve_command import serving
from tests.unit.webhook_deliveries import NEW, sent


def measure(folder: Path, at_once: int, rounds: int) -> list[float]:
    """Milliseconds, by round."""
    folder.mkdir()
    with serving(folder, STOCKPOT_WEBHOOK_SECRETS=NEW) as served:
        found = [
            _round(served.port, range(turn * at_once, (turn + 1) * at_once)) for turn in range(rounds + 1)
        ]
        assert served.healthy()
    return found[1:]


def _round(port: int, numbers: range) -> float:
    requests = [_request(number) for number in numbers]
    begun: dict[socket.socket, float] = {}
    took: list[float] = []
    with selectors.DefaultSelector() as ready:
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in requests]
        for connection, request in zip(connections, requests, strict=True):
            ready.register(connection, selectors.EVENT_READ)
            begun[connection] = time.perf_counter()
            connection.sendall(request)
        while len(took) < len(requests):
            for key, _ in ready.select(60):
                connection = key.fileobj  # type: ignore[assignment]  # what was registered
                answer = connection.recv(4096)
                took.append(1000 * (time.perf_counter() - begun[connection]))
                assert answer.startswith(b"HTTP/1.1 200"), answer
                ready.unregister(connection)
                connection.close()
    return sorted(took)[-1 - len(took) // 100]


def _request(number: int) -> bytes:
    delivery = sent(number, at=time.time())
    head = b"".join(b"%s: %s\r\n" % header for header in delivery.headers)
    start = b"POST /webhooks/mlflow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n" % len(
        delivery.body
    )
    return start + head + b"\r\n" + delivery.body


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps({"p99": measure(arguments.folder, arguments.at_once, arguments.rounds)}))


if __name__ == "__main__":
    main()
