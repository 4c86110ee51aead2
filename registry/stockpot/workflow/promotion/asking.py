"""What people ask for in MLflow, where nobody can type a command: found by the trail, and answered once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from stockpot.entities import (
    Ask,
    Decision,
    FailedAsk,
    GateVerdict,
    RegisteredModel,
    Seen,
    TrailEntry,
    TrailKind,
    WatchEvent,
    tags,
)
from stockpot.entities.trail import UNKNOWN
from stockpot.errors import BadRequest, Busy, NotArrived, OutOfDeviceMemory, TrackingError, Unreachable
from stockpot.prose import counted, one_line
from stockpot.workflow.leases import Hold, holder
from stockpot.workflow.promotion.attempts import Attempts
from stockpot.workflow.promotion.policies import Policies, Policy
from stockpot.workflow.promotion.promote import Mover, Promoter, Promotion, record
from stockpot.workflow.trails import Office, decisions_about, watch_of

if TYPE_CHECKING:
    from stockpot.entities import ModelVersion

APPROVED = "approved"
"""Of the tag `stockpot.approval`: MLflow's own word for it."""
FAULTS_OF_ONE = (BadRequest, Busy, NotArrived, OutOfDeviceMemory, TrackingError)
"""A version that was deleted meanwhile, a download that broke off, an alias that may not be moved, weights
that need a larger device. None of them is an answer: what was asked for is asked for still."""


@dataclass(frozen=True)
class Answered:
    """What became of it."""

    ask: Ask
    promotion: Promotion | None = None
    decision: Decision | None = None
    """Of a champion that was moved by hand."""
    fault: str = ""
    failed: FailedAsk | None = None
    """What is kept of the attempts, where it is tried again after a pause."""
    waits: bool = False
    """Whether that pause was not over: nothing was tried."""

    @property
    def told(self) -> str:
        """In a sentence."""
        if self.failed is not None:
            return self.failed.told
        what = self.fault if self.promotion is None else self.promotion.told
        if self.decision is not None:
            what = f"the gate says {self.decision.verdict}; nothing was undone"
        return f"{self.ask.uri}, {self.ask.why}: {what}"


def sentence(answered: Sequence[Answered]) -> str:
    """What became of all, in a sentence."""
    waiting = sum(one.waits for one in answered)
    faults = sum(bool(one.fault) for one in answered) - waiting
    told = [f"{counted(len(answered) - faults - waiting, 'version')} judged"]
    told += [f"{counted(faults, 'version')} could not be, as the log tells"] if faults else []
    told += [f"{counted(waiting, 'version')} will be tried again later"] if waiting else []
    return "; ".join(told)


def asks_of(
    place: Office, found: RegisteredModel, policy: Policy, approved: "Sequence[ModelVersion]"
) -> tuple[Ask, ...] | None:
    """What is asked for of one model, and was not answered: by the alias for candidates, by the tag
    `stockpot.approval` on a version, whoever made that, and by the champion's alias that was moved by hand.
    `approved`: the versions with that tag, of all models.

    An alias asks once for each time that it was moved to a version, a tag once: so two versions that are as
    good as each other do not take turns. A look at the aliases comes before. None where an alias was moved
    since that look: the next one finds it, and then it is told when.
    """
    entries, known = place.store.trail(found.trail), watch_of(place.store, found.trail)
    champion, candidate = found.aliases.get(policy.alias), found.aliases.get(policy.candidate)
    seen = known.aliases if known else {}
    if (seen.get(policy.alias), seen.get(policy.candidate)) != (champion, candidate):
        return None
    return (*_wanted(place, found, policy, entries, approved), *_by_hand(place, found, policy, entries))


def _wanted(
    place: Office,
    found: RegisteredModel,
    policy: Policy,
    entries: Sequence[TrailEntry],
    approved: "Sequence[ModelVersion]",
) -> Iterator[Ask]:
    """By the alias for candidates, and by the tag."""
    champion, candidate = found.aliases.get(policy.alias), found.aliases.get(policy.candidate)
    wanted: dict[str, tuple[str, str]] = {}  # by the version's number: why, and the ask's name
    asked = _moved(entries, policy.candidate, candidate)
    held = _version(place, found.name, candidate)
    if candidate and asked and held and not _answered(entries, policy, held, asked.number):
        wanted[candidate] = f"alias {policy.candidate} in MLflow", f"{asked.digest} {held.created}"
    for version in approved:
        if version.name == found.name and not _answered(entries, policy, version, after=0):
            name = f"{found.born} {version.uri} {version.created}"
            wanted.setdefault(version.version, (f"tag {tags.APPROVAL} in MLflow", name))
    for number, (why, name) in wanted.items():
        if number != champion:
            yield Ask(f"models:/{found.name}/{number}", why, name=name)


def _by_hand(
    place: Office, found: RegisteredModel, policy: Policy, entries: Sequence[TrailEntry]
) -> Iterator[Ask]:
    """By the champion's alias, where that was moved by hand."""
    champion = found.aliases.get(policy.alias)
    moved = _moved(entries, policy.alias, champion)
    if moved is not None and moved.fact.get("seen") not in {None, Seen.PROMOTE}:
        held = _version(place, found.name, champion)
        if held is not None and _judged(entries, held, after=moved.number) is None:
            why, name = f"alias {policy.alias} moved by hand", f"{moved.digest} {held.created}"
            yield Ask(held.uri, why, moved.fact["before"], by_hand=True, name=name)


