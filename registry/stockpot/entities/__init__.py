"""Frozen values that cross every wall. Standard library only; no I/O."""

from stockpot.entities.checkpoint import (
    Checkpoint,
    CheckpointPlace,
    Part,
    TensorSpec,
    WeightsFormat,
    WeightsSource,
)
from stockpot.entities.digest import Digest, digest_of_bytes, digest_of_document, short
from stockpot.entities.ensemble import Composition, Ensemble
from stockpot.entities.evaluation import (
    Bound,
    Comparison,
    Metric,
    Outcome,
    Score,
    Threshold,
    Trial,
    exact_mean,
)
from stockpot.entities.job import Answer, Evidence, FileStamp, Job, Opening
from stockpot.entities.lease import Lease
from stockpot.entities.model_folder import CONFIG, model_files
from stockpot.entities.protocol import Conditions, EvaluationProtocol, Question
from stockpot.entities.recipe import Arithmetic, Ingredient, OverlayRule, Recipe
from stockpot.entities.registration import (
    Measurement,
    ModelVersion,
    Packaged,
    Publication,
    Registration,
    RegistrationState,
)
from stockpot.entities.report import (
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
from stockpot.entities.request import BEST, LAST, MEAN_OF_SHIFTS, Accept, Direction, Register, SoupRequest
from stockpot.entities.selection import Contender, Selection, Step
from stockpot.entities.source import SourceIdentity
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
    "BEST",
    "CONFIG",
    "LAST",
    "MEAN_OF_SHIFTS",
    "Accept",
    "Answer",
    "Arithmetic",
    "Bound",
    "Candidate",
    "CandidatePoint",
    "Checkpoint",
    "CheckpointPlace",
    "Comparison",
    "Composition",
    "Conditions",
    "Contender",
    "Digest",
    "Direction",
    "Ensemble",
    "EnsembleRow",
    "EvaluationProtocol",
    "Evidence",
    "Exclusion",
    "ExclusionReason",
    "FileStamp",
    "FiledReport",
    "IngestedSource",
    "Ingredient",
    "Job",
    "Lease",
    "Measurement",
    "Metric",
    "ModelVersion",
    "Opening",
    "Outcome",
    "OverlayRule",
    "Packaged",
    "Part",
    "Publication",
    "PublishedSoup",
    "Question",
    "Recipe",
    "Register",
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
    "SourceIdentity",
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
    "model_files",
    "short",
]
