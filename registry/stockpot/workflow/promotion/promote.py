"""An alias moves to a version that passed the gate: one at a time, and from the one it was judged against."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from stockpot.documents import to_document
from stockpot.entities import Decision, ModelVersion, TrailEntry, TrailKind, tags
from stockpot.errors import BadRequest, Busy, StockpotError
from stockpot.prose import can_be_kept, minute, one_line
from stockpot.workflow.leases import Hold, holder, wait_for
from stockpot.workflow.promotion.gate import Gate
from stockpot.workflow.promotion.policies import Policy
from stockpot.workflow.publishing.page import Show, try_to_show, with_word_of_the_gate
from stockpot.workflow.trails import PROMISED, Office, append, move_alias, require_model

if TYPE_CHECKING:
    from stockpot.ports import Store, Tracker, Watcher

TRIES = 5
"""To judge a version while somebody keeps moving the alias by hand."""


@dataclass(frozen=True)
class Promotion:
    """What became of a promotion."""

    model: str
    alias: str
    version: str
    """The version's URI."""
    before: str | None
    """The URI of the version that had the alias; None where nobody had."""
    moved: bool
    decision: Decision | None
    """None where the version had the alias already: nothing was judged."""

    @property
    def told(self) -> str:
        """In a sentence."""
        if self.decision is None:
            return f"{self.version} is {self.alias} already: nothing was judged, and nothing moved"
        if not self.moved:
            return f"{self.alias} of {self.model} stays with {self.before or 'nobody'}"
        return f"{self.alias} of {self.model} moved from {self.before or 'nobody'} to {self.version}"

    def require_moved(self) -> None:
        """Raise GateFailed, with every failed check, where the version may not have the alias."""
        if self.decision is not None:
            self.decision.require_passed()


@dataclass(frozen=True)
class Mover:
    """Who asks for a move, and why. Raises BadRequest for words that say nothing."""

    by: str
    reason: str
    override: str = ""
    """Why it is to move although checks fail; empty where nobody wants that."""

    def __post_init__(self) -> None:
        words = {"--by": self.by, "--reason": self.reason}
        faults = [f"{name} is empty" for name, text in words.items() if not text.strip()]
        faults += [
            f"{name} holds a NUL or half a character, which no database takes"
            for name, text in {**words, "--override": self.override}.items()
            if not can_be_kept(text)
        ]
        if faults:
            raise BadRequest("; ".join(faults), mend="say who and why: --by NAME --reason TEXT")


@dataclass(frozen=True)
class Promoter:
    """Moves the alias of one registered model, as its policy says."""

    gate: Gate
    policy: Policy
    promised: float = PROMISED
    """Seconds within which somebody looks at the aliases."""
    show: Show = lambda _: None
    """Writes the page of a version of which there is news."""

    @property
    def tracker(self) -> "Tracker":
        """Where the versions are."""
        return self.gate.tracker

    def judge(self, uri: str) -> Decision:
        """What the gate says of a version: of the champion alone, as it is compared with no other. Moves
        nothing. Raises BadRequest for one that is not there.
        """
        version = self.tracker.version(uri)
        champion = champion_of(version.name, self.policy, self.tracker)
        other = champion if champion is None or champion.uri != version.uri else None
        return self.gate.judge(version, other, self.policy)

    def promote(
        self,
        uri: str,
        who: Mover,
        watch: "Watcher",
        is_meant: Callable[[Decision], bool] = lambda _: True,
    ) -> Promotion:
        """Judge a version, and move the alias to it where it may have that. Waits for another process that
        does so. Where the alias was moved by hand meanwhile, the version is judged again, against who has it
        now. `is_meant`: whether it may be decided so: a person has seen another decision, perhaps.

        Raises BadRequest for a version that is not there, Busy where the alias keeps moving, or where what is
        decided is not what is meant: then nothing is recorded, and nothing moves. Raises StoreError
        where another process took over.
        """
        named = self.tracker.version(uri)
        with alone(self.gate.store, named.name, watch) as hold:
            for _ in range(TRIES):
                version = self.tracker.version(named.uri)  # it may be another, or gone, since we waited
                champion = champion_of(version.name, self.policy, self.tracker)
                before = None if champion is None else champion.uri
                if before == version.uri:
                    return self._told(version, before, moved=False)
                decision = self.gate.judge(version, champion, self.policy, who.override)
                hold.renew()
                if not is_meant(decision):
                    raise Busy(
                        f"what was found of {version.uri} is another by now than what was shown",
                        mend="look at it again, and answer that",
                    )
                still = _is_still(version, self.tracker.version(version.uri))  # gone, or another by now
                still &= _is_still(champion, champion_of(version.name, self.policy, self.tracker))
                if still and self._is_settled(version, champion, decision, who):
                    self.show_anew(version, champion, watch=watch)
                    return self._told(version, before, decision, moved=decision.lets_pass)
                watch.say(f"{self.policy.alias}, or {version.uri}, is another meanwhile: judging again")
        raise Busy(
            f"{self.policy.alias} of {named.name} was moved {TRIES} times while {named.uri} was judged",
            mend="find out who moves it, then run the same command again",
        )

    def show_anew(self, *judged: ModelVersion | None, watch: "Watcher") -> None:
        """Write the pages of those that are soups of ours, and no copies: they tell what the gate said, and
        who is the champion.
        """
        for version in judged:
            if version and version.tags.get(tags.ROLE) == "soup" and version.copy_of is None:
                try_to_show(self.show, version, watch)

    def _is_settled(
        self, version: ModelVersion, champion: ModelVersion | None, decision: Decision, who: Mover
    ) -> bool:
        """Write the decision to the trail, then move the alias if it may; whether all is done. The decision
        comes first: whoever is killed between the two leaves a move that a look finds, and who wanted it.
        """
        record(self.gate, decision, who.by, who.reason)
        if not decision.lets_pass:
            return True
        moved = move_alias(
            self.gate,
            version.name,
            self.policy.alias,
            version.version,
            expected=None if champion is None else champion.version,
            by=who.by,
            reason=who.reason,
            promised=self.promised,
        )
        return moved is not None

    def _told(
        self, version: ModelVersion, before: str | None, decision: Decision | None = None, *, moved: bool
    ) -> Promotion:
        return Promotion(version.name, self.policy.alias, version.uri, before, moved, decision)


