"""Recipes: what a soup is made of. Their digest names the soup before a byte is averaged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from stockpot.entities.digest import Digest, digest_of_document


class Arithmetic(StrEnum):
    """How tensors are averaged. The number changes when any bit of any result would."""

    MEAN_1 = "mean/1"
    """Equal coefficients: add the ingredients one by one in recipe order, starting from the first
    one's value, in float32 (float64 for F64 tensors); multiply once by the coefficient rounded to
    that dtype; cast once. Integer and boolean tensors agree in all ingredients and are copied."""
    LINEAR_1 = "linear/1"
    """Any coefficients: multiply each ingredient by its coefficient, rounded to that dtype; add the products
    one by one in recipe order, each product and each sum rounded; cast once. The rest as in ``mean/1``."""
    GROUPED_1 = "grouped/1"
    """The mean over groups of the mean of each group, in one go: add each group's ingredients as ``mean/1``
    does; multiply each group's sum by its coefficient, rounded to that dtype; add the products one by one, in
    the groups' order, each product and each sum rounded; cast once. The rest as in ``mean/1``. Also where
    all groups are of one size, the bits are not those of ``mean/1``: products are rounded before they are
    added."""
    TIES_1 = "ties/1"
    """A yardstick, never built: the first ingredient, the base, plus what the others' updates from it agree
    on. An update is the difference to the base, in the dtype of ``mean/1``'s sums. The fifth of its elements
    with the largest magnitudes stay, out of all floating-point tensors of the file together, buffers and each
    copy of a tied one included (rounded down, at least one; magnitudes are compared as float32, and what
    equals the least of them stays too). Of each element, updates above zero and those below are added up,
    each in recipe order; the larger sum, times 1/(how many those are) rounded to that dtype, is added to the
    base, and nothing where both are equal; cast once. The rest as in ``mean/1``. Source: Yadav et al.,
    "TIES-Merging" (NeurIPS 2023), lambda 1."""
    PYFUNC_1 = "pyfunc/1"
    """No average: a registered model as MLflow serves it, named by all its files. See `Recipe.served`."""


Ratio = tuple[int, int]
"""A reduced numerator, perhaps negative, and a denominator above zero."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A checkpoint with its coefficient in a recipe."""

    checkpoint: Digest
    coefficient: float | Ratio
    """A number under ``mean/1``, a ratio under ``linear/1`` and ``grouped/1``, (1, 1) under ``ties/1``."""

    @property
    def factor(self) -> float:
        """The coefficient as a number: the nearest one of 64 bits."""
        if isinstance(self.coefficient, float):
            return self.coefficient
        numerator, denominator = self.coefficient
        return numerator / denominator


class GroupSum(NamedTuple):
    """Ingredients that are added up before anything else, and what their sum is multiplied by."""

    places: range
    """In the recipe, from 0."""
    scale: float
    """To be rounded to the sum's dtype."""


@dataclass(frozen=True, slots=True)
class OverlayRule:
    """How statistics of an average (BatchNorm) are estimated anew: a rule, since the recipe is named before.

    What it leads to is resolved once, in the store. Raises ValueError for less than one example.
    """

    split: str
    n: int
    """Examples, out of all of the split."""
    version: str
    """Of the estimation: which examples, in which order, by which sums."""
    data: Digest
    """Of the question about those examples: two splits may have one name, and a task's code makes batches."""

    def __str__(self) -> str:
        return f"statistics on split {self.split} (n={self.n:,})"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"statistics are estimated on at least one example, got {self.n}")


