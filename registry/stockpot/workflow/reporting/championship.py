"""A version beside the champion: what the gate said on record, and what is different."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields

from stockpot.documents import from_document
from stockpot.entities import (
    Candidate,
    Decision,
    Digest,
    ModelVersion,
    Snapshot,
    SoupReport,
    TrailEntry,
    tags,
)
from stockpot.errors import BadRequest, StockpotError
from stockpot.ports import Records
from stockpot.workflow.trace import snapshot_of
from stockpot.workflow.trails import decisions_about


@dataclass(frozen=True, slots=True)
class Judgement:
    """A decision of the gate about the version, as it is on record."""

    decision: Decision
    at: float
    """Seconds since the epoch."""
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A thing that is not the same in two versions."""

    name: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class ScoreBeside:
    """Two versions' scores on one split, each as it was reported."""

    split: str
    before: float
    now: float
    same_question: bool
    """Whether both were scored on the same data by the same task: else the two say nothing of each other."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different since another version."""

    since: str
    """Its URI."""
    added: tuple[Candidate, ...]
    removed: tuple[Candidate, ...]
    kept: int
    scores: tuple[ScoreBeside, ...]
    request: tuple[Difference, ...]
    """Fields of the two requests, the sweep's among them."""


@dataclass(frozen=True, slots=True)
class Championship:
    """The version beside the one that people rely on."""

    alias: str
    """Who has it is the champion."""
    champion: str | None
    """The champion's URI; None where nobody has the alias."""
    reigns: bool
    """Whether that is this version."""
    judgement: Judgement | None = None
    """The newest about this version; None where there is none on record."""
    changes: Changes | None = None
    """Since the champion; of that one itself, since the one that it was compared with."""
    no_changes: str = ""
    """Why they cannot be told; empty where they are, or there is nobody to compare with."""

    @property
    def is_current(self) -> bool:
        """Whether the judgement is about this version and the present champion."""
        found = self.judgement
        if found is None:
            return False
        against = found.decision.champion
        return self.reigns or (against.uri if against else None) == self.champion


def championship(
    version: ModelVersion, snapshot: Snapshot, report: SoupReport, alias: str, place: Records
) -> Championship:
    """From the trail, and from what lies beside the two versions. `report`: the version's own."""
    model = place.tracker.registered_model(version.name)
    number = model.aliases.get(alias) if model else None
    champion = None if number is None else f"models:/{version.name}/{number}"
    reigns = champion == version.uri
    judgement = _newest(version, place.store.trail(model.trail)) if model else None
    before = judgement.decision.champion if judgement and reigns else None
    other = (before.uri if before else None) if reigns else champion
    changes, why = (None, "") if other is None else _since(other, snapshot, report, place)
    return Championship(alias, champion, reigns, judgement, changes, why)


def _newest(version: ModelVersion, entries: Sequence[TrailEntry]) -> Judgement | None:
    """The gate's last word about these very weights: others may have lain there."""
    for entry in decisions_about(entries, version):
        fact = {name: value for name, value in entry.fact.items() if name != "verdict"}
        with suppress(StockpotError):  # in another program's words
            decision = from_document(Decision, fact)
            if decision.version.checkpoint == version.tags.get(tags.CHECKPOINT):
                return Judgement(decision, entry.at, entry.by, entry.reason)
    return None


def _since(other: str, snapshot: Snapshot, report: SoupReport, place: Records) -> tuple[Changes | None, str]:
    try:
        _, theirs = snapshot_of(other, place.tracker)
    except BadRequest:
        return None, f"{other} is no soup of Stockpot's, or is gone: nothing is known of how it was made"
    except StockpotError as error:
        return None, error.what
    return changes(other, theirs, snapshot, report), ""


def changes(since: str, theirs: Snapshot, ours: Snapshot, report: SoupReport) -> Changes:
    """What is different in `ours`, whose report is `report`."""
    before, now = _by_checkpoint(theirs), _by_checkpoint(ours)
    return Changes(
        since,
        added=tuple(one for digest, one in now.items() if digest not in before),
        removed=tuple(one for digest, one in before.items() if digest not in now),
        kept=len(before.keys() & now.keys()),
        scores=_scores(theirs, ours, report),
        request=tuple(_differences(theirs.report, report)),
    )


def _by_checkpoint(snapshot: Snapshot) -> dict[Digest, Candidate]:
    return {one.checkpoint.digest: one for one in snapshot.ingredients}


def _scores(theirs: Snapshot, ours: Snapshot, report: SoupReport) -> tuple[ScoreBeside, ...]:
    before = next(row.scores for row in theirs.report.rows if row.recipe == theirs.recipe)
    now = next(row.scores for row in report.rows if row.recipe == ours.recipe)
    questions = [
        {one.split: one.question.digest for one in told.protocols} for told in (theirs.report, report)
    ]
    return tuple(
        ScoreBeside(
            split,
            before[split],
            value,
            split in questions[0] and questions[0][split] == questions[1].get(split),
        )
        for split, value in now.items()
        if split in before
    )


def _differences(before: SoupReport, now: SoupReport) -> list[Difference]:
    pairs = (
        (one.name, getattr(before.request, one.name), getattr(now.request, one.name))
        for one in fields(now.request)
    )
    return [Difference(name, _told(a), _told(b)) for name, a, b in pairs if a != b]


def _told(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={text}" for name, text in value.items()) or "none"
    return str(value)
