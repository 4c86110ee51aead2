"""Ensembles: models that answer together. The yardstick beside a soup, which answers as one model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from stockpot.entities.digest import Digest, digest_of_document
from stockpot.entities.recipe import Recipe


@dataclass(frozen=True)
class Ensemble:
    """The weighted mean of its members' outputs, in this order: one forward pass per member.

    Averaged as ``mean/1`` averages weights: outputs are added one by one in float32, from the first member's
    on, each times its weight where weights are given; the sum is multiplied once by the rounded quotient of
    one and the weights' sum. Raises ValueError for no members, for one that is named twice, and for weights
    that are not as many, not above zero, all equal, or not reduced: an ensemble has one name.
    """

    members: tuple[Recipe, ...]
    weights: tuple[int, ...] = ()
    """Empty: equal ones."""

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("an ensemble needs at least one member")
        if len({member.digest for member in self.members}) < len(self.members):
            raise ValueError("an ensemble names each member once")
        if not self.weights:
            return
        if len(self.weights) != len(self.members) or min(self.weights) < 1:
            raise ValueError(f"an ensemble takes a weight above zero for each member, got {self.weights}")
        if len(set(self.weights)) == 1 or math.gcd(*self.weights) > 1:
            raise ValueError(f"weights are reduced, and left out where they are equal, got {self.weights}")

    @classmethod
    def of(cls, checkpoints: Sequence[Digest]) -> "Ensemble":
        """These checkpoints with equal weights, in this order."""
        return cls(tuple(Recipe.mean([checkpoint]) for checkpoint in checkpoints))

    @classmethod
    def like(cls, soup: Recipe) -> "Ensemble":
        """The soup's ingredients, in its order: with equal weights, or so that its groups count the same."""
        groups = soup.groups or (len(soup.ingredients),)
        common = math.lcm(*groups)
        weights = tuple(common // size for size in groups for _ in range(size))
        return cls(cls.of(soup.checkpoints).members, weights if len(set(groups)) > 1 else ())

    @property
    def checkpoints(self) -> tuple[Digest, ...]:
        """Those of its members, in their order."""
        return tuple(checkpoint for member in self.members for checkpoint in member.checkpoints)

    @property
    def is_soup(self) -> bool:
        """Never: nothing is averaged but outputs."""
        return False

    @cached_property
    def digest(self) -> Digest:
        """The name of what these members answer together; no recipe has it."""
        document: dict[str, object] = {"ensemble": "mean/1", "members": [m.digest for m in self.members]}
        if self.weights:
            document["weights"] = self.weights
        return digest_of_document(document)


Composition = Recipe | Ensemble
"""What is evaluated: one model, or several that answer together."""
