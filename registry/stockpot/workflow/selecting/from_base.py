"""Rows of the comparison that need the sweep's starting point: the generalist's ingredients by other
arithmetics than their mean. Yardsticks, as all of `every_way`.

*Extrapolation*: base + L x (generalist - base) with L above one. Sources: Ilharco et al., "Editing models
with task arithmetic" (ICLR 2023), who scale the sum of task vectors: their coefficient times the number of
these is L; Zheng et al., "Model Extrapolation Expedites Alignment" (2024), who go on beyond one model.

*TIES*: `Arithmetic.TIES_1`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from stockpot.entities import Digest, Recipe, Score
from stockpot.workflow.selecting.averages import average_of
from stockpot.workflow.selecting.rows import GENERALIST, score

REACHES = (Fraction(5, 4), Fraction(3, 2), Fraction(2))
"""How many times as far from the base as the generalist: the values of L that are tried."""
TIES = f"TIES of the {GENERALIST} soup's ingredients"
NEITHER = "no rows for extrapolation and TIES"
NO_TIES = "no row for TIES"
TWO = 2


@dataclass(frozen=True)
class FromBase:
    """Recipes of the generalist's ingredients and the base."""

    beyond: Mapping[Fraction, Recipe] = field(default_factory=dict)
    """By L."""
    ties: Recipe | None = None
    missing: tuple[str, ...] = ()
    """Which rows there are not, and why: sentences."""


def from_base(generalist: Recipe | None, base: Digest | None, laid: Callable[[Recipe], Recipe]) -> FromBase:
    """`generalist`, `base`: None where it was not asked, where it has no row. `laid` lays statistics over
    averages.
    """
    if generalist is None:
        return FromBase(missing=(f"{NEITHER}: {GENERALIST} was not asked",))
    if base is None:
        return FromBase(missing=(f"{NEITHER}: there is none for the base",))
    others = [checkpoint for checkpoint in generalist.checkpoints if checkpoint != base]
    if not others:
        return FromBase(missing=(f"{NEITHER}: {GENERALIST} found nothing but the base itself",))
    parts = [generalist, Recipe.mean([base])]
    beyond = {reach: laid(average_of(parts, [reach, 1 - reach])) for reach in REACHES}
    if len(others) < TWO:
        return FromBase(beyond, None, (f"{NO_TIES}: it is of two runs or more, {GENERALIST} found one",))
    return FromBase(beyond, laid(Recipe.ties(base, others)))


def farthest(reach: Fraction) -> str:
    """The label of the row for this L."""
    return f"{GENERALIST} soup, {reach} times as far from the base"


def best_reach(scores: Mapping[Fraction, Score]) -> Fraction | None:
    """Which scores best; of equal ones the least. None where none has a score."""
    known = {reach: found.value for reach, found in scores.items() if not math.isnan(found.value)}
    return max(sorted(known), key=known.__getitem__, default=None)


def tried(
    split: str, unit: str | None, generalist: Score, scores: Mapping[Fraction, Score], best: Fraction | None
) -> str:
    """All that were tried, and the generalist itself: a sentence."""
    told = ", ".join(f"{score(found.value, unit)} at {reach}" for reach, found in scores.items())
    chosen = "none was chosen" if best is None else f"{best} was chosen"
    return (
        f"extrapolation: by how many times as far from the base, split {split} scores {told}; {chosen}; "
        f"the {GENERALIST} soup itself scores {score(generalist.value, unit)}"
    )
