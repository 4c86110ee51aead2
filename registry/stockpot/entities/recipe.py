"""Recipes: what a soup is made of. Their digest names the soup before a byte is averaged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from stockpot.entities.digest import Digest, digest_of_document


class Arithmetic(StrEnum):
    """How tensors are averaged. The number changes when any bit of any result would."""

    MEAN_1 = "mean/1"
    """Equal coefficients: add the ingredients one by one in recipe order, starting from the first
    one's value, in float32 (float64 for F64 tensors); multiply once by the coefficient rounded to
    that dtype; cast once. Integer and boolean tensors agree in all ingredients and are copied."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A checkpoint with its coefficient in a recipe."""

    checkpoint: Digest
    coefficient: float


@dataclass(frozen=True)
class Recipe:
    """Ordered ingredients and how they are averaged. One ingredient: that checkpoint itself."""

    ingredients: tuple[Ingredient, ...]
    arithmetic: Arithmetic = Arithmetic.MEAN_1
    overlay: Digest | None = None

    def __post_init__(self) -> None:
        if not self.ingredients:
            raise ValueError("a recipe needs at least one ingredient")
        if len(set(self.checkpoints)) != len(self.ingredients):
            raise ValueError("a recipe names each checkpoint once")
        equal = {ingredient.coefficient for ingredient in self.ingredients}
        if equal != {1.0 / len(self.ingredients)}:
            raise ValueError(f"{self.arithmetic} takes equal coefficients that add up to one, got {equal}")

    @classmethod
    def mean(cls, checkpoints: Sequence[Digest]) -> "Recipe":
        """Average these checkpoints with equal coefficients, in this order."""
        coefficient = 1.0 / len(checkpoints) if checkpoints else math.nan
        return cls(tuple(Ingredient(checkpoint, coefficient) for checkpoint in checkpoints))

    @classmethod
    def uniform(cls, checkpoints: Sequence[Digest]) -> "Recipe":
        """Average these checkpoints in the canonical order: sorted by digest."""
        return cls.mean(sorted(checkpoints))

    @property
    def checkpoints(self) -> tuple[Digest, ...]:
        """The ingredients' digests, in recipe order."""
        return tuple(ingredient.checkpoint for ingredient in self.ingredients)

    @property
    def is_soup(self) -> bool:
        """Whether this averages at all: two or more ingredients."""
        return len(self.ingredients) > 1

    @cached_property
    def digest(self) -> Digest:
        """The name of what this recipe makes."""
        return digest_of_document(
            {
                "arithmetic": self.arithmetic.value,
                "ingredients": [[i.checkpoint, i.coefficient] for i in self.ingredients],
                "overlay": self.overlay,
            }
        )