def _version(place: Office, model: str, number: str | None) -> "ModelVersion | None":
    """None where it was deleted since."""
    if number is not None:
        with suppress(BadRequest):
            return place.tracker.version(f"models:/{model}/{number}")
    return None


def is_open(place: Office, model: str, policy: Policy, name: str) -> bool:
    """Whether what is asked for under this name was answered by nobody yet. Looks at the trail alone."""
    found = place.tracker.registered_model(model)
    asks = asks_of(place, found, policy, _approved(place)) if found else None
    return any(ask.name == name for ask in asks or ())


def _approved(place: Office) -> "Sequence[ModelVersion]":
    return place.tracker.versions_tagged(tags.APPROVAL, APPROVED)


def answer(
    place: Office,
    policies: Policies,
    promoter: Callable[[Policy], Promoter],
    ask_person: Callable[[Ask], str] | None = None,
) -> tuple[Answered, ...]:
    """Judge what is asked for, by the policies' models, and move the alias to what passes. What was moved by
    hand is judged against whom it replaced, recorded, and never undone. A fault of one stops no other. A
    model that another process answers for right now is left to that one. What failed is tried again after a
    pause that grows, by whichever look comes then; what is asked for anew, at once. `ask_person`: where a
    policy wants a person's word, told of each ask as long as it is open, and tells where it waits; without it
    those asks stay.

    Raises Unreachable, StoreError and what is wrong with the machine.
    """
    answered: list[Answered] = []
    approved = _approved(place)
    for model, policy in policies.models.items():
        hold = Hold(place.store, f"answers {model}", f"what is asked for of {model}")
        if held := hold.attempt():
            place.watch.say(f"what is asked for of {model} is answered by {holder(held)}")
            continue
        with hold.kept_alive():
            found = place.tracker.registered_model(model)
            if found is None:
                continue
            asks = asks_of(place, found, policy, approved)
            attempts = Attempts(place.store, found.trail, policy)
            if asks is not None:
                attempts.forget_all_but(asks)
            for ask in asks or ():
                try:
                    if policy.confirm and not ask.by_hand:
                        where = ask_person(ask) if ask_person else "Prefect, where the deployment `gate` asks"
                        place.watch.say(f"{ask.uri}, {ask.why}: waits for a person's word in {where}")
                        continue
                    answered.append(_tried(ask, attempts, partial(promoter, policy), place))
                except Unreachable:  # nor would it answer for the others
                    raise
                except FAULTS_OF_ONE as error:
                    answered.append(Answered(ask, fault=one_line(error.what), failed=attempts.failed(ask)))
    return tuple(answered)


def _tried(ask: Ask, attempts: Attempts, promoter: Callable[[], Promoter], place: Office) -> Answered:
    """Unless it failed too short a time ago: to look at a version is to download it."""
    if (failed := attempts.waits(ask)) is not None:
        return Answered(ask, fault=failed.why_not, failed=failed, waits=True)
    with attempts.one(ask):
        return _answer(ask, promoter(), place)


def _answer(ask: Ask, promoter: Promoter, place: Office) -> Answered:
    if not ask.by_hand:
        return Answered(ask, promoter.promote(ask.uri, Mover(UNKNOWN, ask.why), place.watch))
    version = place.tracker.version(ask.uri)
    before = _version(place, version.name, ask.before)
    decision = promoter.gate.judge(version, before, promoter.policy)
    record(place, decision, UNKNOWN, ask.why)
    promoter.show_anew(version, before, watch=place.watch)
    return Answered(ask, decision=decision)


def _judged(entries: Sequence[TrailEntry], version: "ModelVersion", *, after: int) -> TrailEntry | None:
    """The last decision about this version behind that entry."""
    return next((entry for entry in decisions_about(entries, version) if entry.number > after), None)


def _answered(entries: Sequence[TrailEntry], policy: Policy, version: "ModelVersion", after: int) -> bool:
    """Whether a version was judged behind that entry. Where it passed and the alias has not moved since,
    whoever judged it was stopped before he could move it.
    """
    last = _judged(entries, version, after=after)
    if last is None or last.fact.get("verdict") == GateVerdict.FAILED:
        return last is not None
    later = entries[last.number :]
    return any(entry.kind is TrailKind.MOVE and entry.fact["alias"] == policy.alias for entry in later)


def _moved(entries: Sequence[TrailEntry], alias: str, version: str | None) -> TrailEntry | None:
    """The last entry by which the alias came to this version, or was found there."""

    def came(entry: TrailEntry) -> bool:
        if entry.kind is TrailKind.MOVE:
            return bool(entry.fact["alias"] == alias and entry.fact["after"] == version)
        begun = entry.kind is TrailKind.WATCH and entry.fact["event"] == WatchEvent.BEGUN
        return begun and entry.fact["aliases"].get(alias) == version

    return next((entry for entry in reversed(entries) if version is not None and came(entry)), None)
