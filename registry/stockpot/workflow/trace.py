"""From a registered version back to what it is made of, and to the same bytes again."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from stockpot.documents import from_document
from stockpot.entities import Checkpoint, ModelVersion, Snapshot, tags
from stockpot.errors import BadCheckpoint, BadRequest, NotArrived, RegistryConflict, StockpotError
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.publishing.publication import COEFFICIENTS, SNAPSHOT
from stockpot.workflow.publishing.standing import statistics_of

if TYPE_CHECKING:
    from stockpot.ports import Tracker


def snapshot_of(uri: str, tracker: "Tracker") -> tuple[ModelVersion, Snapshot]:
    """The version, and what was kept beside it. Raises BadRequest where Stockpot did not make it,
    RegistryConflict where what was kept cannot be read.
    """
    version = tracker.version(uri)
    if version.tags.get(tags.ROLE) != "soup" or version.model_id is None:
        raise BadRequest(
            f"{version.uri} is no soup: Stockpot did not register it",
            mend=f"name a version of a soup; if it is one that lost its tag, set {tags.ROLE}=soup again",
        )
    content = tracker.read_file(version.model_id, SNAPSHOT)
    try:
        return version, _checked(from_document(Snapshot, json.loads(content)))
    except (ValueError, RecursionError, StockpotError) as error:
        raise RegistryConflict(
            f"{SNAPSHOT} of {version.uri} is damaged: {error}",
            mend="put back what was uploaded, from a backup of the artifact store",
        ) from error


def _checked(snapshot: Snapshot) -> Snapshot:
    """The same. Raises ValueError where its parts do not belong together, as they do where we wrote them."""
    if tuple(c.checkpoint.digest for c in snapshot.ingredients) != snapshot.recipe.checkpoints:
        raise ValueError("its ingredients are not its recipe's")
    if all(row.recipe != snapshot.recipe for row in snapshot.report.rows):
        raise ValueError("its report does not tell of its recipe")
    return snapshot


def rebuild(uri: str, tracker: "Tracker", supply: Supply, out: Path) -> Checkpoint:
    """Average the ingredients again, from their runs' own artifacts, and write the soup's file.

    Raises RegistryConflict when the result has another digest than the registered soup: then nothing
    is written. An existing file is replaced only by the same request's bytes, at once and whole.
    Raises BadRequest where no file can be written, before anything is downloaded.
    """
    require_place(out)
    with rebuilt(uri, tracker, supply) as (_, _, built, file):
        _copy_whole(file, out)
    return built


@contextmanager
def rebuilt(
    uri: str, tracker: "Tracker", supply: Supply
) -> Iterator[tuple[ModelVersion, Snapshot, Checkpoint, Path]]:
    """The version, what was kept beside it, and its soup made again from its ingredients, with its file.

    Raises RegistryConflict when that has another digest than the registered soup.
    """
    version, snapshot = snapshot_of(uri, tracker)
    if (registered := version.tags.get(tags.CHECKPOINT)) != snapshot.checkpoint:
        raise RegistryConflict(
            f"{version.uri}: its tag {tags.CHECKPOINT} is {registered or 'missing'}, its {SNAPSHOT} tells of "
            f"{snapshot.checkpoint}",
            mend=f"where somebody changed the tag, set it to {snapshot.checkpoint} again; else put back what "
            "was uploaded, from a backup of the artifact store",
        )
    overlay = statistics_of(version, snapshot.recipe, tracker)
    supply.offer(snapshot.ingredients)
    if (coefficients := snapshot.recipe.coefficients) is not None and (model := version.model_id) is not None:
        supply.offer_content(coefficients, lambda: tracker.read_file(model, COEFFICIENTS))
    with ExitStack() as building:
        try:
            built, file = building.enter_context(supply.building(snapshot.recipe, overlay))
        except NotArrived:
            raise
        except BadCheckpoint as error:  # what it advises is for a sweep
            raise BadCheckpoint(
                f"{version.uri} cannot be made again: {error.what}",
                faults=error.faults,
                mend="restore that run and its files from a backup, or ask a machine whose cache still holds "
                "them; what is registered works without them",
            ) from error
        if built.digest != snapshot.checkpoint:
            raise RegistryConflict(
                f"{version.uri} rebuilds to {built.digest}, but {snapshot.checkpoint} was registered",
                mend="compare the versions of torch that `stockpot show` tells with those of this machine",
            )
        yield version, snapshot, built, file


def require_place(out: Path) -> None:
    """Raises BadRequest where no such file can be written."""
    with part_of(out) as part:
        if out.exists() and not out.is_file():
            kind = "a folder" if out.is_dir() else "no regular file"
            raise BadRequest(f"{out} is {kind}", mend="name the file to write: --out soup.safetensors")
        part.touch()


def _copy_whole(source: Path, target: Path) -> None:
    """Copy so that `target` is either untouched or complete."""
    with part_of(target) as part:
        shutil.copyfile(source, part)
        part.replace(target)


@contextmanager
def part_of(target: Path) -> Iterator[Path]:
    """A name beside the file, for what is not whole yet. Raises BadRequest where nothing can be written."""
    part = target.with_name(f".{uuid4().hex}")  # short: the target's own name may be as long as names can be
    try:
        yield part
    except OSError as error:
        raise BadRequest(
            f"{target} cannot be written: {error.strerror}", mend="name a file in a folder that you may write"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
