"""Files that appear whole or not at all, whatever happens to the process that writes them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_UNFINISHED = ".writing-"
_flush = os.fdatasync if hasattr(os, "fdatasync") else os.fsync


class UnfinishedFile:
    """A file that has no name yet that anyone looks for. Any thread may write at any offset."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def put(self, content: bytes | memoryview, offset: int) -> None:
        """Write all of these bytes there. Raises OSError."""
        rest = memoryview(content)
        while rest:
            count = os.pwrite(self.descriptor, rest, offset)
            rest, offset = rest[count:], offset + count

    def flush(self) -> None:
        """Wait until the disk has what was put so far, so that less is left to wait for at the end.

        Nothing less makes a disk begin that has a cache of its own, as all those of virtual machines have.
        Raises OSError; what is told here is not told again at the end.
        """
        _flush(self.descriptor)

    def finish(self, path: Path) -> os.stat_result:
        """Give the file its name, in the same folder, once the disk has it. Raises OSError."""
        os.fsync(self.descriptor)
        self.path.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return os.fstat(self.descriptor)


@contextmanager
def writing(folder: Path) -> Iterator[UnfinishedFile]:
    """A new file in this folder, removed unless it is finished. Raises OSError.

    What a killed process left behind is removed by `remove_leftovers`: a file is locked while it is written.
    """
    path, descriptor = _create(folder)
    try:
        yield UnfinishedFile(path, descriptor)
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def remove_leftovers(folder: Path, *, really: bool = True) -> list[int]:
    """Remove the unfinished files whose writers are gone, and nothing where that cannot be told. Returns
    the bytes of each. Where not `really`, they stay.
    """
    sizes = []
    for path in folder.glob(f"{_UNFINISHED}*"):
        # OSError: another process was quicker, still writes, or this file system has no locks.
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                size = os.fstat(descriptor).st_size
                if really:
                    path.unlink()
                sizes.append(size)
            finally:
                os.close(descriptor)
    return sizes


def _create(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f"{_UNFINISHED}{uuid4().hex}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # no locks here: then nothing of it is ever taken for a leftover
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)  # taken for a leftover between the two calls
