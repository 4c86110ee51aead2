"""How far scans have looked."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stockpot.entities import Experiment, Run, Watermark
from stockpot.workflow.scanning.rules import Rule, Rules

if TYPE_CHECKING:
    from stockpot.ports import Store

OVERLAP = 3600.0
"""Ends of runs are told by the clocks of the machines that trained. One that is slower than these seconds is
seen late: by the next run of its sweep, or when the sweep is looked at again.
"""


class Marks:
    """How far was looked, for each rule and experiment.

    A rule begins where it is new, or has another ``since``, or names an experiment for the first time.
    """

    def __init__(
        self, rules: Rules, experiments: Mapping[str, Experiment], store: "Store", now: float
    ) -> None:
        self.seen_until: float | None = None
        """When a run ended last, of those that this scan saw."""
        pairs = [(r, e) for r in rules.rules for e in experiments.values() if r.covers(e.name)]
        self._names = {(rule.name, one.experiment_id): _mark_name(rule, one) for rule, one in pairs}
        kept = store.watermarks(self._names.values())
        self._begun: dict[tuple[str, str], float] = {}
        self._until: dict[tuple[str, str], float | None] = {}
        for rule, one in pairs:
            key = (rule.name, one.experiment_id)
            mark = kept.get(self._names[key])
            begun = now if rule.since is None else rule.since
            self._begun[key] = mark.begun if mark else begun
            self._until[key] = mark.until if mark else None
        self.begin: dict[str, list[str]] = defaultdict(list)
        """Names of the rules that look at an experiment for the first time, by its id."""
        for (name, number), until in self._until.items():
            if until is None:
                self.begin[number].append(name)

    def begun(self, rule: Rule, experiment_id: str) -> float:
        """What ended before is none of the rule's business; 0 where only a tag led to it."""
        return self._begun.get((rule.name, experiment_id), 0.0)

    def earliest(self, experiment_id: str) -> float:
        """When the first of the rules about this experiment began."""
        return min(begun for (_, number), begun in self._begun.items() if number == experiment_id)

    def _floor(self, experiment_id: str) -> float:
        return min(
            self._begun[key] if until is None else until - OVERLAP
            for key, until in self._until.items()
            if key[1] == experiment_id
        )

    def floors(self) -> dict[float, list[str]]:
        """From when on ends of runs are to be looked at, with the experiments: few, after the first time."""
        found: dict[float, list[str]] = defaultdict(list)
        for number in sorted({number for _, number in self._names}):
            found[max(0.0, self._floor(number))].append(number)
        return found

    def is_whole(self, parent: Run) -> bool:
        """Whether this scan has seen all runs below this parent, as far as they began after it."""
        number = parent.experiment_id
        return number in self.begin and parent.started >= self._floor(number) * 1000

    def moved(self) -> dict[str, Watermark]:
        """The marks after this scan. They move to the last end that was seen, not to the time of the scan:
        the clocks of those who trained may be slow.
        """
        return {
            name: Watermark(
                self._begun[key], max(self._until[key] or self._begun[key], self.seen_until or 0.0)
            )
            for key, name in self._names.items()
        }


def _mark_name(rule: Rule, experiment: Experiment) -> str:
    """Several MLflows may share a store, and experiments of the same number are told apart by their age."""
    return json.dumps([rule.name, rule.since, experiment.experiment_id, experiment.created])
