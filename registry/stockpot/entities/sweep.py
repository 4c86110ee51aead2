"""Runs of a sweep: those that can be averaged, and those that cannot, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from stockpot.entities.checkpoint import Checkpoint, WeightsSource

UNFINISHED = ("RUNNING", "SCHEDULED")
"""Statuses of runs that have not ended."""


@dataclass(frozen=True, slots=True)
class SweepSelector:
    """Names the runs of a sweep: children of a parent run, or an experiment's runs, filtered."""

    parent_run_id: str | None = None
    experiment: str | None = None
    """An experiment's name."""
    filter: str | None = None
    """An MLflow search filter, for example ``tags.trial_name = 'tune-7' and params.lr < 0.1``."""

    def __post_init__(self) -> None:
        if (self.parent_run_id is None) == (self.experiment is None):
            raise ValueError("name the sweep by its parent run or by its experiment, one of the two")


@dataclass(frozen=True, slots=True)
class Run:
    """An MLflow run as it was when it was listed."""

    run_id: str
    name: str
    experiment_id: str
    status: str
    """RUNNING, SCHEDULED, FINISHED, FAILED or KILLED."""
    started: int
    """Milliseconds since the epoch."""
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    ended: int | None = None
    """Milliseconds since the epoch; None for a run that has not. One that was resumed ended later."""


class ExclusionReason(StrEnum):
    """Why a run is not a candidate."""

    NOT_FINISHED = "not finished"
    NO_WEIGHTS = "no weights"
    OTHER_LIBRARY = "a model of another library"
    GROUP = "a group of runs"
    AMBIGUOUS_WEIGHTS = "ambiguous weights"
    PICKLE = "pickled weights"
    UNREADABLE = "unreadable weights"
    NOT_READ = "weights that did not arrive"
    NOT_FINITE = "non-finite weights"
    BATCH_NORM = "batch normalisation"
    NO_BASE = "adapter without its base"
    DIFFERENT_BASE = "different starting point"
    INCOMPATIBLE = "incompatible weights"
    RECALLED = "recalled"
    DUPLICATE = "identical weights"
    NOT_IN_TOP = "not in the top"
    NOT_SCORED = "no finite score"
    TIME_IS_UP = "time was up"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A run that is not a candidate: why, in detail, and what would mend it."""

    run_id: str
    run_name: str
    reason: ExclusionReason
    detail: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class IngestedSource:
    """What reading a weights file found: a checkpoint, or a fault that another read would find too."""

    uri: str
    """`WeightsSource.key`."""
    size: int | None
    """As listed when it was read; another size means another file."""
    sha256: str
    """Of the file as the run logged it, so that a later change of the artifact is noticed."""
    checkpoint: Checkpoint | None
    fault: ExclusionReason | None = None
    detail: str = ""
    run_ended: int | None = None
    """The source's. Where the run ended later, it may have logged another file in this one's place."""
    cast_from: tuple[str, ...] | None = None
    """Dtypes of tensors that were cast; None where all stayed as they were."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run of the sweep with one usable checkpoint."""

    run: Run
    source: WeightsSource
    source_sha256: str
    checkpoint: Checkpoint
    cast_from: tuple[str, ...] | None = None
    """As in `IngestedSource`."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """All runs of a sweep: candidates by start time then run id, exclusions in the same order."""

    selector: SweepSelector
    candidates: tuple[Candidate, ...]
    exclusions: tuple[Exclusion, ...]
