"""One command of ours, in a process that has loaded all that it needs before it began."""

import faulthandler
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tests.faults.harness import counting

from stockpot.cli import main
from stockpot.workflow import leases

LEASE_SECONDS = 3.0
"""A minute takes too long for a thousand trials."""


def run_command(
    folder: Path, prints_to: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Run it to its end, or until it is killed. Home, temporary folder, working directory and tally lie in
    the folder; it prints into the files "out" and "err", and SIGUSR1 makes it tell there where it is.
    """
    prints_to.mkdir(exist_ok=True)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(prints_to / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    faulthandler.register(signal.SIGUSR1)
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "cwd").mkdir(exist_ok=True)
    os.chdir(folder / "cwd")
    assert "prefect" not in sys.modules, "it would have read its settings already"
    os.environ.update(environment)
    os.environ.update(STOCKPOT_HOME=str(folder / "home"), TMPDIR=str(folder / "tmp"))
    torch.set_num_threads(1)
    leases.LEASE_SECONDS = LEASE_SECONDS
    counting.tally = folder / "tally"
    sys.argv = ["stockpot", *arguments]
    main(arguments)