@dataclass(frozen=True)
class Recipe:
    """Ordered ingredients and how they are averaged. One ingredient: that checkpoint itself.

    Raises ValueError for what means nothing, and for a second name of a recipe: ratios that are not reduced.
    """

    ingredients: tuple[Ingredient, ...]
    arithmetic: Arithmetic = Arithmetic.MEAN_1
    overlay: Digest | OverlayRule | None = None
    """A file of statistics that is laid over the average, or the rule that leads to one."""
    coefficients: Digest | None = None
    """Under ``linear/1``, a safetensors file that holds one for each tensor of each ingredient: for each
    tensor's name a vector, in recipe order. The ingredients' own are (1, 1) then."""
    groups: tuple[int, ...] | None = None
    """Under ``grouped/1``, how many ingredients each group has: they follow each other in recipe order."""

    def __post_init__(self) -> None:
        if not self.ingredients:
            raise ValueError("a recipe needs at least one ingredient")
        if len(set(self.checkpoints)) != len(self.ingredients):
            raise ValueError("a recipe names each checkpoint once")
        if (self.groups is None) is (self.arithmetic is Arithmetic.GROUPED_1):
            raise ValueError(
                f"only {Arithmetic.GROUPED_1} has groups, got {self.groups} of {self.arithmetic}"
            )
        found = {ingredient.coefficient for ingredient in self.ingredients}
        if self.arithmetic is Arithmetic.LINEAR_1:
            self._require_ratios()
        elif self.groups is not None:
            self._require_groups(self.groups)
        elif self.arithmetic is Arithmetic.TIES_1:
            if len(self.ingredients) < 3 or found != {(1, 1)} or self.coefficients is not None:
                raise ValueError(f"{self.arithmetic} takes a base and two or more others, each of (1, 1)")
        elif found != {1.0 / len(self.ingredients)} or self.coefficients is not None:
            raise ValueError(f"{self.arithmetic} takes equal coefficients that add up to one, got {found}")

    def _require_ratios(self) -> None:
        if not self.is_soup:
            raise ValueError(f"{self.arithmetic} needs at least two ingredients")
        ratios = [i.coefficient for i in self.ingredients if isinstance(i.coefficient, tuple)]
        if len(ratios) < len(self.ingredients) or not all(map(_is_reduced, ratios)):
            given = [ingredient.coefficient for ingredient in self.ingredients]
            raise ValueError(
                f"{self.arithmetic} takes reduced ratios other than zero as coefficients, got {given}"
            )
        if self.coefficients is not None and set(ratios) != {(1, 1)}:
            raise ValueError(
                "where each tensor has coefficients of its own, those of the ingredients are (1, 1)"
            )

    def _require_groups(self, groups: tuple[int, ...]) -> None:
        if len(groups) < 2 or min(groups) < 1 or sum(groups) != len(self.ingredients):
            raise ValueError(
                f"{self.arithmetic} takes two or more groups that hold all of its {len(self.ingredients)} "
                f"ingredients, got groups of {groups}: one group alone is {Arithmetic.MEAN_1.value}"
            )
        given = [ingredient.coefficient for ingredient in self.ingredients]
        if given != _ratios_of(groups) or self.coefficients is not None:
            raise ValueError(
                f"{self.arithmetic} takes 1/(groups x ingredients of the group) as coefficients, got {given}"
            )

    @classmethod
    def mean(cls, checkpoints: Sequence[Digest]) -> "Recipe":
        """Average these checkpoints with equal coefficients, in this order."""
        coefficient = 1.0 / len(checkpoints) if checkpoints else math.nan
        return cls(tuple(Ingredient(checkpoint, coefficient) for checkpoint in checkpoints))

    @classmethod
    def linear(cls, coefficients: Mapping[Digest, Ratio]) -> "Recipe":
        """Add these checkpoints, each times its coefficient, in this order. Ratios are reduced.

        Raises ValueError for fewer than two, and for a coefficient of zero; ZeroDivisionError for a
        denominator of zero.
        """
        ratios = {checkpoint: Fraction(*ratio) for checkpoint, ratio in coefficients.items()}
        ingredients = (Ingredient(c, (r.numerator, r.denominator)) for c, r in ratios.items())
        return cls(tuple(ingredients), Arithmetic.LINEAR_1)

    @classmethod
    def grouped(cls, groups: Sequence[Sequence[Digest]]) -> "Recipe":
        """Average the averages of these groups: each group counts the same, however many it holds. Groups and
        what is in them stay in this order.

        Raises ValueError for fewer than two groups (one group's average is `mean`), for an empty one, and for
        a checkpoint that is named twice.
        """
        sizes = tuple(map(len, groups))
        checkpoints = [checkpoint for group in groups for checkpoint in group]
        pairs = zip(checkpoints, _ratios_of(sizes), strict=True)
        return cls(tuple(Ingredient(*pair) for pair in pairs), Arithmetic.GROUPED_1, groups=sizes)

    @classmethod
    def by_tensor(cls, checkpoints: Sequence[Digest], coefficients: Digest) -> "Recipe":
        """Add these checkpoints in this order, each tensor times a coefficient of its own, which that file
        holds. Raises ValueError for fewer than two checkpoints.
        """
        return cls(tuple(Ingredient(c, (1, 1)) for c in checkpoints), Arithmetic.LINEAR_1, None, coefficients)

    @classmethod
    def ties(cls, base: Digest, checkpoints: Sequence[Digest]) -> "Recipe":
        """The base, plus what the updates of these from it agree on. Raises ValueError for fewer than two."""
        return cls(tuple(Ingredient(c, (1, 1)) for c in (base, *checkpoints)), Arithmetic.TIES_1)

    @classmethod
    def served(cls, files: Digest) -> "Recipe":
        """No weights, but a registered model as MLflow serves it (``pyfunc``), by the digest of all its
        files: the name under which its scores are kept. Nothing can be built by it.
        """
        return cls((Ingredient(files, 1.0),), Arithmetic.PYFUNC_1)

    @classmethod
    def uniform(cls, checkpoints: Sequence[Digest]) -> "Recipe":
        """Average these checkpoints in the canonical order: sorted by digest."""
        return cls.mean(sorted(checkpoints))

    @property
    def checkpoints(self) -> tuple[Digest, ...]:
        """The ingredients' digests, in recipe order."""
        return tuple(ingredient.checkpoint for ingredient in self.ingredients)

    @property
    def files(self) -> tuple[Digest, ...]:
        """All that an average reads: the ingredients, and the coefficients where they are a file."""
        return self.checkpoints if self.coefficients is None else (*self.checkpoints, self.coefficients)

    @property
    def factors(self) -> tuple[float, ...]:
        """What each ingredient is multiplied by before it is added, to be rounded to the sum's dtype: ones
        but under ``linear/1``. Where coefficients are a file, it says so for each tensor.
        """
        if self.arithmetic is Arithmetic.LINEAR_1:
            return tuple(ingredient.factor for ingredient in self.ingredients)
        return (1.0,) * len(self.ingredients)

    @property
    def sums(self) -> tuple[GroupSum, ...]:
        """What is added up by itself and multiplied then: each group under ``grouped/1``, else all at
        once, with a scale of one under ``linear/1``. Under ``ties/1`` it tells nothing.
        """
        count = len(self.ingredients)
        if self.groups is None:
            scale = 1.0 / count if self.arithmetic is Arithmetic.MEAN_1 else 1.0
            return (GroupSum(range(count), scale),)
        ends = accumulate(self.groups)
        places = (range(end - size, end) for end, size in zip(ends, self.groups, strict=True))
        return tuple(GroupSum(each, self.ingredients[each[0]].factor) for each in places)

    def without(self, place: int) -> "Recipe":
        """The same kind of mean of all ingredients but the one at this place, with nothing laid over it. A
        group that is empty then is gone, and a single group that is left is a ``mean/1``.

        Raises ValueError under other arithmetics, and for an only ingredient.
        """
        if self.arithmetic not in (Arithmetic.MEAN_1, Arithmetic.GROUPED_1) or not self.is_soup:
            raise ValueError(f"without one of its ingredients, {self.digest} is no recipe of its kind")
        rest = [[self.checkpoints[p] for p in each.places if p != place] for each in self.sums]
        groups = [group for group in rest if group]
        return Recipe.grouped(groups) if len(groups) > 1 else Recipe.mean(groups[0])

    @property
    def is_soup(self) -> bool:
        """Whether this averages at all: two or more ingredients."""
        return len(self.ingredients) > 1

    @property
    def average(self) -> "Recipe":
        """The same with nothing laid over it."""
        return self if self.overlay is None else replace(self, overlay=None)

    @cached_property
    def digest(self) -> Digest:
        """The name of what this recipe makes."""
        document: dict[str, object] = {
            "arithmetic": self.arithmetic.value,
            "ingredients": [[i.checkpoint, i.coefficient] for i in self.ingredients],
            "overlay": asdict(self.overlay) if isinstance(self.overlay, OverlayRule) else self.overlay,
        }
        if self.coefficients is not None:  # a key that came later: what lacks it keeps its name
            document["coefficients"] = self.coefficients
        if self.groups is not None:  # as is this one
            document["groups"] = self.groups
        return digest_of_document(document)


def _ratios_of(groups: Sequence[int]) -> list[Ratio]:
    """Of each ingredient, in groups of these sizes."""
    return [(1, len(groups) * size) for size in groups for _ in range(size)]


def _is_reduced(ratio: Ratio) -> bool:
    numerator, denominator = ratio
    return numerator != 0 and denominator > 0 and math.gcd(numerator, denominator) == 1
