"""What was recalled: runs, checkpoints and data that no soup may hold from then on."""

from dataclasses import dataclass, field
from enum import StrEnum


class RecallKind(StrEnum):
    """What is recalled."""

    RUN = "run"
    CHECKPOINT = "checkpoint"
    DATASET = "dataset"
    """Every run that MLflow knows to have used it."""
    DOMAIN = "domain"
    """Every run whose tag ``stockpot.domain`` names it, or all data."""


@dataclass(frozen=True, slots=True)
class Recall:
    """A person's word about a run, a checkpoint, a dataset or a domain. The last one about a thing counts."""

    kind: RecallKind
    name: str
    """The run's id, the checkpoint's digest, the dataset's digest as MLflow has it, the domain's label."""
    reason: str
    by: str
    withdrawn: bool = False
    """Whether this takes back what was said before."""
    at: float = field(default=0.0, compare=False)
    """Seconds since the epoch, by the store's clock: the store says."""

    @property
    def told(self) -> str:
        """What it is about, in words."""
        return f"{self.kind} {self.name}"
