"""The one way to write to a registered model's trail, and to move an alias on record."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from stockpot.documents import to_document
from stockpot.entities import (
    AliasMove,
    Digest,
    RegisteredModel,
    Seen,
    TrailDraft,
    TrailEntry,
    TrailKind,
    TrailOf,
    Watch,
    WatchEvent,
    WatchFact,
)
from stockpot.entities.tags import RECIPE
from stockpot.errors import BadRequest, StockpotError, StoreError
from stockpot.ports import Records
from stockpot.prose import one_line
from stockpot.workflow.leases import Hold, holder, wait_for

if TYPE_CHECKING:
    from stockpot.entities import ModelVersion
    from stockpot.ports import Store, Tracker, Watcher

TRIES = 20
"""Of an entry, while others append: each that fails is one of theirs that succeeded."""
PROMISED = 300.0
"""Seconds within which somebody looks at the aliases, where nothing else is promised."""
SLACK = 60.0
"""Seconds by which a look may be late: a worker takes that long to begin a flow run when it is busy."""


class Office(Records, Protocol):
    """The adapters that it needs."""

    @property
    def watch(self) -> "Watcher":
        """Told what has no other place."""
        ...


def append(
    place: Office, model: str, kind: TrailKind, fact: object, *, by: str, reason: str = ""
) -> TrailEntry:
    """Append a fact to the trail of a registered model, whoever else appends meanwhile.

    Args:
        place: The adapters.
        model: The registered model's name.
        kind: What the fact is.
        fact: An entity, or a JSON document.
        by: Who did it.
        reason: Why.

    Raises BadRequest where there is no such model. An anchor that cannot be written is told, and is written
    by the next look.
    """
    draft = TrailDraft(kind, to_document(fact), one_line(by), one_line(reason))
    found = require_model(place, model)
    for _ in range(TRIES):
        known = watch_of(place.store, found.trail)
        opening = [begun(place, found)] if known is None or known.gone else []
        after = known.digest if known else None
        entries = place.store.append_trail(found.trail, [*opening, draft], after=after)
        if entries is not None:
            if fault := anchor(place, found):
                place.watch.say(fault)
            return entries[-1]
    raise too_busy(model)


def move_alias(  # noqa: PLR0913 - what is moved, and what is told of it
    place: Office,
    model: str,
    alias: str,
    version: str,
    *,
    expected: str | None,
    by: str,
    reason: str,
    earned: bool = False,
    promised: float = PROMISED,
) -> TrailEntry | None:
    """Point an alias at a version, on record. Waits for another process that moves one of this model's.

    Args:
        place: The adapters.
        model: The registered model's name.
        alias: The alias.
        version: Where it shall point.
        expected: Where it points now, as far as is known; None where it does not exist.
        by: Who moves it.
        reason: Why.
        earned: Whether the version gets the tag ``stockpot.alias`` too: a soup that earned it when it was
            registered.
        promised: Seconds within which somebody looks at the aliases, as in `watching.look`.

    Returns None, and moves nothing, where it points elsewhere than is expected: MLflow cannot compare and
    set, so a click in the moment between the question and the move is overwritten, and seen by nobody.
    Raises BadRequest where there is no such model or version.
    """
    trail = require_model(place, model).trail
    hold = Hold(place.store, trail.lease, f"the aliases of {model}")
    if held := hold.attempt():
        place.watch.say(f"another process moves an alias of {model}: waiting for {holder(held)}")
        wait_for(hold)
    with hold.kept_alive():
        at = place.store.clock()  # before the question, as a look does
        found = require_model(place, model)
        if found.aliases.get(alias) != expected:
            return None
        _write_unseen(place, found, at, promised)
        point = place.tracker.set_alias if earned else place.tracker.point_alias
        point(model, alias, version)
        ours = made_by_us(place.tracker, model, version)
        move = AliasMove(alias, expected, version, Seen.PROMOTE, ours=ours)
        return append(place, model, TrailKind.MOVE, move, by=by, reason=reason)


def _write_unseen(place: Office, model: RegisteredModel, at: float, promised: float) -> None:
    """Write what has moved since somebody looked last: it would be covered by what moves next. `at`: when the
    model was looked at.
    """
    for _ in range(TRIES):
        known = watch_of(place.store, model.trail)
        if known is None or known.gone:
            drafts: tuple[TrailDraft, ...] = (begun(place, model, at),)
        else:
            drafts = drafts_since(place.tracker, model, known, Seen.POLL, at, promised)
        after = known.digest if known else None
        if not drafts or place.store.append_trail(model.trail, drafts, after=after) is not None:
            return
    raise too_busy(model.name)


def drafts_since(
    tracker: "Tracker", model: RegisteredModel, known: Watch, seen: Seen, at: float, promised: float
) -> tuple[TrailDraft, ...]:
    """What is to be written of a model that was looked at then: that nobody had looked for too long, and the
    aliases that do not point where they pointed, by name.
    """
    late = unwatched(known, at, promised)
    unwatched_since = known.looked if late else None
    before, now = known.aliases, model.aliases
    moves = (
        AliasMove(
            alias,
            before.get(alias),
            now.get(alias),
            seen,
            unwatched_since,
            deleted=_is_deleted(tracker, model.name, before.get(alias)),
            ours=made_by_us(tracker, model.name, now.get(alias)),
        )
        for alias in sorted({*before, *now})
        if before.get(alias) != now.get(alias)
    )
    return (*late, *(TrailDraft(TrailKind.MOVE, to_document(move)) for move in moves))


def unwatched(known: Watch, at: float, promised: float) -> tuple[TrailDraft, ...]:
    """The entry about an interval in which nobody looked; none where somebody did."""
    if known.looked is None or at - known.looked <= promised + SLACK:
        return ()
    fact = WatchFact(WatchEvent.UNWATCHED, at, since=known.looked)
    return (TrailDraft(TrailKind.WATCH, to_document(fact)),)


def _is_deleted(tracker: "Tracker", model: str, version: str | None) -> bool:
    if version is None:
        return False
    try:
        tracker.version(f"models:/{model}/{version}")
    except BadRequest:
        return True
    return False


def append_once(
    place: Office, model: str, kind: TrailKind, fact: object, *, by: str, reason: str = ""
) -> TrailEntry:
    """The same, unless the trail tells this very fact already: for whoever goes on where one was killed."""
    told, found = to_document(fact), require_model(place, model)
    for entry in place.store.trail(found.trail):
        if (entry.kind, entry.fact) == (kind, told):
            return entry
    return append(place, model, kind, fact, by=by, reason=reason)


def decisions_about(entries: Sequence[TrailEntry], version: "ModelVersion") -> Iterator[TrailEntry]:
    """The gate's decisions about this version, the newest first. MLflow gives the number of one that was
    deleted to another: an entry that tells no time of its version is about whichever has the number.
    """
    for entry in reversed(entries):
        told = entry.fact.get("version") if entry.kind is TrailKind.DECISION else None
        if not isinstance(told, Mapping) or told.get("uri") != version.uri:
            continue
        if version.created == 0 or told.get("created", 0) in {0, version.created}:
            yield entry


def require_model(place: Office, model: str) -> RegisteredModel:
    """The registered model. Raises BadRequest where there is none."""
    found = place.tracker.registered_model(model)
    if found is None:
        raise BadRequest(
            f"there is no registered model {model!r}",
            mend="name one as MLflow's page of models does; stockpot audit NAME tells of one that is gone",
        )
    return found


def watch_of(store: "Store", of: TrailOf) -> Watch | None:
    """What is known by this trail, if it has an entry."""
    return next((watch for watch in store.watches([of.model]) if watch.trail == of), None)


def begun(place: Office, model: RegisteredModel, at: float | None = None) -> TrailDraft:
    """The entry that begins a trail, or goes on with one of a model that seemed to be gone. `at`: when the
    model was looked at.
    """
    mlflow = mlflow_of(place.tracker)
    known, past = watch_of(place.store, model.trail), past_of(place.store.watches(), model, mlflow)
    if past is not None:
        other = place.tracker.registered_model(past.model)
        past = past if other is None or other.trail != past.trail else None
    fact = WatchFact(
        WatchEvent.BEGUN,
        place.store.clock() if at is None else at,
        since=known.looked if known else None,
        aliases=dict(model.aliases),
        mlflow=mlflow,
        other=past.model if past else None,
        continues=past.digest if past else None,
    )
    return TrailDraft(TrailKind.WATCH, to_document(fact))


def past_of(watches: Iterable[Watch], model: RegisteredModel, mlflow: str) -> Watch | None:
    """What the model was called before: a new name does not change the birth. The newest of several."""
    same = [one for one in watches if 0 < one.born == model.born and one.mlflow == mlflow]
    return max((one for one in same if one.model != model.name), key=lambda one: one.at, default=None)


def mlflow_of(tracker: "Tracker") -> str:
    """What tells this MLflow from others that share the store; empty where that is not to be seen."""
    return str(tracker.born() or "")


def made_by_us(tracker: "Tracker", model: str, version: str | None) -> bool | None:
    """Whether the version says that Stockpot made it; None where it is not there."""
    if version is not None:
        with suppress(BadRequest):
            return RECIPE in tracker.version(f"models:/{model}/{version}").tags
    return None


def anchor(place: Office, model: RegisteredModel) -> str:
    """Write the trail's newest digest to MLflow, where it can be compared. `model`: as found before the trail
    grew. Not over an anchor that is no entry's digest: that one tells of a rewritten history.

    Returns a sentence that tells why it could not be written; empty where it was.
    """
    try:
        known = watch_of(place.store, model.trail)
        if known is None or known.digest == model.anchor:
            return ""
        if model.anchor is None or model.anchor in anchors_of(place.store, model.trail):
            place.tracker.anchor_trail(model.name, known.digest)
            return ""
        fault = f"the tag holds {model.anchor}, which is no entry of it: stockpot audit {model.name} --verify"
    except StockpotError as error:
        fault = one_line(error.what)
    return f"the trail of {model.name} is not anchored in MLflow: {fault}"


def anchors_of(store: "Store", of: TrailOf) -> dict[Digest, int]:
    """The digests that may have been this trail's anchor, with the number of the entry: 0 for those of the
    trail that the model had under another name.
    """
    entries = store.trail(of)
    found = {entry.digest: entry.number for entry in entries}
    for entry in entries:
        if entry.kind is TrailKind.WATCH and entry.fact.get("other"):
            past = store.trail(TrailOf(entry.fact["other"], of.born))
            found |= {earlier.digest: 0 for earlier in past if earlier.digest not in found}
    return found


def too_busy(model: str) -> StoreError:
    """Where others were always first."""
    return StoreError(
        f"the trail of {model!r} was written by others {TRIES} times while one entry was tried",
        mend="run the same command again; stockpot audit tells who writes so much",
    )
