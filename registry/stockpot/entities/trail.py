"""What happened to a registered model: a chain of entries, each with the digest of the one before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from stockpot.entities.digest import Digest, digest_of_document

UNKNOWN = "unknown"
"""Who did it, where nobody is named: MLflow keeps no name with an alias."""


class TrailKind(StrEnum):
    """What an entry tells of."""

    WATCH = "watch"
    """That watching began, was interrupted, or that the model is gone: a `WatchFact`."""
    MOVE = "move"
    """An alias that moved: an `AliasMove`."""
    DECISION = "decision"
    """A gate's."""
    RECALL = "recall"
    """A recall, or its withdrawal."""


class Seen(StrEnum):
    """How a move came to be known."""

    PROMOTE = "promote"
    """Stockpot moved the alias."""
    POLL = "poll"
    WEBHOOK = "webhook"


class WatchEvent(StrEnum):
    """What became of the watching."""

    BEGUN = "begun"
    """What was before is not known."""
    UNWATCHED = "unwatched"
    """Nobody looked for longer than is promised."""
    GONE = "gone"
    """The model is not there any more: deleted, renamed, or not to be seen by whoever looks."""


@dataclass(frozen=True, slots=True)
class TrailOf:
    """A registered model from its birth to its end. MLflow has no name of its own: of two models of one name,
    in two MLflows or one after the other, the birth tells which one it is.
    """

    model: str
    born: int
    """Milliseconds since the epoch; 0 where MLflow does not tell."""

    @property
    def lease(self) -> str:
        """The name of the lease under which its aliases are moved."""
        return f"promotion {self.born} {self.model}"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model, as MLflow tells of it now."""

    name: str
    born: int
    """Milliseconds since the epoch; 0 where MLflow does not tell."""
    aliases: Mapping[str, str]
    """The version that each points at, by alias."""
    anchor: str | None = None
    """What its tag ``stockpot.trail`` holds: the newest digest of its trail."""

    @property
    def trail(self) -> TrailOf:
        """Whose trail it has."""
        return TrailOf(self.name, self.born)


@dataclass(frozen=True, slots=True)
class AliasMove:
    """An alias that points elsewhere than before."""

    alias: str
    before: str | None
    """The version that it left; None where it did not exist."""
    after: str | None
    """The version that it points at; None where it was removed."""
    seen: Seen
    unwatched_since: float | None = None
    """Where nobody had looked for longer than is promised: since when, in seconds since the epoch."""
    deleted: bool = False
    """Whether the version that it left is gone."""
    ours: bool | None = None
    """Whether the version that it points at says that Stockpot made it; None where there is none."""


@dataclass(frozen=True, slots=True)
class WatchFact:
    """What became of the watching of a model. Times are seconds since the epoch, by the store's clock."""

    event: WatchEvent
    until: float
    """When somebody looked."""
    since: float | None = None
    """When somebody had looked before; None where nobody had."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """As they were when watching began."""
    mlflow: str = ""
    """In which MLflow it began: only there may the model be found to be gone."""
    other: str | None = None
    """The model's other name, where it was renamed: before watching began, or after it was gone."""
    continues: Digest | None = None
    """The newest entry under that other name, where it is this one's past."""


@dataclass(frozen=True, slots=True)
class TrailDraft:
    """An entry before it has its place in the chain."""

    kind: TrailKind
    fact: Mapping[str, Any]
    """A JSON document: by `stockpot.documents.to_document`."""
    by: str = UNKNOWN
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """An entry of the trail. Nothing changes it."""

    model: str
    born: int
    number: int
    """1, 2, ..."""
    kind: TrailKind
    at: float
    """When it was written, by the store's clock, in seconds since the epoch."""
    by: str
    reason: str
    fact: Mapping[str, Any]
    previous: Digest | None
    """The digest of the entry before; None for the first."""
    digest: Digest
    """Of all else."""

    @classmethod
    def of(
        cls, of: TrailOf, draft: TrailDraft, after: "TrailEntry | Watch | None", at: float
    ) -> "TrailEntry":
        """The draft as the next entry after this one, or after the newest one that this watch knows."""
        number = 1 if after is None else after.number + 1
        previous = None if after is None else after.digest
        unnamed = cls(
            of.model,
            of.born,
            number,
            draft.kind,
            at,
            draft.by,
            draft.reason,
            dict(draft.fact),
            previous,
            Digest(""),
        )
        return replace(unnamed, digest=unnamed.computed)

    @property
    def trail(self) -> TrailOf:
        """Whose it is."""
        return TrailOf(self.model, self.born)

    @property
    def draft(self) -> TrailDraft:
        """What it was before it had its place."""
        return TrailDraft(self.kind, self.fact, self.by, self.reason)

    @property
    def computed(self) -> Digest:
        """The digest that its content has."""
        return digest_of_document(
            {
                "model": self.model,
                "born": self.born,
                "number": self.number,
                "kind": self.kind.value,
                "at": self.at,
                "by": self.by,
                "reason": self.reason,
                "fact": dict(self.fact),
                "previous": self.previous,
            }
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of a model by its trail: what the entries add up to, and when somebody looked last."""

    model: str
    born: int
    number: int
    """Of the newest entry, whose `digest` and time (`at`) follow."""
    digest: Digest
    at: float
    mlflow: str = ""
    """As in the fact that watching began."""
    looked: float | None = None
    """When somebody looked last, by the store's clock; None before that."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    gone: bool = False

    @property
    def trail(self) -> TrailOf:
        """Whose it is."""
        return TrailOf(self.model, self.born)

    @classmethod
    def after(cls, before: "Watch | None", entry: TrailEntry) -> "Watch":
        """What is known once this entry is there."""
        known = before or cls(entry.model, entry.born, entry.number, entry.digest, entry.at)
        now = replace(known, number=entry.number, digest=entry.digest, at=entry.at)
        if entry.kind is TrailKind.MOVE:
            alias, version = entry.fact["alias"], entry.fact["after"]
            others = {name: held for name, held in now.aliases.items() if name != alias}
            return replace(now, aliases=others if version is None else {**others, alias: version})
        if entry.kind is not TrailKind.WATCH:
            return now
        event, until = entry.fact["event"], entry.fact["until"]
        looked = until if now.looked is None else max(now.looked, until)
        if event == WatchEvent.BEGUN:
            fact = entry.fact
            return replace(
                now, looked=looked, aliases=dict(fact["aliases"]), mlflow=fact["mlflow"], gone=False
            )
        return replace(now, looked=looked, gone=event == WatchEvent.GONE)
