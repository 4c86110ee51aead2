"""Folders that one process works in: locked meanwhile, and removed if it was killed."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stockpot.soup.disk_faults import disk_fault, is_the_machines

PART = ".fetch-"
"""Downloads lie in folders of such names, until they are whole."""
PACKAGE = ".package-"
"""Soups lie in such folders while they are uploaded."""
SCRATCH = ".stockpot-"
"""And in such ones among the machine's temporary folders what is small, on its way from or to MLflow."""
DAY = 24 * 3600
"""Seconds after which nobody uses such a folder any more, where the file system has no locks to tell."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def workroom(cache: Path, prefix: str) -> Iterator[Path]:
    """A folder in the cache, locked until it is removed. Raises StockpotError where the disk fails."""
    try:
        with _locked(cache, prefix) as folder:
            yield folder
    except OSError as error:
        if not is_the_machines(error):
            raise
        raise disk_fault(cache, error) from error


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder, locked until it is removed. Raises OSError."""
    with _locked(temporary(), SCRATCH) as folder:
        yield folder


def temporary() -> Path:
    """Where this machine's temporary folders are."""
    return Path(tempfile.gettempdir())


@contextmanager
def _locked(where: Path, prefix: str) -> Iterator[Path]:
    folder, descriptor = _create(where, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _create(where: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=where, prefix=prefix))
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, _FOLDER)
            with suppress(OSError):  # no locks here: a day has to do
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)  # taken for abandoned between two of these calls


def remove_abandoned(where: Path, *, really: bool = True) -> list[int]:
    """Remove what killed processes were downloading or uploading: nobody holds its lock any more. Returns
    the bytes of each folder. Where not `really`, they stay.
    """
    sizes = []
    for folder in (found for prefix in (PART, PACKAGE, SCRATCH) for found in where.glob(f"{prefix}*")):
        with suppress(OSError):  # another process is done with it, or it is another user's
            descriptor = os.open(folder, _FOLDER)
            try:
                if _lock(descriptor) or time.time() - folder.stat().st_mtime > DAY:
                    sizes.append(sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file()))
                    if really:
                        shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
    return sizes


def _lock(descriptor: int) -> bool:
    """Whether the lock is ours now: false where there are none. Raises BlockingIOError if somebody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True
