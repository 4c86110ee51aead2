"""What each rule matches now: read only, before anybody relies on it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING

from stockpot.entities import JobRecord, JobState
from stockpot.prose import counted, listed
from stockpot.workflow.scanning.aliases import aliased_versions, by_sweep
from stockpot.workflow.scanning.forest import Forest, SeenSweep
from stockpot.workflow.scanning.matching import match
from stockpot.workflow.scanning.rules import Rule, Rules

if TYPE_CHECKING:
    from stockpot.ports import Store, Tracker


class Stage(StrEnum):
    """How far a sweep has come, for its rule."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    ANSWERED = "answered"
    EARLIER = "earlier"
    """It ended before the rule's ``since``: only a tag asks for it."""


@dataclass(frozen=True)
class MatchedSweep:
    """A sweep that a rule is about."""

    sweep: str
    """The parent run's id."""
    name: str
    experiment: str
    stage: Stage


@dataclass(frozen=True)
class RuleCheck:
    """What one rule matches."""

    rule: str
    model: str
    experiments: tuple[str, ...]
    """The names of those that there are."""
    sweeps: tuple[MatchedSweep, ...]
    """Those that are this rule's, the one that moved first first."""

    def count(self, stage: Stage) -> int:
        """How many of the sweeps have come so far."""
        return sum(sweep.stage is stage for sweep in self.sweeps)


@dataclass(frozen=True)
class RulesCheck:
    """What a file of rules matches."""

    file: str
    rules: tuple[RuleCheck, ...]
    notes: tuple[str, ...]
    """What is probably not meant."""


def check_rules(rules: Rules, tracker: "Tracker", store: "Store") -> RulesCheck:
    """Look through all runs of the experiments that the rules name. Raises BadRequest for a filter that
    MLflow refuses, and what MLflow and the store raise.
    """
    every = tracker.experiments()
    covered = {e.experiment_id: e for e in every if any(rule.covers(e.name) for rule in rules.rules)}
    forest = Forest(store.clock())
    forest.add(tracker.select_runs([*covered]))
    seen = {run_id: one for run_id, one in forest.sweeps().items() if one.runs}
    versions, notes = aliased_versions(rules, tracker)
    aliased = by_sweep(versions, forest)
    matched = match([one.parent for one in seen.values()], rules, covered, tracker, aliased)
    records: dict[str | None, list[JobRecord]] = defaultdict(list)
    for record in store.job_records(sweeps=seen):
        records[record.request.sweep if record.request else None].append(record)
    of_rule: dict[str, list[MatchedSweep]] = defaultdict(list)
    pairs: Counter[tuple[str, str]] = Counter()
    for run_id, one in sorted(seen.items(), key=lambda item: (item[1].moved, item[0])):
        found = matched[run_id]
        if found.wrong:
            notes.append(f"the sweep {one.parent.name} ({run_id}) is left alone: {found.wrong}")
        if found.rule is None:
            continue
        pairs.update(combinations((found.rule.name, *found.others), 2))
        experiment = covered[one.parent.experiment_id].name
        stage = _stage(one, found.rule, records[run_id])
        of_rule[found.rule.name].append(MatchedSweep(run_id, one.parent.name, experiment, stage))
    checks = tuple(
        RuleCheck(
            rule=rule.name,
            model=str(rule.request["model"]),
            experiments=tuple(e.name for e in every if rule.covers(e.name)),
            sweeps=tuple(of_rule[rule.name]),
        )
        for rule in rules.rules
    )
    notes += [
        f"{counted(number, 'sweep')} of rule {first!r} would be rule {second!r}'s too: the first one counts"
        for (first, second), number in pairs.items()
    ]
    notes += [note for rule, check in zip(rules.rules, checks, strict=True) for note in _doubts(rule, check)]
    notes += [
        f"rule {rule.name!r} matches every sweep of every experiment: name experiments, or write a filter"
        for rule in rules.rules
        if len(every) > 1
        and all(rule.covers(e.name) for e in every)
        and not (rule.filter or rule.only_tagged)
    ]
    return RulesCheck(str(rules.file), checks, tuple(notes))


def _stage(one: SeenSweep, rule: Rule, records: Sequence[JobRecord]) -> Stage:
    asked = rule.request_for(one.parent.run_id)
    for record in records:
        if record.request is None or record.state is not JobState.DONE:
            continue
        if replace(record.request, partial=asked.partial, base=asked.base) == asked:
            return Stage.ANSWERED
    if one.running:
        return Stage.UNFINISHED
    return Stage.EARLIER if rule.since is not None and one.moved < rule.since else Stage.FINISHED


def _doubts(rule: Rule, check: RuleCheck) -> list[str]:
    if not check.experiments:
        return [f"rule {rule.name!r} names no experiment: there is none like {listed(rule.experiments)}"]
    if check.sweeps:
        return []
    asked = f" or the alias {rule.alias}" if rule.alias else ""
    why = f" with the tag stockpot.soup{asked}" if rule.only_tagged else ""
    why += f" that meets {rule.filter!r}" if rule.filter else ""
    return [f"rule {rule.name!r} matches nothing: {listed(check.experiments)} holds no sweep{why}"]
