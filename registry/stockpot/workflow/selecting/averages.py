"""Averages of averages, as recipes of the runs themselves."""

from collections.abc import Sequence
from fractions import Fraction

from stockpot.entities import Digest, Recipe


def average_of(recipes: Sequence[Recipe], shares: Sequence[Fraction]) -> Recipe:
    """The sum of these means, each times its share, flattened to their ingredients: lineage tells each once,
    and a stored soup is rounded already. One without a share is left out, as is an ingredient whose shares
    cancel.

    Where all ingredients count alike it is their mean, so that a recipe has one name.
    """
    given = [(recipe.checkpoints, share) for recipe, share in zip(recipes, shares, strict=True) if share]
    found: dict[Digest, Fraction] = {}
    for checkpoints, share in given:
        for checkpoint in checkpoints:
            found[checkpoint] = found.get(checkpoint, Fraction()) + share / len(checkpoints)
    found = {checkpoint: share for checkpoint, share in found.items() if share}
    if len({*found.values()}) == 1:
        return Recipe.mean([*found])
    if len({share for _, share in given}) == 1 and len(found) == sum(len(one) for one, _ in given):
        return Recipe.grouped([checkpoints for checkpoints, _ in given])
    return Recipe.linear({one: (share.numerator, share.denominator) for one, share in found.items()})
