"""What happened to a registered model, and whether that is still what was written down."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from stockpot.entities import TrailEntry, TrailOf, Watch
from stockpot.errors import BadRequest, RewrittenHistory
from stockpot.prose import counted
from stockpot.workflow.trails import TRIES, Office, anchors_of, mlflow_of, watch_of

if TYPE_CHECKING:
    from stockpot.ports import Store


class Standing(StrEnum):
    """How a trail stands against its anchor in MLflow."""

    ANCHORED = "anchored"
    """The newest entry is the one that MLflow names."""
    LAGGING = "lagging"
    """MLflow names an earlier entry: what was appended after is not anchored yet."""
    UNANCHORED = "unanchored"
    """MLflow names none: whoever appended was stopped before, or a person removed the tag."""
    GONE = "gone"
    """The model is not there, and its anchor with it: the chain alone was looked at."""
    REWRITTEN = "rewritten"
    """What is here is not what was written."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a trail is what was written."""

    standing: Standing
    entries: int
    anchored: int
    """The number of the entry that MLflow names; 0 where it names none of these."""
    faults: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """For people."""
        late, number = self.entries - self.anchored, counted(self.entries, "entry", "entries")
        return {
            Standing.ANCHORED: f"whole: {number}, and MLflow names the newest",
            Standing.LAGGING: f"whole: {number}, and MLflow names number {self.anchored}; "
            f"{late} later ones are not anchored yet, which stockpot watch does",
            Standing.UNANCHORED: f"whole: {number}, and MLflow names none: "
            "either none was anchored yet, which stockpot watch does, or the tag was removed",
            Standing.GONE: f"whole: {number} of a model that is not there any more, and without it no anchor",
            Standing.REWRITTEN: f"rewritten: {'; '.join(self.faults)}",
        }[self.standing]


@dataclass(frozen=True, slots=True)
class Audited:
    """The trail of one model, from its birth to its end."""

    model: str
    born: int
    """Milliseconds since the epoch."""
    here: bool
    """Whether it is the model that has this name now."""
    entries: tuple[TrailEntry, ...]
    verification: Verification | None
    """None where nobody asked."""


def audit(place: Office, model: str, *, verify: bool = False) -> tuple[Audited, ...]:
    """The trails of the models of this name in this MLflow, the oldest first: one that was deleted and made
    again has two. Changes nothing.

    Raises BadRequest where there is none.
    """
    current = place.tracker.registered_model(model)
    known = place.store.watches([model])
    if current is None or len(known) > 1:
        here = mlflow_of(place.tracker)
        known = tuple(one for one in known if one.mlflow == here or (current and current.trail == one.trail))
    if not known:
        there = "" if current else f", and MLflow knows no registered model {model!r}"
        raise BadRequest(
            f"there is no trail of {model!r}{there}",
            mend="stockpot watch begins one for each model that Stockpot has registered to",
        )
    found = []
    for summary in sorted(known, key=lambda one: one.born):
        is_current = current is not None and current.trail == summary.trail
        watch, entries = _at_rest(place.store, summary)
        asked = None
        if verify:
            anchor = current.anchor if current is not None and is_current else None
            asked = _verified(place, watch, entries, anchor, here=is_current)
        found.append(Audited(watch.model, watch.born, is_current, entries, asked))
    return tuple(found)


def _at_rest(store: "Store", watch: Watch) -> tuple[Watch, tuple[TrailEntry, ...]]:
    """The entries with the summary of the same moment: others append meanwhile. In the end as they come."""
    entries: tuple[TrailEntry, ...] = ()
    for _ in range(TRIES):
        entries, before = store.trail(watch.trail), watch
        watch = watch_of(store, watch.trail) or watch
        if watch.digest == before.digest:
            break
    return watch, entries


def require_whole(found: Sequence[Audited]) -> None:
    """Raise RewrittenHistory where one of the trails that were verified is not what was written."""
    faults = [
        f"{one.model}: {fault}" for one in found if one.verification for fault in one.verification.faults
    ]
    if faults:
        raise RewrittenHistory(
            f"the history of {found[0].model!r} is not the one that was written",
            faults=faults,
            mend="compare the store with its backups; MLflow's tag stockpot.trail names the newest entry",
        )


def _verified(
    place: Office, watch: Watch, entries: Sequence[TrailEntry], anchor: str | None, *, here: bool
) -> Verification:
    faults = tuple(_faults(watch, entries))
    newest, number = len(entries), 0
    standing = Standing.UNANCHORED if here else Standing.GONE
    if anchor is not None:
        anchors = {str(digest): at for digest, at in anchors_of(place.store, watch.trail).items()}
        number = anchors.get(anchor, -1)
        standing = Standing.ANCHORED if number == newest else Standing.LAGGING
        if number < 0:
            faults = (*faults, f"MLflow names {anchor}, which is no entry of it")
    return Verification(Standing.REWRITTEN if faults else standing, newest, max(number, 0), faults)


def _faults(watch: Watch, entries: Sequence[TrailEntry]) -> list[str]:
    """What is wrong with the chain itself."""
    faults, before, adds_up = [], None, None
    for number, entry in enumerate(entries, 1):
        if (entry.number, entry.trail) != (number, TrailOf(watch.model, watch.born)):
            faults.append(f"where entry {number} should be, there is {entry.number}")
            break
        if entry.computed != entry.digest:
            faults.append(f"entry {number} is not what its digest names")
        if entry.previous != before:
            faults.append(f"entry {number} does not follow the one before it")
        before = entry.digest
        if not faults:
            adds_up = Watch.after(adds_up, entry)
    if not faults and adds_up is not None:
        kept = (watch.number, watch.digest, dict(watch.aliases))
        if kept != (adds_up.number, adds_up.digest, dict(adds_up.aliases)):
            faults.append(
                f"the store's summary tells of {watch.number} entries that add up to something else"
            )
    if not entries:
        faults.append(f"its {watch.number} entries are not there")
    return faults
