"""What a selection method is given, and what it did."""

from dataclasses import dataclass

from stockpot.entities.digest import Digest
from stockpot.entities.ensemble import Composition


@dataclass(frozen=True, slots=True)
class Contender:
    """A candidate as selection sees it: a checkpoint, and what breaks ties."""

    checkpoint: Digest
    run_id: str
    started: int


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluated recipe of a search."""

    recipe: Digest
    tried: tuple[Digest, ...]
    """The checkpoints in that recipe, in its order."""
    score: float | None
    """None where the evaluation stopped early."""
    bound: float | None
    kept: bool
    """Whether the recipe became the incumbent."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The search for a recipe: its method, every step, and the result."""

    method: str
    rule: str
    """The acceptance rule in full, for example "not_worse"; empty where there is none."""
    steps: tuple[Step, ...]
    recipe: Composition
    score: float
    complete: bool = True
    """False where a time limit ended the search; the recipe is the best found until then."""
