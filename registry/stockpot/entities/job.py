"""One request about one state of a sweep, and the answer that it had."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from stockpot.entities.digest import Digest, digest_of_document
from stockpot.entities.protocol import EvaluationProtocol
from stockpot.entities.recipe import OverlayRule
from stockpot.entities.report import SoupOutcome
from stockpot.entities.request import SoupRequest
from stockpot.entities.sweep import Run

LATER = frozenset({"adapter", "base", "checkpoint_metric", "dtype", "statistics_on"})
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


def _plain(value: Any) -> Any:
    """As JSON has it, numbers as text: a metric or a margin may be infinite."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
