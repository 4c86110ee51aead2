"""How a command ends that is told to, or whose words nobody can keep."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from stockpot import calls
from stockpot.cli import main, terminal, watching
from stockpot.ports import Watcher

FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_a_command_as_control_c_does_and_a_second_one_disturbs_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []

    def help_out(**_: object) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append("what was leased is given back")
        return 0

    monkeypatch.setattr(calls, "help_out", help_out)
    with pytest.raises(SystemExit) as told:
        main(["help"])
    assert (told.value.code, len(ended)) == (128 + signal.SIGTERM, 1)


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_results_that_find_a_full_disk_are_told_and_can_be_asked_for_again(
    tmp_path: Path, how: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "stockpot", "status", *how]
    home = os.environ | {"STOCKPOT_HOME": str(tmp_path)}
    with FULL.open("w") as full:
        done = subprocess.run(command, env=home, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        unheard = subprocess.run(command, env=home, stdout=subprocess.PIPE, stderr=full, check=False)
    assert (done.returncode, unheard.returncode) == (1, 0)
    assert "what was found could not be printed: No space left on device" in done.stderr
    assert "run the same command again" in done.stderr
    assert unheard.stdout


def test_progress_that_nobody_can_keep_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(watch: Watcher) -> str:
        watch.start("rank", 1)
        watch.advance("rank")
        return "done"

    class Full(StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device", text)

    monkeypatch.setattr(watching, "err", type(terminal.err)(file=Full()))
    assert watching.watched(work) == "done"
