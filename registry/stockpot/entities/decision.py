"""What the gate found of a version, and on what it rests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from shlex import quote

from stockpot.entities.digest import Digest
from stockpot.entities.evaluation import Comparison
from stockpot.errors import GateFailed


class CheckOutcome(StrEnum):
    """What came of one check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


class GateVerdict(StrEnum):
    """What the gate says of a version."""

    PASSED = "passed"
    FAILED = "failed"
    OVERRIDDEN = "overridden"
    """It failed, and a person lets it pass, with a reason."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the gate looked at."""

    name: str
    outcome: CheckOutcome
    told: str
    """Why, in one sentence."""


@dataclass(frozen=True, slots=True)
class GateScore:
    """The score of a version on one split: an evaluation that the store remembers under these two digests."""

    split: str
    recipe: Digest
    """The soup's; of other weights the recipe of that one checkpoint."""
    protocol: Digest
    value: float


@dataclass(frozen=True, slots=True)
class JudgedVersion:
    """A version as the gate found it."""

    uri: str
    checkpoint: Digest | None
    """Of the weights that were downloaded; None where they could not be read."""
    size: int | None = None
    """Bytes of these weights."""
    scores: tuple[GateScore, ...] = ()
    """By split, the primary one first."""
    created: int = 0
    """When MLflow made it, in milliseconds since the epoch; 0 where nobody told. The number of one that was
    deleted is given again."""
    files: Digest | None = None
    """Of all its files, where it was measured as MLflow serves it, by its pyfunc, and not by its weights."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A model's signature in MLflow: canonical JSON of its inputs and outputs; None where it tells none."""

    inputs: str | None
    outputs: str | None


@dataclass(frozen=True)
class Decision:
    """Whether a version may have an alias, and every reason. A document by itself: with the evaluations that
    it names, each of its numbers can be found again.
    """

    model: str
    alias: str
    version: JudgedVersion
    champion: JudgedVersion | None
    """Who had the alias; None where nobody had."""
    policy: Digest
    """Of what was asked."""
    suite: tuple[str, ...]
    """Splits, the primary one first."""
    checks: tuple[Check, ...]
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    """With the champion, in pairs, by split. The levels of shifted splits are Holm's."""
    unit: str | None = None
    """Of scores: None for points."""
    override: str = ""
    """Why a person lets it pass although checks failed; empty where nobody does, or none failed."""
    program: str = ""
    """Stockpot's release."""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.outcome is CheckOutcome.FAILED)

    @property
    def verdict(self) -> GateVerdict:
        """Of all checks together."""
        if not self.failed:
            return GateVerdict.PASSED
        return GateVerdict.OVERRIDDEN if self.override else GateVerdict.FAILED

    @property
    def lets_pass(self) -> bool:
        """Whether the alias may move."""
        return self.verdict is not GateVerdict.FAILED

    def require_passed(self) -> None:
        """Raise GateFailed, with every failed check, where the alias may not move."""
        if not self.lets_pass:
            raise GateFailed(
                f"{self.version.uri} may not be {self.alias}",
                faults=[f"{check.name}: {check.told}" for check in self.failed],
                mend="promote another version, or answer for this one: stockpot promote "
                f"{quote(self.version.uri)} --to {self.alias} --reason ... --override WHY",
            )
