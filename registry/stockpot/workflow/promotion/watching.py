"""Aliases are looked at every few minutes: MLflow keeps no history of them, and its webhooks may be lost."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from stockpot.documents import to_document
from stockpot.entities import (
    RegisteredModel,
    Seen,
    TrailDraft,
    TrailEntry,
    TrailKind,
    Watch,
    WatchEvent,
    WatchFact,
)
from stockpot.errors import BadRequest, NotPermitted
from stockpot.prose import counted, one_line
from stockpot.workflow.trails import (
    PROMISED,
    TRIES,
    Office,
    anchor,
    begun,
    drafts_since,
    mlflow_of,
    past_of,
    too_busy,
    unwatched,
    watch_of,
)

ASTRAY = 3600.0
"""Seconds by which the store's clock may have been set back; what lies further ahead is no later look."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the aliases has found."""

    models: int
    """How many models are watched and there."""
    entries: tuple[TrailEntry, ...]
    """What was written to their trails."""
    notes: tuple[str, ...]


def look(
    place: Office, *, models: Collection[str] = (), promised: float = PROMISED, seen: Seen = Seen.POLL
) -> Look:
    """Compare all models' aliases with what was seen last, and write what moved to their trails.

    Watched are the models that the store has registered to, those that have a trail, and `models`.

    Args:
        place: The adapters.
        models: Registered models' names; those that are not there are left out.
        promised: Seconds within which somebody looks; what is longer is written down as unwatched.
        seen: What made us look.

    Safe to kill, and to run twice at once: what one process has written, the other one finds. Raises what
    MLflow and the store raise.
    """
    return _Look(place, promised, seen).taken(models)


class _Look:
    """One look at everything."""

    def __init__(self, place: Office, promised: float, seen: Seen) -> None:
        self._place = place
        self._store = place.store
        self._promised = promised
        self._seen = seen
        self._at = self._store.clock()  # before the question: what moves from here on, a later look finds
        self._models = place.tracker.registered_models()
        self._notes: list[str] = []

    def taken(self, models: Collection[str]) -> Look:
        """Go through all that is watched."""
        known = {watch.trail: watch for watch in self._store.watches()}
        there = {model.trail for model in self._models}
        absent = [watch for of, watch in known.items() if of not in there]
        names = {row.model for row in self._store.registrations()} | {*models} | {of.model for of in known}
        written = [entry for watch in absent if not watch.gone for entry in self._end(watch)]
        watched, looked = 0, []
        for model in self._models:
            before = known.get(model.trail)
            if model.name not in names and not any(self._is_past(watch, model) for watch in absent):
                continue
            watched += 1
            try:
                entries = self._follow(model, before)
            except (BadRequest, NotPermitted) as error:  # of this model; the others are none the worse for it
                self._notes.append(f"{model.name}: {one_line(error.what)}")
                continue
            if entries is not None:
                written += entries
                looked.append(model.trail)
        self._store.keep_look(self._at, looked)
        return Look(watched, tuple(written), tuple(self._notes))

    def _is_past(self, watch: Watch, model: RegisteredModel) -> bool:
        return watch.born == model.born and past_of([watch], model, self._mlflow) is not None

    def _follow(self, model: RegisteredModel, known: Watch | None) -> tuple[TrailEntry, ...] | None:
        """Write what became of a model that is here; None where somebody else looks at it right now."""
        for _ in range(TRIES):
            if known is not None and self._is_stale(known):
                return None
            drafts = self._drafts(model, known)
            if any(draft.kind is TrailKind.MOVE for draft in drafts) and self._is_moving(model):
                return None
            after = known.digest if known else None
            entries = self._store.append_trail(model.trail, drafts, after=after) if drafts else ()
            if entries is not None:
                if (drafts or model.anchor != after) and (fault := anchor(self._place, model)):
                    self._notes.append(fault)
                return entries
            known = watch_of(self._store, model.trail)
        self._notes.append(too_busy(model.name).what)
        return None

    def _is_stale(self, known: Watch) -> bool:
        """Whether somebody has looked or written since we asked MLflow: our answer may be the older one."""
        ahead = max(known.at, known.looked or 0.0) - self._at
        return 0 <= ahead < ASTRAY

    def _is_moving(self, model: RegisteredModel) -> bool:
        """Whether a process of ours moves an alias right now: it writes so itself, with who and why."""
        if self._store.holder(model.trail.lease) is None:
            return False
        self._notes.append(f"{model.name}: an alias is being moved; the next look tells whether it was")
        return True

    def _drafts(self, model: RegisteredModel, known: Watch | None) -> tuple[TrailDraft, ...]:
        if known is None or known.gone:
            return (begun(self._place, model, self._at),)
        return drafts_since(self._place.tracker, model, known, self._seen, self._at, self._promised)

    def _end(self, known: Watch) -> tuple[TrailEntry, ...]:
        """Write that a model is gone, where it was here: one store may serve several MLflows."""
        if known.mlflow != self._mlflow or not known.mlflow or self._is_stale(known):
            return ()
        still = self._place.tracker.registered_model(known.model)  # a list in pages may have missed it
        if still is not None and still.trail == known.trail:
            return ()
        other = next((m.name for m in self._models if 0 < m.born == known.born), None)
        fact = WatchFact(WatchEvent.GONE, self._at, since=known.looked, other=other)
        late = unwatched(known, self._at, self._promised)
        drafts = [*late, TrailDraft(TrailKind.WATCH, to_document(fact))]
        entries = self._store.append_trail(known.trail, drafts, after=known.digest)
        told = f"renamed to {other}" if other else "deleted, or not to be seen by this user"
        self._notes.append(f"{known.model} is gone: {told}")
        return entries or ()  # where somebody else was first, it is written

    @cached_property
    def _mlflow(self) -> str:
        return mlflow_of(self._place.tracker)


def sentence(found: Look) -> str:
    """In a sentence."""
    moves = sum(entry.kind is TrailKind.MOVE for entry in found.entries)
    return f"{counted(found.models, 'model')} watched, {counted(moves, 'alias', 'aliases')} moved"
