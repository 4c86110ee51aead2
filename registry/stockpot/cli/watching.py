"""How far a command has come: bars on a terminal, lines with the time elsewhere."""

import time
from collections.abc import Callable
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from stockpot.cli.terminal import err
from stockpot.logs import LOG, writes_json
from stockpot.ports import Watcher
from stockpot.prose import one_line
from stockpot.watching import Lines

T = TypeVar("T")


class Bars:
    """A watcher who draws bars on a terminal."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._stages: dict[str, TaskID] = {}

    def start(self, stage: str, total: int) -> None:
        """Add a bar. A stage of unknown length ends where the next one begins."""
        for task in self._bars.tasks:
            if task.total is None:
                self._bars.update(task.id, total=task.completed)
        self._stages[stage] = self._bars.add_task(one_line(stage), total=total or None)

    def advance(self, stage: str) -> None:
        """Move it on."""
        self._bars.advance(self._stages[stage])

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(Text(one_line(message)))


def watched(work: Callable[[Watcher], T]) -> T:
    """Do some work while the person, or the log, at the other end of stderr is told of it."""
    if writes_json():
        return work(Lines(LOG.info))
    if not err.is_terminal or err.is_dumb_terminal:
        return work(Lines(_print_line))
    look = (
        TextColumn("{task.description:>20}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*look, console=err) as bars:
        return work(Bars(bars))


def _print_line(message: str) -> None:
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}"
    err.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)
