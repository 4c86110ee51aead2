"""What the machine refused, in one sentence: the folder, and the variable that chose it."""

import errno
from pathlib import Path

from stockpot.errors import StockpotError

CODES = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
    }
)
"""The machine's faults: full, read-only, not permitted, broken, too many open files."""


def is_the_machines(error: Exception) -> bool:
    """Whether an error is one of these. Libraries raise OSError for a file's content, too."""
    return isinstance(error, OSError) and error.errno in CODES


def disk_fault(folder: Path, error: OSError) -> StockpotError:
    """The error to raise for one that was met when something was written in the cache's folder."""
    mend = (
        "free some space on this disk, or set STOCKPOT_CACHE (by default a folder in STOCKPOT_HOME) to a "
        "folder that you may write"
    )
    return StockpotError(
        f"{folder}: cannot write a checkpoint: {error.strerror or error}", mend=_more_files(error) or mend
    )


def unreadable(path: Path, error: OSError) -> StockpotError:
    """The error to raise where a file cannot be read.

    No BadCheckpoint: those are remembered as the file's own fault, and another try may succeed.
    """
    mend = _more_files(error) or "check the path, then try again"
    return StockpotError(f"{path}: cannot be read: {error.strerror or error}", mend=mend)


def _more_files(error: OSError) -> str:
    full = error.errno in (errno.EMFILE, errno.ENFILE)
    return "allow more open files (ulimit -n 4096), then run the request again" if full else ""
