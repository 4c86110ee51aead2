"""What a run, a checkpoint or a version is made of, and what was made of it.

The store knows, so that deleted runs and versions are told of. MLflow tells what is still there, and what is
a copy. A version that the store does not know is read from what lies beside it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.entities import (
    Blend,
    Digest,
    Found,
    Lineage,
    LineageNode,
    LineageRun,
    LineageVersion,
    ModelVersion,
    Run,
    Snapshot,
    Standing,
    SweepSelector,
    tags,
)
from stockpot.errors import BadRequest, TrackingError, UnknownSweep
from stockpot.ports import Records
from stockpot.prose import one_line
from stockpot.workflow.lineage.versions import holders, known_holders, origin_of
from stockpot.workflow.trace import snapshot_of

if TYPE_CHECKING:
    from stockpot.ports import Tracker

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
FORMS = "name a run by its id, a version by models:/NAME/VERSION or models:/NAME@ALIAS, weights by sha256:..."
REBUILD = "stockpot lineage --rebuild"


@dataclass(frozen=True)
class Subject:
    """What somebody asks about: checkpoints, and what is known of them beside the store."""

    name: str
    checkpoints: tuple[Digest, ...]
    blends: tuple[Blend, ...] = ()
    found: tuple[Found, ...] = ()
    notes: tuple[str, ...] = ()


def lineage(name: str, place: Records) -> Lineage:
    """What this run, version or checkpoint is made of, and what was made of it.

    Raises BadRequest for a name of nothing, and TrackingError where only MLflow could tell what it names.
    """
    subject = subject_of(name, place)
    store = place.store
    beyond = {blend.ingredient for blend in subject.blends}
    up = {*subject.blends, *store.blends({*subject.checkpoints, *beyond}, down=False)}
    down = store.blends(subject.checkpoints, down=True)
    met = {digest for blend in (*up, *down) for digest in (blend.soup, blend.ingredient)}
    checkpoints = [*subject.checkpoints, *sorted(met - {*subject.checkpoints})]
    found = dict.fromkeys((*subject.found, *store.found(checkpoints)))
    versions, notes = _versions(checkpoints, place)
    runs, more = _runs(found, place.tracker)
    nodes = (LineageNode(one, tuple(versions.get(one, ())), tuple(runs.get(one, ()))) for one in checkpoints)
    return Lineage(
        subject.name,
        subject.checkpoints,
        tuple(nodes),
        tuple(sorted(up, key=_order)),
        tuple(sorted(down, key=_order)),
        tuple(dict.fromkeys((*subject.notes, *notes, *more))),
    )


def _order(blend: Blend) -> tuple[Digest, Digest, int]:
    return blend.soup, blend.recipe, blend.position


def subject_of(name: str, place: Records) -> Subject:
    """The checkpoints that a person means. Raises as `lineage` does."""
    if DIGEST.fullmatch(name):
        return Subject(name, (Digest(name),))
    if name.startswith("models:/"):
        return _of_version(name, place)
    logged = place.store.logged_by([name])
    if logged:
        return Subject(name, logged)
    try:
        run = place.tracker.parent(SweepSelector(parent_run_id=name))
    except UnknownSweep as error:
        raise BadRequest(f"{name!r} is neither in the store nor a run that MLflow has", mend=FORMS) from error
    told = f"run {run.name} ({name})" if run else name
    return Subject(name, (), notes=(f"{told} is in nothing that this store knows of; {REBUILD} asks MLflow",))


def _of_version(uri: str, place: Records) -> Subject:
    known = place.store.known_versions(uri=uri)
    try:
        version = place.tracker.version(uri)
    except (BadRequest, TrackingError):
        if not known:  # nobody else can tell
            raise
        return Subject(uri, tuple(sorted({one.checkpoint for one in known})))
    origin = origin_of(version, place.tracker)
    held = [one for one in place.store.known_versions(uri=origin.uri) if one.run_id == origin.run_id]
    held = [one for one in held if one.recipe == origin.tags.get(tags.RECIPE, one.recipe)]
    if held:
        return Subject(uri, tuple(sorted({one.checkpoint for one in held})))
    if origin.tags.get(tags.ROLE) == "soup":
        return _of_snapshot(uri, *snapshot_of(origin.uri, place.tracker))
    logged = place.store.logged_by([origin.run_id or ""])
    if not logged:
        raise BadRequest(
            f"{uri} is no soup, and nothing of its run was in one",
            mend="ask for a version that Stockpot registered, or for a run of a sweep",
        )
    note = f"{uri} is no soup: told is of the checkpoints of its run, {origin.run_id}"
    return Subject(uri, logged, notes=(note,))


def _of_snapshot(uri: str, version: ModelVersion, snapshot: Snapshot) -> Subject:
    request = snapshot.report.request
    found = (
        Found(c.checkpoint.digest, c.run.run_id, c.source.path, request.sweep or request.experiment)
        for c in snapshot.ingredients
        if c.run.run_id
    )
    note = (
        f"the store does not know {version.uri}: this is what lies beside it. {REBUILD} compares its weights"
    )
    return Subject(uri, (snapshot.checkpoint,), blends_of(snapshot), tuple(found), (note,))


def blends_of(snapshot: Snapshot) -> tuple[Blend, ...]:
    """The soup's own ingredients."""
    recipe = snapshot.recipe
    return tuple(
        Blend(snapshot.checkpoint, recipe.digest, position, one.checkpoint, one.factor)
        for position, one in enumerate(recipe.ingredients)
        if one.checkpoint != snapshot.checkpoint
    )


def _versions(
    checkpoints: Sequence[Digest], place: Records
) -> tuple[Mapping[Digest, Sequence[LineageVersion]], Sequence[str]]:
    """The versions by checkpoint, and notes."""
    notes = []
    try:
        found = holders(frozenset(checkpoints), place)
    except TrackingError as error:
        found = known_holders(checkpoints, place)
        notes.append(f"which versions are still there is not known: {one_line(error.what)}")
    if any(holder.standing is Standing.UNPROVEN for holder in found):
        notes.append(f"what is {Standing.UNPROVEN} is claimed by tags alone: {REBUILD} compares the weights")
    told: dict[Digest, list[LineageVersion]] = defaultdict(list)
    for holder in found:
        told[holder.checkpoint].append(holder.told)
    return told, notes


def _runs(
    found: Iterable[Found], tracker: "Tracker"
) -> tuple[Mapping[Digest, Sequence[LineageRun]], Sequence[str]]:
    """The runs by checkpoint, as they stand in MLflow."""
    places = [*found]
    ids = {place.run_id for place in places}
    notes, there = [], dict[str, tuple[Run, bool]]()
    absent = Standing.GONE
    try:
        there = {run.run_id: (run, deleted) for run, deleted in tracker.runs_named(ids)}
    except TrackingError as error:
        absent = Standing.UNKNOWN
        notes.append(f"which runs are still there is not known: {one_line(error.what)}")
    told: dict[Digest, list[LineageRun]] = defaultdict(list)
    for place in places:
        run, deleted = there.get(place.run_id, (None, False))
        standing = absent if run is None else Standing.DELETED if deleted else Standing.THERE
        told[place.checkpoint].append(
            LineageRun(place.run_id, standing, run.name if run else None, place.sweep, place.path)
        )
    return told, notes
