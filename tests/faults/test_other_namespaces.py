"""A container whose process numbers mean nothing outside is killed: its successor waits a minute at most."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from stockpot.documents import to_document
from stockpot.entities import SoupRequest
from stockpot.testing.listener import Listener
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import answer

pytestmark = pytest.mark.slow
T = TypeVar("T")
PROGRAM = Path(__file__).with_name("holding_process.py")
APART = ["unshare", "--pid", "--fork", "--kill-child"]
"""In a pid namespace of its own: the program is killed with its parent, without a chance to say good-bye."""
GOAL_SECONDS = 75


@pytest.fixture
def apart() -> list[str]:
    """What a command begins with that is to run in a pid namespace of its own."""
    try:
        made = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the program unshare, of util-linux")
    if made.returncode:
        pytest.skip(f"needs the right to make a pid namespace, as root has it: {made.stderr.strip()}")
    return APART


def test_the_successor_of_a_process_killed_in_another_namespace_works_within_75_seconds(
    tiny_sweep: SoupRequest, apart: list[str]
) -> None:
    begun: list[float] = []

    def stage(_name: str, work: Callable[[], T], /) -> T:
        begun.append(time.monotonic())
        return work()

    command = [*apart, sys.executable, str(PROGRAM), json.dumps(to_document(tiny_sweep))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout
        assert killed.stdout.readline() == "1\n", "the first process of its namespace"
        killed.kill()
        since = time.monotonic()
        assert killed.stdout.read() == "", "it is gone, as is its parent"
        told = Listener()
        outcome = answer(tiny_sweep, Workplace(), stage, told)
    assert "another process works on this very request for tiny: process 1 on " in told.said[0]
    assert begun[0] - since <= GOAL_SECONDS
    assert outcome.registered
