"""A recall: what holds a run, a checkpoint or data is marked, kept out of soups, and searched anew."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stockpot.entities import (
    Digest,
    ModelVersion,
    PublishedSoup,
    Recall,
    SoupOutcome,
    SoupRequest,
    Standing,
    tags,
)
from stockpot.errors import BadRequest, StockpotError, Unexpected
from stockpot.ports import Records
from stockpot.prose import one_line
from stockpot.workflow.gathering.recalled import WITHDRAWN, recalled
from stockpot.workflow.lineage.rebuilding import Told, rebuild_lineage
from stockpot.workflow.lineage.versions import Holder, holders
from stockpot.workflow.lineage.words import checkpoints_of
from stockpot.workflow.trace import snapshot_of

if TYPE_CHECKING:
    from stockpot.ports import Watcher


@dataclass(frozen=True, slots=True)
class Reached:
    """A version that holds what is recalled."""

    uri: str
    standing: Standing
    checkpoint: Digest
    aliases: tuple[str, ...] = ()
    copy_of: str | None = None
    done: bool = False
    """Whether its tag says what is to be said."""
    fault: str = ""
    exit_code: int = 0

    @property
    def is_there(self) -> bool:
        """Whether MLflow has it still."""
        return self.standing is Standing.THERE


@dataclass(frozen=True, slots=True)
class Replacement:
    """A search that is made anew, in place of soups that hold what is recalled."""

    replaces: tuple[str, ...]
    """The versions."""
    request: SoupRequest
    """The one that had found them."""
    found: tuple[str, ...] = ()
    """The versions that it ended in now."""
    passes: float = 0.0
    """The forward work, in full passes over a split: what was remembered took none."""
    done: bool = False
    fault: str = ""
    mend: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Recalling:
    """A recall, or its withdrawal: what it reaches, and what became of that."""

    word: Recall
    checkpoints: tuple[Digest, ...]
    """That are recalled themselves, as far as they are known."""
    versions: tuple[Reached, ...]
    replacements: tuple[Replacement, ...] = ()
    notes: tuple[str, ...] = ()
    done: bool = False


@dataclass(frozen=True)
class Plan:
    """What a recall would do."""

    told: Recalling
    holders: tuple[Holder, ...]
    """Of the versions, in their order."""


Answer = Callable[[SoupRequest], SoupOutcome]
"""Makes the soups of a request."""
Record = Callable[[str, "Recalling"], None]
"""Tells the trail of a registered model of a recall that reaches its versions, once."""


def require_reason(reason: str) -> None:
    """Raises BadRequest for one that tells nothing, or that versions would be misread by."""
    if not reason.strip():
        raise BadRequest(
            "a recall needs its reason", mend="give --reason TEXT: people read it beside versions"
        )
    if reason.startswith(WITHDRAWN):
        raise BadRequest(
            f"a reason that begins with {WITHDRAWN!r} would say on versions that nothing is recalled",
            mend="begin it otherwise; what was recalled is taken back by --withdraw",
        )


def plan_recall(word: Recall, place: Records, watch: "Watcher") -> Plan:
    """What a person's word would reach. Keeps nothing of it.

    Versions that the store does not know are read first, as `rebuild_lineage` does, since a recall has to
    reach them too. Raises BadRequest for what does not exist, or is not recalled and shall be withdrawn.
    """
    checkpoints_of(word, place)  # a slip is told before anything is downloaded
    refused = [one for one in rebuild_lineage(place, watch) if one.told is Told.REFUSED]
    checkpoints, notes = checkpoints_of(word, place)
    notes += [f"what {one.uri} holds is not known: {one.fault}" for one in refused]
    soups = {blend.soup for blend in place.store.blends(checkpoints, down=True)}
    found = holders({*checkpoints, *soups}, place)
    proven = [holder for holder in found if holder.standing is not Standing.UNPROVEN]
    if not proven:
        notes.append(f"{word.told} is in no version")
    reached = tuple(map(_reached, proven))
    searches = () if word.withdrawn else tuple(_searches(proven, place))
    return Plan(Recalling(word, checkpoints, reached, searches, tuple(notes)), tuple(proven))


def _reached(holder: Holder) -> Reached:
    aliases = () if holder.version is None else holder.version.aliases
    return Reached(holder.uri, holder.standing, holder.checkpoint, aliases, holder.copy_of)


def _searches(found: Sequence[Holder], place: Records) -> Iterator[Replacement]:
    """The requests that ended in these versions, each once: those of soups of soups last."""
    requests: list[tuple[float, SoupRequest, list[str]]] = []
    for holder in found:
        if holder.version is None or holder.copy_of is not None:
            continue
        at, request = _request_of(holder, place)
        if request is None:
            continue
        same = next((uris for _, known, uris in requests if known == request), None)
        if same is None:
            requests.append((at, request, [holder.uri]))
        else:
            same.append(holder.uri)
    for _, request, uris in sorted(requests, key=lambda one: one[0]):
        yield Replacement(tuple(uris), request)


def _request_of(holder: Holder, place: Records) -> tuple[float, SoupRequest | None]:
    """The newest request that ended in this version, and when; by the store, else by what lies beside it. For
    the model by its name of today: a person may have given it another one since.
    """
    version = holder.version
    if version is None or holder.recipe is None:
        return 0.0, None
    models = {version.name, version.tags.get(tags.MODEL, version.name)}
    filed = [one for one in place.store.reports(holder.recipe) if one.report.request.model in models]
    if filed:
        at, request = filed[-1].created_at, filed[-1].report.request
    else:
        try:
            at, request = 0.0, snapshot_of(version.uri, place.tracker)[1].report.request
        except StockpotError:
            return 0.0, None
    return at, replace(request.question, model=version.name)


def carry_out(plan: Plan, place: Records, answer: Answer, record: Record, watch: "Watcher") -> Recalling:
    """Keep the word, mark the versions, and search anew what held it. Moves no alias.

    The word is kept first: whatever fails after it is told, and ends nothing. The same recall again goes on
    from there.
    """
    told = plan.told
    word = place.store.append_recall(told.word)
    now = recalled(place.store, place.tracker)
    versions = []
    for holder, reached in zip(plan.holders, told.versions, strict=True):
        if holder.version is None:
            versions.append(replace(reached, done=True))
            continue
        stays = now.checkpoints.get(holder.checkpoint)
        value = f"{WITHDRAWN}{word.reason}" if stays is None else stays.reason
        versions.append(_marked(holder, reached, value, place))
    told = replace(told, word=word, versions=tuple(versions))
    notes = [*told.notes, *_recorded(told, record)]
    replacements = []
    for search in told.replacements:
        watch.say(f"searching anew, without it, what {', '.join(search.replaces)} was")
        replacements.append(_searched(search, place, answer))
    return replace(told, replacements=tuple(replacements), notes=tuple(notes), done=True)


def _recorded(told: Recalling, record: Record) -> Iterator[str]:
    """A note for each trail that could not be written."""
    there = [one.uri for one in told.versions if one.is_there]
    for model in sorted({uri.removeprefix("models:/").rpartition("/")[0] for uri in there}):
        try:
            record(model, told)
        except StockpotError as error:
            yield f"the trail of {model} does not tell of it: {_line(error)}"


def _marked(holder: Holder, reached: Reached, value: str, place: Records) -> Reached:
    version = holder.version
    if version is None or version.tags.get(tags.RECALLED) == value:
        return replace(reached, done=True)
    try:
        place.tracker.tag_version(version, tags.RECALLED, value)
    except StockpotError as error:  # deleted in between, or not to be written
        return replace(reached, fault=_line(error), exit_code=error.exit_code)
    return replace(reached, done=True)


def _searched(search: Replacement, place: Records, answer: Answer) -> Replacement:
    try:
        outcome = answer(search.request)
        for old in search.replaces:
            for new in _in_its_place(old, outcome.registered, place):
                _tell_what_it_replaces(new, old, place)
    except Exception as error:  # noqa: BLE001 - the other searches are none the worse for it
        told = error if isinstance(error, StockpotError) else Unexpected.of(error)
        return replace(search, fault=_line(told), mend=told.mend, exit_code=told.exit_code)
    uris = tuple(soup.uri for soup in outcome.registered)
    return replace(search, found=uris, passes=outcome.passes, done=True)


def _in_its_place(old: str, soups: Collection[PublishedSoup], place: Records) -> Collection[PublishedSoup]:
    """Those that one of the same methods found, where there are such; else all."""
    told = place.tracker.version(old).tags.get(tags.METHODS, "")
    same = [soup for soup in soups if set(soup.methods) & set(told.split(","))]
    return same or soups


def _tell_what_it_replaces(new: PublishedSoup, old: str, place: Records) -> None:
    version = place.tracker.version(new.uri)
    before = replaced_by(version)
    if old not in (*before, new.uri):
        place.tracker.tag_version(version, tags.REPLACES, json.dumps([*before, old]))


def replaced_by(version: ModelVersion) -> tuple[str, ...]:
    """The recalled versions that this one was searched in the place of, by its tag."""
    try:
        told = json.loads(version.tags.get(tags.REPLACES, "[]"))
    except ValueError:  # people may have written anything there
        return ()
    return tuple(uri for uri in told if isinstance(uri, str)) if isinstance(told, list) else ()


def _line(error: StockpotError) -> str:
    return one_line("; ".join([error.what, *error.faults]))
