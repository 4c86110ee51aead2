"""What a scan for finished sweeps remembers. Times are seconds since the epoch."""

from dataclasses import dataclass

from stockpot.entities.digest import Digest


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment of MLflow."""

    experiment_id: str
    name: str
    created: int
    """Milliseconds since the epoch; 0 where MLflow does not tell."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a scan has looked: at the experiment of a rule, for example."""

    begun: float
    """What ended before is none of the rule's business."""
    until: float
    """What ended before was looked at."""


@dataclass(frozen=True, slots=True)
class KnownSweep:
    """A sweep that a scan has seen, for a rule. Another file's rule may have seen it, too."""

    sweep: str
    """Its parent run's id."""
    rule: str
    """The rule's name."""
    moved: float
    """When one of its runs began or ended last, by MLflow."""
    look_at: float | None
    """When to look at it again, by the store's clock; None where nothing is left to do."""
    tag: str | None
    """What people asked for it by: what its parent's tag `stockpot.soup` held, a version with an alias."""
    job: Digest | None = None
    """The job that the rule wants of it, by the last look; None before one is known."""
