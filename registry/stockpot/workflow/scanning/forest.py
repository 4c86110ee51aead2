"""Sweeps as a scan sees them: parent runs, and what lies below them, of runs that come in any order."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.entities import UNFINISHED, Run
from stockpot.entities.tags import PARENT

if TYPE_CHECKING:
    from stockpot.ports import Tracker


@dataclass(frozen=True, slots=True)
class SeenSweep:
    """A parent run that has no parent itself, with what was seen below it."""

    parent: Run
    moved: float
    """When one of these runs began or ended last, in seconds since the epoch."""
    runs: int
    """Below the parent."""
    running: int
    """Of those: have not ended, and hold no others together, which scripts often forget to end."""


@dataclass(frozen=True, slots=True)
class _Node:
    above: str | None
    unfinished: bool
    moved: int
    """Milliseconds since the epoch."""


class Forest:
    """What is kept of each run is small: there may be a hundred thousand."""

    def __init__(self, now: float) -> None:
        """`now`: by the store's clock. What ended later, by a clock that jumped, ended now."""
        self.ended: float | None = None
        """When a run ended last."""
        self._now = now
        self._nodes: dict[str, _Node] = {}
        self._parents: dict[str, Run] = {}

    def add(self, runs: Iterable[Run]) -> None:
        """Take these runs in."""
        for run in runs:
            above = run.tags.get(PARENT) or None
            moved = max(run.started, run.ended or 0)
            self._nodes[run.run_id] = _Node(above, run.status in UNFINISHED, moved)
            if above is None:
                self._parents[run.run_id] = run
            if run.ended:
                self.ended = max(self.ended or 0.0, min(run.ended / 1000, self._now))

    def fetch(self, tracker: "Tracker", experiment_ids: list[str], run_ids: Collection[str] = ()) -> None:
        """Take these runs in, and all runs above those that are here, as far as they are active."""
        asked: set[str] = set()
        while missing := ({*run_ids} | self._above()) - self._nodes.keys() - asked:
            asked |= missing
            self.add(tracker.select_runs(experiment_ids, run_ids=missing))

    def _above(self) -> set[str]:
        return {node.above for node in self._nodes.values() if node.above is not None}

    def sweeps(self) -> dict[str, SeenSweep]:
        """By the parent's id; also of parents below which nothing was seen. What hangs below a run that is
        gone is no sweep.
        """
        holders = self._above()
        moved = {run_id: self._nodes[run_id].moved for run_id in self._parents}
        runs, running = dict.fromkeys(moved, 0), dict.fromkeys(moved, 0)
        for run_id, node in self._nodes.items():
            root = self.root(run_id)
            if root is None or root == run_id:
                continue
            moved[root] = max(moved[root], node.moved)
            runs[root] += 1
            running[root] += node.unfinished and run_id not in holders
        return {
            root: SeenSweep(parent, min(moved[root] / 1000, self._now), runs[root], running[root])
            for root, parent in self._parents.items()
        }

    def root(self, run_id: str) -> str | None:
        """The parent run of the sweep; None where a run between is gone, or people made a circle."""
        for above in self._upwards(run_id):
            if above in self._parents:
                return above
        return None

    def _upwards(self, run_id: str) -> Iterator[str]:
        passed: set[str] = set()
        current: str | None = run_id
        while current is not None and current not in passed:
            yield current
            passed.add(current)
            node = self._nodes.get(current)
            current = node.above if node else None


def sweep_of(parent: Run, below: Collection[Run], now: float) -> SeenSweep:
    """The sweep of this parent, of which all runs are listed."""
    forest = Forest(now)
    forest.add([parent])
    forest.add(below)
    return forest.sweeps()[parent.run_id]
