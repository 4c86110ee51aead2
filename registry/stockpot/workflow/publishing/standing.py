"""Where a soup stands in the registry before a request registers it."""

from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from stockpot.entities import (
    Digest,
    ModelVersion,
    OverlayRule,
    Recipe,
    Registration,
    RegistrationState,
    digest_of_bytes,
    digest_of_file,
    tags,
)
from stockpot.errors import BadRequest, RegistryConflict
from stockpot.soup.overlay import Overlay
from stockpot.workflow.gathering.only_weights import SOUP_FILE
from stockpot.workflow.publishing.publication import STATISTICS

if TYPE_CHECKING:
    from stockpot.ports import Tracker


def is_registered_as(known: Registration, version: ModelVersion) -> bool:
    """Whether the store remembers that this very version was registered for the soup."""
    same = (known.version, known.run_id) == (version.version, version.run_id)
    return known.state is RegistrationState.REGISTERED and same


def renamed(known: Registration | None, tracker: "Tracker") -> ModelVersion | None:
    """The version that was registered so, where a person gave its model another name since."""
    if known is None or known.run_id is None:
        return None
    for version in tracker.versions_of(known.run_id):
        same = is_registered_as(known, version) and version.model_id == known.model_id
        if same and version.name != known.model and version.copy_of is None:
            return version
    return None


def standing(
    model: str,
    recipe: Digest,
    known: Registration | None,
    experiments: Iterable[str],
    tracker: "Tracker",
) -> tuple[ModelVersion | None, str]:
    """The soup's version in MLflow, and why it counts as withdrawn by a person; empty where it does not.

    `known`: what the store remembers. Other stores note a registration on the soup's run, which is in one of
    these experiments.
    """
    version = tracker.reconcile(model, recipe)
    if version is None:
        before = _registered_before(model, recipe, known, experiments, tracker)
        # Another store may have registered it, and noted that, between the two looks.
        version = tracker.reconcile(model, recipe) if before else None
        if before and version is None:
            if now := renamed(known, tracker):
                return None, (
                    f"it was {before}, and is {now.uri} now, since its model was renamed. Ask for it with "
                    f"--model {quote(now.name)}; or, to register it anew under the old name: --again"
                )
            if _lost_its_tag(before, tracker):
                return None, (
                    f"it is {before}, which lost its tag {tags.RECIPE}. Set that to {recipe} again; or, to "
                    "register it anew: --again"
                )
            return None, (
                f"it was {before}, and that version was deleted, or its model was deleted or renamed. "
                "To register it anew, also where that was in another MLflow: --again"
            )
    return version, "" if version is None else without_model(version, tracker)


def without_model(version: ModelVersion, tracker: "Tracker") -> str:
    """Why a version that is there counts as withdrawn; empty where it does not."""
    if tracker.has_model(version):
        return ""
    return (
        f"{version.uri} is there, but its LoggedModel {version.model_id} was deleted. "
        "To register it anew: delete that version, then --again"
    )


def require_soup(version: ModelVersion, soup: Digest, tracker: "Tracker", folder: Path) -> None:
    """Make sure that the version holds the soup, and not its tags alone: its file is downloaded and hashed.

    Raises RegistryConflict where it does not.
    """
    tagged = version.tags.get(tags.CHECKPOINT)
    faults = []
    if tagged != soup:
        faults.append(f"its tag {tags.CHECKPOINT} is {tagged or 'missing'}, the soup is {soup}")
    held = _held_by(version, tracker, folder)
    if held != soup:
        faults.append(f"its {SOUP_FILE} is {held or 'missing'}, the soup is {soup}")
    if faults:
        raise RegistryConflict(
            f"{version.uri} carries the tag {tags.RECIPE} of a soup, and does not hold that soup",
            faults=faults,
            mend=f"delete that version, or its tag {tags.RECIPE}, then run the same request again",
        )


def statistics_of(version: ModelVersion, recipe: Recipe, tracker: "Tracker") -> Overlay | None:
    """What was laid over this very soup, from the version: no two machines estimate the same bits. None where
    its recipe has no rule for it, or the version holds none.

    Raises RegistryConflict where it is not what the version's tag tells of.
    """
    if not isinstance(recipe.overlay, OverlayRule) or version.model_id is None:
        return None
    try:
        content = tracker.read_file(version.model_id, STATISTICS)
    except BadRequest:
        return None
    if (told := version.tags.get(tags.OVERLAY)) != digest_of_bytes(content):
        raise RegistryConflict(
            f"{STATISTICS} of {version.uri} is {digest_of_bytes(content)}, its tag {tags.OVERLAY} is "
            f"{told or 'missing'}",
            mend=f"where somebody changed the tag, set it to {digest_of_bytes(content)} again; else put back "
            "what was uploaded, from a backup of the artifact store",
        )
    return Overlay(content)


def copied_from(version: ModelVersion, model: str) -> str:
    """One sentence on a version that MLflow's Promote button copied, or whose model was renamed."""
    origin = version.tags.get(tags.MODEL, model)
    return (
        "" if origin == model else f"It was registered as a version of {origin}, and copied or renamed since."
    )


def _held_by(version: ModelVersion, tracker: "Tracker", folder: Path) -> Digest | None:
    try:
        source = next((s for s in tracker.version_weights(version) if s.path == SOUP_FILE), None)
        if source is None:
            return None
        folder.mkdir()
        return digest_of_file(tracker.fetch(source, folder))
    except BadRequest:
        return None


def _lost_its_tag(uri: str, tracker: "Tracker") -> bool:
    """Whether that version is there: MLflow gives the number of a deleted one to the next."""
    try:
        return tags.RECIPE not in tracker.version(uri).tags
    except BadRequest:
        return False


def _registered_before(
    model: str,
    recipe: Digest,
    known: Registration | None,
    experiments: Iterable[str],
    tracker: "Tracker",
) -> str:
    """The URI of the version that this soup had in this registered model; empty where nobody knows of one."""
    if known is not None and known.state is RegistrationState.REGISTERED and tracker.may_have_made(known):
        return f"models:/{model}/{known.version}"
    noted = tracker.noted_versions(recipe, experiments)
    return next((uri for uri in noted if uri.rpartition("/")[0] == f"models:/{model}"), "")
