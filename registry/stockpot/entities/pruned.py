"""What is not needed any more, by its kind."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went of one kind, or would go."""

    kind: str
    """evaluations, bounds, gaps or overlays in the store; weights, outputs or leftovers on a disk."""
    number: int
    bytes: int
    """In a database those of the values alone: its file keeps its size, and uses the room again."""