def record(place: Office, decision: Decision, by: str, reason: str) -> TrailEntry:
    """Write a decision to the trail of its model, then to the version's page. One that let it pass and stands
    last came to nothing: whoever decides the same again goes on from there.
    """
    fact = {**to_document(decision), "verdict": decision.verdict.value}
    entry = None
    for last in place.store.trail(require_model(place, decision.model).trail)[-1:]:
        told = last.kind, dict(last.fact), last.by, last.reason
        if decision.lets_pass and told == (TrailKind.DECISION, fact, one_line(by), one_line(reason)):
            entry = last
    entry = entry or append(place, decision.model, TrailKind.DECISION, fact, by=by, reason=reason)
    _show(place, decision, entry.at)
    return entry


def shown(decision: Decision, at: float) -> str:
    """A decision in a sentence, for the version's page; `at`: when, in seconds since the epoch. It opens with
    the version, since MLflow's Promote button copies tags.
    """
    beside = f", beside {decision.champion.uri}" if decision.champion else ""
    faults = "; ".join(f"{check.name}: {check.told}" for check in decision.failed)
    why = f", since {decision.override}" if decision.override else ""
    told = f"{decision.version.uri} {decision.verdict} for {decision.alias}{beside}, {minute(at)}{why}"
    return one_line(f"{told}. {faults}" if faults else told)


def _show(place: Office, decision: Decision, at: float) -> None:
    """Tag the version, and say it in the description of a soup. The trail holds the decision: where MLflow
    refuses, that is told, and no more.
    """
    uri, told = decision.version.uri, shown(decision, at)
    try:
        version = place.tracker.version(uri)
        place.tracker.tag_version(version, tags.GATE, told)
        if tags.RECIPE in version.tags:
            place.tracker.edit_description(version, partial(with_word_of_the_gate, told=told))
    except StockpotError as error:
        place.watch.say(f"the page of {uri} does not tell what the gate said: {one_line(error.what)}")


def require_alias(alias: str | None, policy: Policy, model: str) -> None:
    """Raises BadRequest where another alias is asked for than the one that the policy guards."""
    if alias not in {None, policy.alias}:
        raise BadRequest(
            f"the policy of {model} guards the alias {policy.alias}, not {alias}",
            mend=f"--to {policy.alias}, or name the other one in the policy: alias = {alias!r}",
        )


def champion_of(model: str, policy: Policy, tracker: "Tracker") -> ModelVersion | None:
    """The version that has the policy's alias."""
    try:
        return tracker.version(f"models:/{model}@{policy.alias}")
    except BadRequest:
        return None


def _is_still(before: ModelVersion | None, now: ModelVersion | None) -> bool:
    """Whether it is the same version. One may be deleted, and another one get its number."""

    def name(version: ModelVersion | None) -> object:
        return version and (version.uri, version.model_id, version.run_id, version.created)

    return name(before) == name(now)


@contextmanager
def alone(store: "Store", model: str, watch: "Watcher") -> Iterator[Hold]:
    """Nobody else moves this model's aliases through the gate meanwhile; waits for whoever does."""
    hold = Hold(store, f"gate {model}", f"the promotion of {model}")
    if held := hold.attempt():
        watch.say(f"another process promotes a version of {model}: waiting for {holder(held)}")
        wait_for(hold)
    with hold.kept_alive():
        yield hold
