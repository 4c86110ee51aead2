"""Processes that help a request on this machine's other devices."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Protocol

from stockpot.entities import Job
from stockpot.variables import variables

PATIENCE_SECONDS = 10.0
"""After which a helper that does not end by itself is killed."""


class Help(Protocol):
    """Processes that take part in a job. What becomes of them changes no answer."""

    def start(self, job: Job) -> None:
        """Let them take part in this job, unless they were started already."""
        ...

    def close(self) -> None:
        """The job has ended, or this process leaves it."""
        ...


class Helpers:
    """One `stockpot help` per device, each in a process of its own. What they print is said, with the device.

    Close it: they end.
    """

    def __init__(self, devices: Sequence[str], say: Callable[[str], object]) -> None:
        self._devices = tuple(devices)
        self._say = say
        self._started: list[tuple[subprocess.Popen[str], Thread]] = []

    def start(self, job: Job) -> None:
        """Start them for this job, unless they were started already. One that cannot be started is said."""
        devices, self._devices = self._devices, ()
        for device in devices:
            try:
                self._started.append(self._begin(device, job))
            except (OSError, ValueError) as error:
                self._say(f"no helper on {device}: {error}")

    def close(self) -> None:
        """End them; return when they have ended."""
        for process, _ in self._started:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)
        for process, listening in self._started:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            listening.join(PATIENCE_SECONDS)  # what a task has started may hold the pipe for longer
        self._started = []

    def _begin(self, device: str, job: Job) -> tuple[subprocess.Popen[str], Thread]:
        places = [os.getcwd(), *sys.path]  # noqa: PTH109 - one text among others
        paths = os.pathsep.join(str(place) for place in places if place)
        process = subprocess.Popen(
            [sys.executable, "-m", "stockpot", "help", "--quiet", "--job", job.name],
            env={**variables(), "STOCKPOT_DEVICE": device, "STOCKPOT_LOG": "text", "PYTHONPATH": paths},
            start_new_session=True,  # Control-C is for the request, which ends its helpers
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        listening = Thread(
            target=self._listen, args=(device, process), name=f"helper on {device}", daemon=True
        )
        listening.start()
        return process, listening

    def _listen(self, device: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101 - for the type checker: it was asked for
        with process.stdout as lines:
            for line in filter(str.strip, lines):
                self._say(f"helper on {device}: {line.rstrip()}")
