"""Stamps: how a file looked when its bytes were known to be right, kept beside it.

A stamp is size, time of change of content and of status, and inode. Any ordinary write to the file, and any
exchange of the file for another, changes one of them, since nobody sets the time of change of status. What a
stamp cannot notice: bytes that rot on the disk or are written past the file system; a clock that is turned
back for it; a change of the same size within one tick of the system's clock, a few milliseconds, after the
stamp, or, with the time of change of content put back, while the file gets or loses a name. A build that
hashes its ingredients notices those too.

A stamp that is absent, torn or of another file says only that nothing is known.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".stamp"


def is_stamped(file: Path, status: os.stat_result) -> bool:
    """Whether the file still looks as it did when it was stamped."""
    try:
        return _beside(file).read_text(encoding="ascii") == _text(status)
    except (OSError, UnicodeDecodeError):
        return False


def stamp(file: Path, status: os.stat_result) -> None:
    """Remember how a file looks whose bytes are right. In a folder that is read-only, nothing happens."""
    with suppress(OSError):
        _beside(file).write_text(_text(status), encoding="ascii")


@contextmanager
def kept(file: Path) -> Iterator[None]:
    """Meanwhile the file gets or loses a name, which changes the time of change of its status: stamp it anew
    where it was stamped, and only that time is another.
    """
    before = _status(file)
    known = before is not None and is_stamped(file, before)
    yield
    after = _status(file)
    if known and before is not None and after is not None and _content(before) == _content(after):
        stamp(file, after)


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:  # another process has evicted it
        return None


def _content(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _beside(file: Path) -> Path:
    return file.with_suffix(SUFFIX)


def _text(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}\n"
