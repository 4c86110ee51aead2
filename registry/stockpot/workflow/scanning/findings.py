"""What a scan has seen, and what it asked for."""

from dataclasses import dataclass
from enum import StrEnum

from stockpot.entities import Digest, Job, SoupRequest


class Standing(StrEnum):
    """How a sweep that a rule is about stands."""

    DUE = "due"
    """It is asked for, now."""
    ANSWERED = "answered"
    RUNNING = "at work"
    WAITING = "asked for"
    FAILED = "failed"
    """It is tried again later."""
    UNFINISHED = "unfinished"
    BUDGET = "over budget"
    GONE = "gone"


@dataclass(frozen=True)
class Sighting:
    """A sweep, and what became of it."""

    sweep: str
    """The parent run's id."""
    name: str
    """The parent run's."""
    experiment: str
    rule: str
    standing: Standing
    detail: str = ""
    job: Digest | None = None


@dataclass(frozen=True)
class Asked:
    """What is due: to be worked on, or to be handed to somebody who does."""

    request: SoupRequest
    job: Job
    attempts: int
    """Those before. The job's name and this number name the asking."""


@dataclass(frozen=True)
class Scan:
    """What a scan has seen."""

    sightings: tuple[Sighting, ...]
    """Sweeps that finished, or were due to be looked at: the one that ended first first, what failed last."""
    notes: tuple[str, ...]
    asked: tuple[Asked, ...] = ()


@dataclass(frozen=True)
class Done:
    """What became of a job that a scan worked on itself."""

    sweep: str
    job: Digest
    versions: tuple[str, ...] = ()
    """The URIs of the soups."""
    fault: str = ""
    """Why there is no answer, in one line."""
    exit_code: int = 0
    """The fault's; 0 where there is an answer, or where another process is about to give one."""
