"""Waiting for other threads so that Control-C is heard."""

import threading
from queue import SimpleQueue

import pytest

from stockpot.soup import waiting


def test_a_wait_outlasts_any_number_of_looks_for_control_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_HEARING", 0.001)
    queue: SimpleQueue[str] = SimpleQueue()
    late = threading.Timer(0.2, queue.put, ["here"])
    late.start()
    assert waiting.next_from(queue) == "here"
    late.join()
