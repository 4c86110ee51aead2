"""How long a model takes, beside another one: in turn, so that both meet the same machine."""

from statistics import median
from typing import TYPE_CHECKING

from stockpot.entities import Recipe

if TYPE_CHECKING:
    from stockpot.ports import Bench

ROUNDS = 9
"""Of which the median counts: a busy machine disturbs some."""


def pace(
    bench: "Bench", recipe: Recipe, other: Recipe, split: str, rounds: int = ROUNDS
) -> tuple[float, int]:
    """The median time of a batch under the first recipe, as a ratio to that under the other, and the number
    of rounds. Each round times both, after one that warms them up.
    """
    times = [(bench.seconds(recipe, split), bench.seconds(other, split)) for _ in range(1 + rounds)][1:]
    mine, its = (median(side) for side in zip(*times, strict=True))
    return mine / its, rounds
