"""Tell that a sweep has finished, from where it ran, with no more than mlflow-skinny beside Stockpot.

After the last line of a sweep::

    study.optimize(objective, n_trials=40)
    announce(parent.info.run_id)

or in a shell: ``python sweep.py && stockpot announce "$RUN_ID"``.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from stockpot.entities import UNFINISHED, Run, SweepSelector
from stockpot.entities.tags import PARENT, SOUP
from stockpot.errors import BadRequest, StockpotError
from stockpot.logs import LOG
from stockpot.prose import counted


@dataclass(frozen=True)
class Announcement:
    """What was told, and to whom."""

    sweep: str
    """The parent run's id."""
    tag: str
    """What its tag `stockpot.soup` holds now."""
    event: UUID
    """Made of the sweep and its runs as they are: Prefect's triggers fire once for it."""
    notes: tuple[str, ...]
    """What people should know."""


def announce(run_id: str, *, rule: str | None = None) -> Announcement:
    """Tell that the sweep of this parent run has finished: by a tag that stays, and to Prefect by an event
    where it is installed and configured. The next scan asks for its soup. May be repeated at will.

    Args:
        run_id: The parent run's id.
        rule: The rule that the sweep falls under, whatever its filter; else the first one that matches.

    An event that cannot be sent is said, in the notes and in the log of the name "stockpot": the scan needs
    none. Raises the errors of `stockpot.errors`, each with its mend: UnknownSweep, BadRequest for a run
    without runs below it, NotPermitted.
    """
    told = announced(run_id, rule=rule)
    for note in told.notes:
        LOG.warning(note)
    return told


def announced(run_id: str, *, rule: str | None = None) -> Announcement:
    """The same, for who tells the notes himself."""
    from stockpot.tracking import MlflowTracker

    tracker, selector = MlflowTracker(), SweepSelector(run_id)
    parent = tracker.parent(selector)
    assert parent is not None  # noqa: S101 - a selector by parent has one, or raises
    above = parent.tags.get(PARENT)
    if above:
        raise BadRequest(
            f"run {parent.name} ({run_id}) is below another one: it is no sweep's parent",
            mend=f"stockpot announce {above}",
        )
    below = tuple(tracker.runs(selector))
    if not below:
        raise BadRequest(
            f"run {parent.name} ({run_id}) has no runs below it",
            mend="announce the parent run under which the sweep's runs were logged",
        )
    tag = parent.tags.get(SOUP, "")
    if not tag or (rule is not None and _rule_of(tag) != rule):
        tag = _value(rule)
        tracker.tag_run(run_id, SOUP, tag)
    event = uuid5(NAMESPACE_URL, "\n".join([run_id, *sorted(map(_as_it_is, below))]))
    notes = filter(None, (_unfinished(below), _sent(run_id, event, tag)))
    return Announcement(run_id, tag, event, tuple(notes))


def _value(rule: str | None) -> str:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return now if rule is None else json.dumps({"rule": rule, "at": now})


def _rule_of(tag: str) -> object:
    try:
        told = json.loads(tag)
    except (ValueError, RecursionError):
        return tag
    return told.get("rule") if isinstance(told, dict) else tag


def _as_it_is(run: Run) -> str:
    return f"{run.run_id} {run.status} {run.ended}"


def _unfinished(below: tuple[Run, ...]) -> str:
    running = sum(run.status in UNFINISHED for run in below)
    return f"{counted(running, 'run')} of the sweep not ended: the soup waits for that" if running else ""


def _sent(run_id: str, event: UUID, tag: str) -> str:
    from stockpot_flows.events import tell_finished

    try:
        fault = tell_finished(run_id, event, {"sweep": run_id, "tag": tag})
    except StockpotError as error:
        fault = error.what
    return fault and f"{fault}. The tag is set: the next scan finds the sweep"
