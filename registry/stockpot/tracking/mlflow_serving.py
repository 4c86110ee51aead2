"""A version's pyfunc in a process of its own: the code that it brings gets none of our variables, and leaves
nothing in this process.
"""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, cast
from zipfile import BadZipFile

from stockpot.errors import Incompatible
from stockpot.tracking import serving_process
from stockpot.tracking.serving_process import ALONE, unpacked, write
from stockpot.variables import variables

SILENCE = 900.0
"""Seconds after which a model that says nothing is ended: imports and large weights take minutes."""
NO_ANSWER = (OSError, ValueError, LookupError, TypeError, EOFError, MemoryError, BadZipFile, zlib.error)
"""What is raised where the process has ended, or says what nobody asked."""
KEPT = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|LD_LIBRARY_PATH|OMP_NUM_THREADS|(CUDA|NVIDIA)_\w+"
)
"""Variables that the process gets: none that holds an address, a password or a key."""
REQUIRED = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
MOST_REQUIRED = 1 << 16
"""Bytes of a file of requirements that are looked at."""


class ServedModel:
    """A model folder, served from its first question on."""

    def __init__(self, folder: Path, *, silence: float = SILENCE) -> None:
        self._folder = folder
        self._silence = silence
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def software(self) -> tuple[tuple[str, str], ...]:
        """MLflow, numpy and what the model's requirements name, as installed here; of Python the release."""
        file = self._folder / "requirements.txt"
        told = b""
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as opened:
                told = opened.read(MOST_REQUIRED)
        lines = (REQUIRED.match(line) for line in told.decode(errors="replace").splitlines())
        names = {"mlflow", "numpy", *(line[0].lower() for line in lines if line)}
        python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
        return (("python", python), *((name, _installed(name)) for name in sorted(names)))

    def __call__(self, inputs: Any) -> Any:
        """As `stockpot.ports.Served` says."""
        if self._process is None:
            self._process = self._begun()
        asks, answers = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        try:
            write(asks, inputs if isinstance(inputs, Mapping) else {ALONE: inputs})
            deadline = time.monotonic() + self._silence
            length = self._read(answers, 8, deadline)
            arrays, fault = unpacked(self._read(answers, int.from_bytes(length, "big"), deadline))
        except NO_ANSWER as error:
            self.close()
            raise Incompatible(
                f"the process that served it ended, or said what is no answer: {error}"
            ) from error
        if fault:
            raise Incompatible(fault)
        return arrays[ALONE] if list(arrays) == [ALONE] else arrays

    def close(self) -> None:
        """End the process, and all that it has started: nobody waits for what holds its pipes."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):  # macOS tells so of a group whose leader ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            with suppress(OSError):
                pipe.close()

    def _begun(self) -> "subprocess.Popen[bytes]":
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        kept = {name: value for name, value in variables().items() if KEPT.fullmatch(name)}
        # Without -P a program's own folder is searched first, and there lie our modules of MLflow.
        return subprocess.Popen(
            [sys.executable, "-P", serving_process.__file__, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.parent,
            start_new_session=True,
            env={**kept, "PYTHONPATH": path, "MLFLOW_TRACKING_URI": (self._folder.parent / "none").as_uri()},
        )

    def _read(self, pipe: IO[bytes], length: int, deadline: float) -> bytes:
        parts, left = [], length
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while left:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"nothing came for {self._silence:g} s")
                part = os.read(pipe.fileno(), min(left, 1 << 20))
                if not part:
                    raise EOFError("it ended")
                parts.append(part)
                left -= len(part)
        return b"".join(parts)


@contextmanager
def served(folder: Path) -> Iterator[ServedModel]:
    """The model in this folder, until the block ends."""
    model = ServedModel(folder)
    try:
        yield model
    finally:
        model.close()


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
