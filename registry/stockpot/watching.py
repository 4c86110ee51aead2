"""Who is told how far the work has come: nobody, whoever takes lines of text, or several at once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from stockpot.ports import Watcher
from stockpot.prose import one_line

SECONDS_BETWEEN = 10.0
"""Between two lines on one stage, so that a log of hours stays readable."""


class Silent:
    """A watcher who tells nobody."""

    def start(self, stage: str, total: int) -> None:
        """Say nothing."""

    def advance(self, stage: str) -> None:
        """Say nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""


@dataclass
class _Stage:
    total: int
    begun: float = field(default_factory=time.monotonic)
    """Seconds of the monotonic clock, as is `told`."""
    told: float = field(default_factory=time.monotonic)
    done: int = 0


class Lines:
    """A watcher who writes lines, for a pipe, a container's output or a log, where bars would be noise.

    Args:
        write: Takes one message, without an end of line or other control characters.
        seconds: Between two lines on one stage.
    """

    def __init__(self, write: Callable[[str], None], seconds: float = SECONDS_BETWEEN) -> None:
        self._take = write
        self._seconds = seconds
        self._stages: dict[str, _Stage] = {}

    def start(self, stage: str, total: int) -> None:
        """Name the stage. One of unknown length ends where the next one begins."""
        for name in [name for name, found in self._stages.items() if not found.total]:
            self._tell(name, self._stages.pop(name))
        self._stages[stage] = _Stage(total)
        self._write(f"{stage}: 0 of {total:,}" if total else f"{stage}: begins")

    def advance(self, stage: str) -> None:
        """Tell the count now and then, and at the stage's end."""
        found = self._stages.get(stage)
        if found is None:
            return
        found.done += 1
        if found.done == found.total or time.monotonic() - found.told >= self._seconds:
            self._tell(stage, found)

    def say(self, message: str) -> None:
        """Pass it on."""
        self._write(message)

    def _write(self, message: str) -> None:
        self._take(one_line(message))

    def _tell(self, name: str, stage: _Stage) -> None:
        stage.told = time.monotonic()
        of = f" of {stage.total:,}" if stage.total else ""
        self._write(f"{name}: {stage.done:,}{of} after {stage.told - stage.begun:.0f} s")


class Sayings(Silent):
    """A watcher who passes on what is said, and no progress."""

    def __init__(self, inner: Watcher) -> None:
        self._inner = inner

    def say(self, message: str) -> None:
        """Pass it on."""
        self._inner.say(message)


class Several:
    """Several watchers as one."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def start(self, stage: str, total: int) -> None:
        """Tell everybody."""
        for watcher in self._watchers:
            watcher.start(stage, total)

    def advance(self, stage: str) -> None:
        """Tell everybody."""
        for watcher in self._watchers:
            watcher.advance(stage)

    def say(self, message: str) -> None:
        """Tell everybody."""
        for watcher in self._watchers:
            watcher.say(message)
