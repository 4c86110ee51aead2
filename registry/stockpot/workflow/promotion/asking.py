"""What people ask for in MLflow, where nobody can type a command: found by the trail, and answered once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.entities import Decision, Seen, TrailEntry, TrailKind, WatchEvent, tags
from stockpot.entities.trail import UNKNOWN
from stockpot.errors import BadRequest, Busy
from stockpot.prose import one_line
from stockpot.workflow.promotion.policies import Policies, Policy
from stockpot.workflow.promotion.promote import Mover, Promoter, Promotion, record
from stockpot.workflow.promotion.trails import Office

if TYPE_CHECKING:
    from stockpot.entities import ModelVersion

APPROVED = "approved"
"""Of the tag `stockpot.approval`: MLflow's own word for it."""


@dataclass(frozen=True)
class Ask:
    """A version that somebody wants the gate to look at."""

    uri: str
    why: str
    """How that was said, in words for the trail."""
    before: str | None = None
    """Of a champion that was moved by hand: the version that it left, by its number."""
    by_hand: bool = False
    """Whether the alias has moved already: then the version is judged, and nothing moves."""


@dataclass(frozen=True)
class Answered:
    """What became of it."""

    ask: Ask
    promotion: Promotion | None = None
    decision: Decision | None = None
    """Of a champion that was moved by hand."""
    fault: str = ""

    @property
    def told(self) -> str:
        """In a sentence."""
        if self.promotion is not None:
            return f"{self.ask.uri}, {self.ask.why}: {self.promotion.told}"
        verdict = (
            "" if self.decision is None else f"the gate says {self.decision.verdict}; nothing was undone"
        )
        return f"{self.ask.uri}, {self.ask.why}: {verdict or self.fault}"


def asks_of(place: Office, model: str, policy: Policy) -> Iterator[Ask]:
    """What is asked for of one model, and was not answered: by the alias for candidates, by the tag
    `stockpot.approval` on a version of ours, and by the champion's alias that was moved by hand.

    An alias asks once for each time that it was moved to a version, a tag once: so two versions that are as
    good as each other do not take turns. A look at the aliases comes before.
    """
    found = place.tracker.registered_model(model)
    if found is None:
        return
    entries = place.store.trail(found.trail)
    champion, candidate = found.aliases.get(policy.alias), found.aliases.get(policy.candidate)
    wanted = {} if candidate is None else {candidate: f"alias {policy.candidate} in MLflow"}
    for version in _approved(place, model):
        if not _judged(entries, version.uri, after=0):
            wanted.setdefault(version.version, f"tag {tags.APPROVAL} in MLflow")
    for number, why in wanted.items():
        uri = f"models:/{model}/{number}"
        asked = _moved(entries, policy.candidate, number)
        if number != champion and not _judged(entries, uri, after=asked.number if asked else 0):
            yield Ask(uri, why)
    moved = _moved(entries, policy.alias, champion)
    if moved is None or champion is None or moved.fact.get("seen") in {None, Seen.PROMOTE}:
        return
    uri = f"models:/{model}/{champion}"
    if not _judged(entries, uri, after=moved.number):
        yield Ask(uri, f"alias {policy.alias} moved by hand", moved.fact["before"], by_hand=True)


def answer(place: Office, policies: Policies, promoter: Callable[[Policy], Promoter]) -> tuple[Answered, ...]:
    """Judge what is asked for, by the policies' models, and move the alias to what passes. What was moved by
    hand is judged against whom it replaced, recorded, and never undone. A fault of one stops no other.

    Raises Unreachable, StoreError and what is wrong with the machine.
    """
    answered: list[Answered] = []
    for model, policy in policies.models.items():
        for ask in list(asks_of(place, model, policy)):
            try:
                answered.append(_answer(ask, promoter(policy), place))
            except (BadRequest, Busy) as error:  # a version that was deleted meanwhile
                answered.append(Answered(ask, fault=one_line(error.what)))
    return tuple(answered)


def _answer(ask: Ask, promoter: Promoter, place: Office) -> Answered:
    if not ask.by_hand:
        return Answered(ask, promoter.promote(ask.uri, Mover(UNKNOWN, ask.why), place.watch))
    version = place.tracker.version(ask.uri)
    before: ModelVersion | None = None
    with suppress(BadRequest):  # it may be deleted since
        if ask.before is not None:
            before = place.tracker.version(f"models:/{version.name}/{ask.before}")
    decision = promoter.gate.judge(version, before, promoter.policy)
    record(place, decision, UNKNOWN, ask.why)
    return Answered(ask, decision=decision)


def _approved(place: Office, model: str) -> "list[ModelVersion]":
    versions = [version for version in place.tracker.soup_versions() if version.name == model]
    return [version for version in versions if version.tags.get(tags.APPROVAL) == APPROVED]


def _judged(entries: Sequence[TrailEntry], uri: str, *, after: int) -> bool:
    """Whether the trail has a decision about this version behind that entry."""
    return any(
        entry.kind is TrailKind.DECISION and entry.number > after and entry.fact["version"]["uri"] == uri
        for entry in entries
    )


def _moved(entries: Sequence[TrailEntry], alias: str, version: str | None) -> TrailEntry | None:
    """The last entry by which the alias came to this version, or was found there."""

    def came(entry: TrailEntry) -> bool:
        if entry.kind is TrailKind.MOVE:
            return bool(entry.fact["alias"] == alias and entry.fact["after"] == version)
        begun = entry.kind is TrailKind.WATCH and entry.fact["event"] == WatchEvent.BEGUN
        return begun and entry.fact["aliases"].get(alias) == version

    return next((entry for entry in reversed(entries) if version is not None and came(entry)), None)
