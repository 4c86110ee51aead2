"""The store's lineage, filled from what lies beside the versions: for a store that is new, or another's."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from stockpot.entities import KnownVersion, ModelVersion, Snapshot, tags
from stockpot.errors import RegistryConflict, StockpotError, Unreachable
from stockpot.ports import Records
from stockpot.prose import one_line
from stockpot.workflow.gathering.workrooms import scratch
from stockpot.workflow.lineage.versions import is_of, origin_of
from stockpot.workflow.publishing.standing import require_soup
from stockpot.workflow.trace import snapshot_of

if TYPE_CHECKING:
    from stockpot.ports import Watcher

STAGE = "compare versions"


class Told(StrEnum):
    """What became of a version."""

    KNOWN = "known"
    """The store knew it."""
    ADDED = "added"
    """Its weights are those that its stockpot.json tells of, and the store knows it now."""
    COPY = "copy"
    """It is what it was copied from."""
    REFUSED = "refused"
    """What lies beside it cannot be read, or its weights are others than it says."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A version that says it is a soup, and what became of it."""

    uri: str
    told: Told
    copy_of: str | None = None
    fault: str = ""
    mend: str = ""
    exit_code: int = 0


def rebuild_lineage(place: Records, watch: "Watcher") -> tuple[Rebuilt, ...]:
    """Read what lies beside every soup's version that the store does not know, and keep it.

    Each such version is downloaded, and its weights compared with what it says: tags may have been copied by
    hand. Versions that are refused end nothing. Raises TrackingError where MLflow does not answer.
    """
    versions = place.tracker.soup_versions()
    watch.start(STAGE, len(versions))
    found = []
    for rebuilt in _each(versions, place):
        found.append(rebuilt)
        watch.advance(STAGE)
    return tuple(found)


def _each(versions: tuple[ModelVersion, ...], place: Records) -> Iterator[Rebuilt]:
    for version in versions:
        origin = origin_of(version, place.tracker)
        if origin.uri != version.uri:
            yield Rebuilt(version.uri, Told.COPY, origin.uri)
        elif any(is_of(known, version) for known in place.store.known_versions(uri=version.uri)):
            yield Rebuilt(version.uri, Told.KNOWN)
        else:
            yield _added(version, place)


def _added(version: ModelVersion, place: Records) -> Rebuilt:
    try:
        _, snapshot = snapshot_of(version.uri, place.tracker)
        _require_its_own(version, snapshot)
        with scratch() as folder:
            require_soup(version, snapshot.checkpoint, place.tracker, folder / "theirs")
    except Unreachable:
        raise
    except StockpotError as error:
        fault = one_line("; ".join([error.what, *error.faults]))
        return Rebuilt(version.uri, Told.REFUSED, None, fault, error.mend, error.exit_code)
    asked = snapshot.report.request
    place.store.remember_version(
        KnownVersion(
            version.name,
            version.version,
            snapshot.recipe.digest,
            snapshot.checkpoint,
            version.run_id,
            version.model_id,
        ),
        snapshot.recipe,
        snapshot.ingredients,
        sweep=asked.sweep or asked.experiment,
    )
    return Rebuilt(version.uri, Told.ADDED)


def _require_its_own(version: ModelVersion, snapshot: Snapshot) -> None:
    """Raise RegistryConflict where the tags tell of another soup than what lies beside it."""
    tagged = version.tags.get(tags.RECIPE)
    if tagged != snapshot.recipe.digest:
        raise RegistryConflict(
            f"{version.uri} has the tag {tags.RECIPE} {tagged}, its files tell of {snapshot.recipe.digest}",
            mend=f"delete that tag, or set it to {snapshot.recipe.digest}",
        )
