"""What a registered version holds: its weights, believed only as far as their digest goes."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from stockpot.entities import (
    Check,
    CheckOutcome,
    Checkpoint,
    Digest,
    ModelVersion,
    Recipe,
    Score,
    WeightsFormat,
    WeightsSource,
    tags,
)
from stockpot.entities.weights_names import is_adapter
from stockpot.errors import (
    BadCheckpoint,
    BadRequest,
    BadTask,
    NotArrived,
    OutOfDeviceMemory,
    RegistryConflict,
    StockpotError,
)
from stockpot.prose import listed
from stockpot.workflow.gathering.only_weights import SOUP_FILE
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.gathering.version_weights import offer_version
from stockpot.workflow.publishing.transfer import EXPORTED, differences

if TYPE_CHECKING:
    from stockpot.ports import Store, Tracker

RUNS = "python_model.pkl"
"""What a flavor unpickles, and runs, in place of any weights."""
OF_THE_VERSION = (BadCheckpoint, BadRequest, BadTask, RegistryConflict)
"""What is wrong with a version or a policy, and is told as a check that failed. Other faults of MLflow say
nothing of a version: a connection that broke, a disk that is full.
"""
OF_THE_MACHINE = (NotArrived, OutOfDeviceMemory)
"""Among those, what says nothing of it either: it ends the work."""


def reason(error: StockpotError) -> str:
    """What is wrong, in one clause."""
    return "; ".join([error.what, *error.faults])


@dataclass(frozen=True)
class Contents:
    """A version, and the weights that were downloaded of it."""

    version: ModelVersion
    path: str = ""
    """Of the weights in the version."""
    sha256: str = ""
    """Of that file, in hexadecimal digits."""
    checkpoint: Checkpoint | None = None
    """None where they could not be read."""
    fault: str = ""
    """Why."""

    @property
    def digest(self) -> Digest | None:
        """Of the checkpoint."""
        return None if self.checkpoint is None else self.checkpoint.digest

    def recipes(self, store: "Store") -> tuple[Digest, ...]:
        """Under which names scores of these very weights may be remembered: the soup's, where the store knows
        that its recipe makes them, and that of the checkpoint alone.
        """
        if self.checkpoint is None:
            return ()
        own = Recipe.mean([self.checkpoint.digest]).digest
        told = Digest(self.version.tags.get(tags.RECIPE, ""))
        row = store.registration(self.version.tags.get(tags.MODEL, self.version.name), told)
        makes_it = row is not None and row.checkpoint == self.checkpoint.digest
        return (told, own) if makes_it else (own,)

    def remembered(self, store: "Store", protocol: Digest) -> tuple[Digest, Score] | None:
        """The score that is known, and under which name."""
        for recipe in self.recipes(store):
            if (score := store.score(recipe, protocol)) is not None:
                return recipe, score
        return None


def contents_of(version: ModelVersion, tracker: "Tracker", supply: Supply) -> Contents:
    """Download the version's weights, whoever made them, and make them available by digest.

    Raises NotArrived, and TrackingError where MLflow fails: whatever is wrong with the version is told.
    """
    try:
        held = offer_version(version, tracker, supply)
    except OF_THE_MACHINE:
        raise
    except OF_THE_VERSION as error:
        return Contents(version, fault=reason(error))
    return Contents(version, held.source.path, held.source_sha256, held.checkpoint)


def check_bytes(held: Contents, tracker: "Tracker", supply: Supply, files: Digest | None = None) -> Check:
    """Whether the version holds what its tag `stockpot.checkpoint` tells of, in all that is served of it.
    Tags are copied by hand, and by MLflow's Promote button, onto whatever somebody likes. `files`: of what
    was measured by its pyfunc: then what is served was measured, whatever it holds.
    """
    told = held.version.tags.get(tags.CHECKPOINT)
    if files is not None and told is None:
        return Check("bytes", CheckOutcome.NOT_APPLICABLE, f"nobody told their digest; its files are {files}")
    if held.checkpoint is None:
        return Check("bytes", CheckOutcome.FAILED, f"its weights cannot be read: {held.fault}")
    found = f"sha256:{held.sha256}" if held.path == SOUP_FILE else "missing"
    if told is not None and found != told:
        return Check(
            "bytes",
            CheckOutcome.FAILED,
            f"its {SOUP_FILE} is {found}, but its tag {tags.CHECKPOINT} tells of {told}: tags were copied "
            "onto other content, or the content was replaced",
        )
    if differing := list(_strays(held, held.checkpoint, tracker, supply)):
        return Check(
            "bytes", CheckOutcome.FAILED, f"what is served of it are other weights: {listed(differing)}"
        )
    if told is None:
        why = f"nobody told their digest; they are {held.checkpoint.digest}"
        return Check("bytes", CheckOutcome.NOT_APPLICABLE, why)
    return Check("bytes", CheckOutcome.PASSED, f"they are {told}, as its tag tells")


def _strays(held: Contents, own: Checkpoint, tracker: "Tracker", supply: Supply) -> Iterator[str]:
    """Where MLflow would load other weights than those that were read, or what cannot be told without running
    it. Beside a canonical file nothing else is expected: there it is whatever the version holds, whether its
    card names it or not.
    """
    try:
        loaded = tracker.loaded(held.version)
        yield from (path for path in loaded if PurePosixPath(path).name == RUNS)
        sources = tracker.version_weights(held.version)
        if held.path != SOUP_FILE:
            sources = tuple(source for source in sources if source.path != held.path and _is(source, loaded))
        yield from (source.path for source in sources if source.format is WeightsFormat.PICKLE)
        exported = [source for source in sources if source.path in EXPORTED and held.path == SOUP_FILE]
        with supply.building(Recipe.mean([own.digest])) as (_, file):
            served = file.parent / "served"
            for source in exported:
                place = served / PurePosixPath(source.path).parent
                place.mkdir(parents=True, exist_ok=True)
                tracker.fetch(source, place)
            yield from differences(served, file)
        known = {SOUP_FILE, *(source.path for source in exported)}
        for source in sources:
            if source.path in known or source.format is WeightsFormat.PICKLE:
                continue
            if is_adapter(source):
                if _is(source, loaded):
                    yield f"{source.path}, an adapter that is laid over them"
                continue  # one that MLflow does not load is for other tools
            read = supply.read(source).checkpoint
            if read is None or read.digest != own.digest:
                yield source.path
    except OF_THE_MACHINE:
        raise
    except OF_THE_VERSION as error:
        yield reason(error)


def _is(source: WeightsSource, loaded: Collection[str]) -> bool:
    """Whether this file, or a part of it, is among these."""
    return source.path in loaded or any(source.beside(part).path in loaded for part in source.parts)
