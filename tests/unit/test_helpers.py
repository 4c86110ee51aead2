"""Processes that help on a machine's other devices: started, listened to, ended."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from select import select
from threading import Event

import pytest

from stockpot import helpers
from stockpot.entities import Job, SoupRequest, digest_of_bytes
from stockpot.helpers import Helpers

JOB = Job(digest_of_bytes(b"job"), SoupRequest(model="m", task="t", sweep="s"))


def await_end(process: int) -> None:
    """Return when this process, not a child of ours, has ended: it closes its pipe a moment before that."""
    with suppress(ProcessLookupError):
        ending = os.pidfd_open(process)
        try:
            assert select([ending], [], [], 30)[0], "it lives on"
        finally:
            os.close(ending)


class Listening:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.told = Event()

    def say(self, line: str) -> None:
        self.said.append(line)
        self.told.set()


def program_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let this be what is started."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_at_the_end_a_helper_ends_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'trap "" TERM\nsleep 300 &\necho "$! $STOCKPOT_DEVICE $*"\nwait\nwait'
    program_of(tmp_path, monkeypatch, script)
    monkeypatch.setattr(helpers, "PATIENCE_SECONDS", 0.5)
    listening = Listening()
    helping = Helpers(["cuda:1"], listening.say)
    helping.start(JOB)
    helping.start(JOB)
    assert listening.told.wait(30)
    helping.close()
    (line,) = listening.said
    words = line.removeprefix("helper on cuda:1: ").split()
    assert words[1:] == ["cuda:1", "-m", "stockpot", "help", "--quiet", "--job", JOB.name]
    await_end(int(words[0]))


def test_a_helper_is_asked_to_end_and_what_it_says_then_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "trap 'echo; echo ended; exit' TERM\nsleep 300 &\necho begun\nwait"
    program_of(tmp_path, monkeypatch, script)
    listening = Listening()
    helping = Helpers(["cuda:1"], listening.say)
    helping.start(JOB)
    assert listening.told.wait(30)
    helping.close()
    assert listening.said == ["helper on cuda:1: begun", "helper on cuda:1: ended"]


def test_a_helper_finds_the_modules_that_this_process_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_of(tmp_path, monkeypatch, 'echo "$PYTHONPATH"')
    monkeypatch.setattr(sys, "path", ["", *sys.path, "/where/tasks/lie"])
    monkeypatch.chdir(tmp_path)
    listening = Listening()
    helping = Helpers(["cuda:1"], listening.say)
    helping.start(JOB)
    assert listening.told.wait(30)
    helping.close()
    here, *others = listening.said[0].removeprefix("helper on cuda:1: ").split(os.pathsep)
    assert (here, others) == (str(tmp_path), list(filter(None, sys.path)))


def test_a_helper_that_cannot_be_started_is_said_and_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    said: list[str] = []
    helping = Helpers(["cuda:1", "cuda:2"], said.append)
    helping.start(JOB)
    helping.close()
    for device, line in zip(["cuda:1", "cuda:2"], said, strict=True):
        assert line.startswith(f"no helper on {device}: ")
        assert "/nowhere/python" in line
