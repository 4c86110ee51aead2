"""Which rule a sweep falls under."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.entities import Experiment, Run
from stockpot.entities.tags import SOUP
from stockpot.errors import BadRequest
from stockpot.workflow.scanning.aliases import AliasedVersion
from stockpot.workflow.scanning.rules import Rule, Rules, rule_named_by

if TYPE_CHECKING:
    from stockpot.ports import Tracker


@dataclass(frozen=True)
class Match:
    """What the rules say about a sweep."""

    rule: Rule | None
    """None where none matches."""
    others: tuple[str, ...] = ()
    """Names of further rules that match: the first one in the file is taken."""
    wrong: str = ""
    """A clause: why the parent's tag cannot be followed."""


def match(
    parents: Iterable[Run],
    rules: Rules,
    experiments: Mapping[str, Experiment],
    tracker: "Tracker",
    aliased: Mapping[str | None, AliasedVersion],
) -> dict[str, Match]:
    """What the rules say about the sweeps of these parent runs, by their ids; one question for each filter
    and 500 sweeps. `aliased`: versions that ask for sweeps. Raises BadRequest, naming the rule, for a filter
    that MLflow refuses.
    """
    runs = {run.run_id: run for run in parents if run.experiment_id in experiments}
    matching: dict[str, list[Rule]] = {run_id: [] for run_id in runs}
    for rule in rules.rules:
        for run_id in _matched(rule, runs, experiments, tracker):
            matching[run_id].append(rule)
    return {
        run_id: _choice(run, matching[run_id], rules, aliased.get(run_id)) for run_id, run in runs.items()
    }


def _choice(run: Run, matching: list[Rule], rules: Rules, version: AliasedVersion | None) -> Match:
    named = rule_named_by(run.tags.get(SOUP, ""), rules)
    if isinstance(named, str):
        return Match(None, wrong=named)
    if named is not None:
        return Match(named)
    if version is not None:
        return Match(version.rule)
    first = matching[0] if matching else None
    return Match(first, tuple(rule.name for rule in matching[1:]))


def _matched(
    rule: Rule, runs: Mapping[str, Run], experiments: Mapping[str, Experiment], tracker: "Tracker"
) -> list[str]:
    found = [
        run_id
        for run_id, run in runs.items()
        if rule.covers(experiments[run.experiment_id].name) and (not rule.only_tagged or run.tags.get(SOUP))
    ]
    if not rule.filter or not found:
        return found
    within = sorted({runs[run_id].experiment_id for run_id in found})
    try:
        met = {run.run_id for run in tracker.select_runs(within, run_ids=found, filter=rule.filter)}
    except BadRequest as error:
        raise BadRequest(
            f"rule {rule.name!r}: {error.what}", mend=error.mend or "write an MLflow search filter"
        ) from error
    return [run_id for run_id in found if run_id in met]
