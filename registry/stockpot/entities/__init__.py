"""Frozen values that cross every wall. Standard library only; no I/O."""

from stockpot.entities.checkpoint import Checkpoint, TensorSpec, WeightsFormat, WeightsSource
from stockpot.entities.digest import Digest, digest_of_bytes, digest_of_document, short
from stockpot.entities.evaluation import (
    Bound,
    Comparison,
    EvaluationProtocol,
    Metric,
    Outcome,
    Score,
    Threshold,
    Trial,
    exact_mean,
)
from stockpot.entities.lease import Lease
from stockpot.entities.recipe import Arithmetic, Ingredient, Recipe
from stockpot.entities.registration import (
    Measurement,
    ModelVersion,
    Publication,
    Registration,
    RegistrationState,
)
from stockpot.entities.report import (
    MEAN_OF_SHIFTS,
    CandidatePoint,
    EnsembleRow,
    FiledReport,
    PublishedSoup,
    ReportRow,
    Snapshot,
    SoupOutcome,
    SoupReport,
    SoupState,
)
from stockpot.entities.request import Accept, Direction, SoupRequest
from stockpot.entities.selection import Contender, Selection, Step
from stockpot.entities.sweep import (
    Candidate,
    Exclusion,
    ExclusionReason,
    IngestedSource,
    Run,
    Sweep,
    SweepSelector,
)

__all__ = [
    "MEAN_OF_SHIFTS",
    "Accept",
    "Arithmetic",
    "Bound",
    "Candidate",
    "CandidatePoint",
    "Checkpoint",
    "Comparison",
    "Contender",
    "Digest",
    "Direction",
    "EnsembleRow",
    "EvaluationProtocol",
    "Exclusion",
    "ExclusionReason",
    "FiledReport",
    "IngestedSource",
    "Ingredient",
    "Lease",
    "Measurement",
    "Metric",
    "ModelVersion",
    "Outcome",
    "Publication",
    "PublishedSoup",
    "Recipe",
    "Registration",
    "RegistrationState",
    "ReportRow",
    "Run",
    "Score",
    "Selection",
    "Snapshot",
    "SoupOutcome",
    "SoupReport",
    "SoupRequest",
    "SoupState",
    "Step",
    "Sweep",
    "SweepSelector",
    "TensorSpec",
    "Threshold",
    "Trial",
    "WeightsFormat",
    "WeightsSource",
    "digest_of_bytes",
    "digest_of_document",
    "exact_mean",
    "short",
]
