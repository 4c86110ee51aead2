"""What soups are made of, and what was made of them: through soups of soups."""

from dataclasses import dataclass
from enum import StrEnum

from stockpot.entities.digest import Digest


@dataclass(frozen=True, slots=True)
class Blend:
    """One ingredient of one registered soup."""

    soup: Digest
    """The soup's own weights."""
    recipe: Digest
    position: int
    """In the recipe, from 0 on."""
    ingredient: Digest
    coefficient: float


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A model version that holds a soup, or one candidate, as the store keeps it, also where it is gone."""

    model: str
    version: str
    recipe: Digest
    checkpoint: Digest
    """Of the version's own weights."""
    run_id: str | None = None
    model_id: str | None = None

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``."""
        return f"models:/{self.model}/{self.version}"


@dataclass(frozen=True, slots=True)
class Found:
    """Where a checkpoint was found: a run of a sweep, and a path in its artifacts."""

    checkpoint: Digest
    run_id: str
    path: str
    sweep: str | None = None
    """The parent run's id, or the experiment's name; None where nobody has kept it."""


class Standing(StrEnum):
    """What became of a run or a version."""

    THERE = "there"
    DELETED = "deleted"
    GONE = "not in this MLflow"
    """Deleted for good, or of another MLflow that the store is used with, too."""
    UNPROVEN = "unproven"
    """Its tags say that it holds this. Nobody has compared its weights."""
    UNKNOWN = "not looked up"
    """MLflow does not answer."""


@dataclass(frozen=True, slots=True)
class LineageVersion:
    """A version that holds a checkpoint."""

    uri: str
    standing: Standing
    recipe: Digest | None = None
    aliases: tuple[str, ...] = ()
    copy_of: str | None = None
    """The version that MLflow copied it from, ``models:/NAME/VERSION``."""
    recalled: str | None = None
    """Why it was recalled, where it was."""


@dataclass(frozen=True, slots=True)
class LineageRun:
    """A run that logged a checkpoint."""

    run_id: str
    standing: Standing
    name: str | None = None
    sweep: str | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class LineageNode:
    """A checkpoint in a lineage, and all that is known to hold it."""

    checkpoint: Digest
    versions: tuple[LineageVersion, ...]
    runs: tuple[LineageRun, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """What some checkpoints are made of, and what was made of them."""

    subject: str
    """What was asked about, as it was given."""
    start: tuple[Digest, ...]
    """The checkpoints that this names."""
    nodes: tuple[LineageNode, ...]
    """Those first, then all others by digest."""
    up: tuple[Blend, ...]
    """What they are made of, soups of soups included."""
    down: tuple[Blend, ...]
    """What holds them, soups of soups included."""
    notes: tuple[str, ...] = ()
