"""Where the store and MLflow tell different things."""

from dataclasses import dataclass
from enum import StrEnum


class DiscrepancyKind(StrEnum):
    """What was found."""

    NO_ROW = "version without row"
    NO_VERSION = "row without version"
    UNFINISHED = "unfinished registration"
    DUPLICATE = "late duplicate"
    RUN = "orphaned run"
    MODEL = "orphaned model"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing that does not agree, and what becomes of it."""

    kind: DiscrepancyKind
    what: str
    """A version's URI, or the id of a run or a LoggedModel."""
    told: str
    """How it stands, in a sentence."""
    remedy: str = ""
    """What `reconcile` does about it, in a clause; empty where that is for a person to decide."""
    mend: str = ""
    """What a person can do."""
    done: bool = False
    """Whether the remedy was applied."""
    fault: str = ""
    """Why it could not be, in one line."""
    exit_code: int = 0
    """Of the error that the fault is."""
