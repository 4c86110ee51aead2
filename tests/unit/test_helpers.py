"""Processes that help on a machine's other devices: started, listened to, ended."""

import sys
from pathlib import Path
from threading import Event

import pytest

from stockpot import helpers
from stockpot.entities import Job, SoupRequest, digest_of_bytes
from stockpot.helpers import Helpers

JOB = Job(digest_of_bytes(b"job"), SoupRequest(model="m", task="t", sweep="s"))


def is_alive(process: int) -> bool:
    """Not so for one that has ended and waits for its parent to notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_at_the_end_a_helper_ends_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\ntrap "" TERM\nsleep 300 &\necho "$! $STOCKPOT_DEVICE $*"\nwait\nwait\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(helpers, "PATIENCE_SECONDS", 0.5)
    said, told = list[str](), Event()

    def say(line: str) -> None:
        said.append(line)
        told.set()

    helping = Helpers(["cuda:1"], say)
    helping.start(JOB)
    helping.start(JOB)
    assert told.wait(30)
    helping.close()
    (line,) = said
    words = line.removeprefix("helper on cuda:1: ").split()
    assert words[1:] == ["cuda:1", "-m", "stockpot", "help", "--quiet", "--job", JOB.name]
    assert not is_alive(int(words[0]))


def test_a_helper_that_cannot_be_started_is_said_and_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    said: list[str] = []
    helping = Helpers(["cuda:1", "cuda:2"], said.append)
    helping.start(JOB)
    helping.close()
    for device, line in zip(["cuda:1", "cuda:2"], said, strict=True):
        assert line.startswith(f"no helper on {device}: ")
        assert "/nowhere/python" in line
