"""One request about one state of a sweep, and the answer that it had."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, ClassVar

from stockpot.entities.digest import Digest, digest_of_document
from stockpot.entities.lease import Lease
from stockpot.entities.protocol import EvaluationProtocol
from stockpot.entities.recipe import OverlayRule
from stockpot.entities.report import SoupOutcome
from stockpot.entities.request import SoupRequest
from stockpot.entities.sweep import Run

LATER = frozenset(
    {
        *("adapter", "base", "checkpoint_metric", "dtype", "statistics_on"),
        *("compare_all", "domain_from", "mix", "objective", "target"),
    }
)
"""Fields of a request that came later: where they are not set, a job keeps the name that it had before."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request about one state of a sweep. One process at a time works on it."""

    name: Digest
    """Of the request and of the runs as they were listed."""
    request: SoupRequest

    LEASES: ClassVar[str] = "job "
    """What the names of their leases begin with; the job's own name follows."""

    @classmethod
    def of(cls, request: SoupRequest, runs: Sequence[Run]) -> "Job":
        """The job of this request, where its sweep has these runs."""
        listed = sorted(runs, key=lambda run: run.run_id)
        asked = {name: value for name, value in asdict(request).items() if name not in LATER or value}
        return cls(digest_of_document(_plain([asked, *map(asdict, listed)])), request)

    @property
    def lease(self) -> str:
        """The name of the lease under which it is worked on."""
        return f"{self.LEASES}{self.name}"


@dataclass(frozen=True, slots=True)
class Opening:
    """How a job's splits were opened: whoever helps with it keeps to it."""

    program: str
    """Stockpot's version."""
    protocols: tuple[EvaluationProtocol, ...]
    """One per split, the held-out one first."""
    halved_from: int | None = None
    """The task's own batch size, where such batches did not fit the device and were halved."""
    statistics: OverlayRule | None = None
    """By which soups get statistics, where the model has BatchNorm."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """How a file looked: any ordinary write to it changes one of these."""

    path: str
    size: int
    modified_ns: int
    """Times of change of content and of status, in nanoseconds since the epoch."""
    changed_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an answer depended on beside the sweep, as it looked when the answer was found."""

    surroundings: Digest
    """Of the installed software, the machine and the settings that choose a device."""
    files: tuple[FileStamp, ...]
    """The user's own modules, the files that the task's arguments name, and what it was seen to open."""
    doubt: str
    """A clause that says why it may have depended on more; empty where nothing says so."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job ended in."""

    outcome: SoupOutcome
    at: float
    """Seconds since the epoch, by the store's clock."""
    evidence: Evidence


class JobState(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    """A process works on it."""
    WAITING = "waiting"
    """A trigger asked for it, and nobody has worked on it since."""
    FAILED = "failed"
    """The last attempt did."""
    DONE = "done"
    """It is answered."""
    STOPPED = "stopped"
    """Who worked on it was ended before the answer."""
    REPLACED = "replaced"
    """It waited or had failed when its rule came to want another job of the sweep."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What the store knows of a job. Times are seconds since the epoch."""

    name: Digest
    model: str
    request: SoupRequest | None
    """None where it is in another program's words."""
    created_at: float
    asked_at: float | None = None
    """When a trigger asked for it last; this and what follows by the store's clock."""
    replaced: bool = False
    """Whether the rule that asked for it wants another job of its sweep by now, and no rule wants this."""
    answered_at: float | None = None
    failed_at: float | None = None
    """When the last attempt failed; None where it did not."""
    fault: str | None = None
    """Why, in one line without secrets."""
    attempts: int = 0
    """Those that failed or were lost, in all."""
    predecessor: Digest | None = None
    """The job of the same request about an earlier state of the sweep, where there was one."""
    lease: Lease | None = None
    """Who works on it now."""

    @property
    def state(self) -> JobState:
        """How it stands."""
        asked = -1.0 if self.asked_at is None else self.asked_at
        failed = self.failed_at is not None and self.failed_at >= asked
        if self.lease is not None:
            return JobState.RUNNING
        if self.answered_at is not None and self.answered_at >= asked and not failed:
            return JobState.DONE
        if self.replaced:
            return JobState.REPLACED
        if failed:
            return JobState.FAILED
        return JobState.STOPPED if self.asked_at is None else JobState.WAITING


def _plain(value: Any) -> Any:
    """As JSON has it, numbers as text: a metric or a margin may be infinite."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
