"""The versions that hold checkpoints: those that the store knows, and what MLflow tells of them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stockpot.entities import Digest, KnownVersion, LineageVersion, ModelVersion, Standing, tags
from stockpot.errors import BadRequest
from stockpot.ports import Records
from stockpot.workflow.gathering.recalled import WITHDRAWN

if TYPE_CHECKING:
    from stockpot.ports import Tracker


@dataclass(frozen=True)
class Holder:
    """A version that holds a checkpoint, or says so."""

    checkpoint: Digest
    uri: str
    standing: Standing
    recipe: Digest | None
    version: ModelVersion | None = None
    """As MLflow has it; None where it does not."""
    copy_of: str | None = None

    @property
    def told(self) -> LineageVersion:
        """As a lineage tells of it."""
        if self.version is None:
            return LineageVersion(self.uri, self.standing, self.recipe, copy_of=self.copy_of)
        tag = self.version.tags.get(tags.RECALLED, WITHDRAWN)
        recalled = None if tag.startswith(WITHDRAWN) else tag
        return LineageVersion(
            self.uri, self.standing, self.recipe, self.version.aliases, self.copy_of, recalled
        )


def is_of(known: KnownVersion, version: ModelVersion) -> bool:
    """Whether this is the version that is known: MLflow gives the number of a deleted one to the next."""
    return (known.uri, known.run_id) == (version.uri, version.run_id)


def origin_of(version: ModelVersion, tracker: "Tracker") -> ModelVersion:
    """The version that this is a copy of, through copies of copies; itself where it is none, or where that is
    gone. A copy has its origin's run.
    """
    seen = {version.uri}
    while version.copy_of is not None and version.copy_of not in seen:
        seen.add(version.copy_of)
        try:
            above = tracker.version(version.copy_of)
        except BadRequest:
            break
        if above.run_id != version.run_id:
            break
        version = above
    return version


def known_holders(checkpoints: Collection[Digest], place: Records) -> list[Holder]:
    """The same without asking MLflow."""
    known = place.store.known_versions(checkpoints)
    return [Holder(one.checkpoint, one.uri, Standing.UNKNOWN, one.recipe) for one in known]


def holders(checkpoints: Collection[Digest], place: Records) -> list[Holder]:
    """All versions that hold these checkpoints: those that the store knows, gone ones too; copies that MLflow
    made of them; and those whose tags claim it, which nobody has compared. Raises TrackingError.
    """
    known = place.store.known_versions(checkpoints)
    aliases = {model.name: model.aliases for model in place.tracker.registered_models()}
    there = {
        version.uri: replace(version, aliases=_pointing_at(version, aliases.get(version.name, {})))
        for version in place.tracker.soup_versions()
    }
    found = [*_as_they_stand(known, there, place.tracker)]
    told = {holder.uri for holder in found if holder.version is not None}
    by_place = {(one.uri, one.run_id): one for one in known}
    for version in there.values():
        if version.uri in told:
            continue
        recipe = Digest(version.tags[tags.RECIPE])
        if (origin := _known_origin(version, by_place, there)) is not None:
            found.append(
                Holder(origin.checkpoint, version.uri, Standing.THERE, recipe, version, version.copy_of)
            )
        elif (claimed := Digest(version.tags.get(tags.CHECKPOINT, ""))) in checkpoints:
            found.append(Holder(claimed, version.uri, Standing.UNPROVEN, recipe, version, version.copy_of))
    return found


def _pointing_at(version: ModelVersion, aliases: Mapping[str, str]) -> tuple[str, ...]:
    """Its aliases: lists of versions tell none."""
    return tuple(sorted(alias for alias, number in aliases.items() if number == version.version))


def _as_they_stand(
    known: Collection[KnownVersion], there: Mapping[str, ModelVersion], tracker: "Tracker"
) -> Iterator[Holder]:
    lost = []
    for one in known:
        version = there.get(one.uri)
        if version is None or not is_of(one, version):
            version = _without_its_tag(one, tracker)
        if version is None:
            lost.append(one)
        else:
            yield Holder(one.checkpoint, one.uri, Standing.THERE, one.recipe, version, version.copy_of)
    ids = {one.run_id for one in lost if one.run_id is not None}
    of_this_mlflow = {run.run_id for run, _ in tracker.runs_named(ids)} if ids else set()
    for one in lost:
        standing = Standing.DELETED if one.run_id in of_this_mlflow else Standing.GONE
        yield Holder(one.checkpoint, one.uri, standing, one.recipe)


def _without_its_tag(known: KnownVersion, tracker: "Tracker") -> ModelVersion | None:
    """The version, where somebody took the tag away by which it is listed."""
    try:
        version = tracker.version(known.uri)
    except BadRequest:
        return None
    return version if is_of(known, version) else None


def _known_origin(
    version: ModelVersion,
    known: Mapping[tuple[str, str | None], KnownVersion],
    there: Mapping[str, ModelVersion],
) -> KnownVersion | None:
    """What this is a copy of, through copies of copies, where that is known. Its own tags are not asked."""
    seen: set[str] = set()
    above: ModelVersion | None = version
    while above is not None and above.copy_of is not None and above.copy_of not in seen:
        seen.add(above.copy_of)
        if (found := known.get((above.copy_of, version.run_id))) is not None:
            return found
        above = there.get(above.copy_of)
    return None
