"""A folder of files below a limit: those that were used least recently go first."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

_NAME = re.compile("[0-9a-f]{64}")
"""Of the files that we wrote; others in the folder are somebody's, and none of ours to remove."""
_pins: Counter[Path] = Counter()
_pins_lock = Lock()


class LeastRecentlyUsed:
    """The files of one suffix in a folder, named by 64 hexadecimal digits, and a limit in bytes on their sum.
    None: no limit.

    The time of modification tells when a file was last used: that of the file beside it with the suffix
    `beside` where that is given and there, else its own. The file beside it goes with it, and is not counted.

    Any number of processes may share the folder. A file that is open stays readable when it is removed; one
    that is pinned is not removed by this process. More than the limit stays where all the rest is pinned.
    """

    def __init__(self, folder: Path, suffix: str, limit: int | None, *, beside: str | None = None) -> None:
        self.folder = folder
        self.limit = limit
        self._suffix = suffix
        self._beside = beside

    def touch(self, file: Path) -> None:
        """Say that this file is used now."""
        for path in self._clocks(file):
            with suppress(OSError):  # read-only, or just removed: then there is nothing to say
                os.utime(path)
                return

    @contextmanager
    def pinned(self, files: Collection[Path]) -> Iterator[None]:
        """Meanwhile this process removes none of these files, whether they are there yet or not."""
        names = [file.absolute() for file in files]
        with _pins_lock:
            _pins.update(names)
        try:
            yield
        finally:
            with _pins_lock:
                _pins.subtract(names)
                for name in set(names):
                    if not _pins[name]:
                        del _pins[name]

    def held(self) -> tuple[int, int]:
        """How many files there are, and their bytes."""
        sizes = [size for _, _, size in self._files()]
        return len(sizes), sum(sizes)

    def evict(self, *, room: int = 0, keep: Path | None = None) -> bool:
        """Remove files until the rest and `room` more bytes are within the limit; never `keep`.

        Returns whether the limit was passed.
        """
        if self.limit is None:
            return False
        files = sorted(self._files())
        excess = sum(size for _, _, size in files) + room - self.limit
        reached = excess > 0
        for _, file, size in files:
            if excess <= 0:
                break
            if file != keep and self._remove(file):
                excess -= size
        return reached

    def remove_unused(self, before: float, *, really: bool) -> list[int]:
        """Remove the files that nobody used since then, in seconds since the epoch.

        Returns the bytes of each. Where not `really`, they stay.
        """
        old = [(file, size) for used, file, size in self._files() if used < before * 1e9]
        return [size for file, size in old if not really or self._remove(file)]

    def _files(self) -> Iterator[tuple[int, Path, int]]:
        """When each was last used, the file, its bytes."""
        for file in self.folder.glob(f"*{self._suffix}"):
            if not _NAME.fullmatch(file.stem):
                continue
            with suppress(FileNotFoundError):  # removed by another process
                size = file.lstat().st_size
                yield self._last_use(file), file, size

    def _last_use(self, file: Path) -> int:
        for path in self._clocks(file):
            with suppress(FileNotFoundError):
                return path.lstat().st_mtime_ns
        return 0

    def _clocks(self, file: Path) -> list[Path]:
        return [file] if self._beside is None else [file.with_suffix(self._beside), file]

    def _remove(self, file: Path) -> bool:
        # Held, so that nobody pins the file between the look and the removal.
        with _pins_lock:
            if _pins[file.absolute()]:
                return False
            try:
                for path in reversed(self._clocks(file)):
                    path.unlink(missing_ok=True)
            except OSError:  # a folder, or somebody else's where several users share one
                return False
            return True
