"""Whether candidates have heads of their own, as runs that each began with a new one do: a cheap reason why
no soup is better.

By the cosine of two candidates' very weights, not of their updates. Those from a base hide it: all of them
lead away from the base's own head, so that heads that have nothing in common seem half alike. Those from the
candidates' mean cancel, whatever they are.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stockpot.entities import SoupReport, TensorSpec
from stockpot.prose import listed
from stockpot.soup.canonical import FLOATS

if TYPE_CHECKING:
    from stockpot.workflow.gathering.supply import Supply
    from stockpot.workflow.selecting.ranking import Ranking

MOST = 4
"""Candidates that are looked at, the best."""
ELEMENTS = 1 << 18
"""Of each tensor that are looked at: enough to tell, and read in a moment, however large the models are."""
APART, ALIKE = 0.5, 0.9
"""Mean cosines: below the one, matrices share little; above the other they are those of one model."""


def heads_apart(report: SoupReport, ranking: "Ranking", supply: "Supply") -> str:
    """One sentence where the candidates differ in a few matrices alone, and no soup scores better than the
    best single; else empty, as where fewer than two candidates' weights are in the cache, or not the base's,
    and of adapters.

    A matrix that is zero in the base tells nothing: there all weights are updates.
    """
    if any(candidate.source.base for candidate in ranking.candidates):
        return ""  # adapters: they differ in what they adapt, and nowhere else
    held_out, (best, *soups) = report.request.select_on, report.rows
    if any(row.recipe.is_soup and row.scores[held_out] > best.scores[held_out] for row in soups):
        return ""
    here = [c.checkpoint for c in ranking.candidates if supply.is_here(c.checkpoint.digest)][:MOST]
    if len(here) < 2:
        return ""
    base = ranking.base.checkpoint.digest if ranking.base is not None else None
    return told(here[0].tensors, supply.cosines([checkpoint.digest for checkpoint in here], ELEMENTS, base))


def told(tensors: Sequence[TensorSpec], cosines: Mapping[str, float]) -> str:
    """The sentence, from the mean cosine of each tensor; empty where these tell nothing."""
    matrices = [s for s in tensors if s.dtype in FLOATS and len(s.shape) > 1 and s.name in cosines]
    apart = [spec for spec in matrices if cosines[spec.name] < APART]
    others = [spec for spec in matrices if spec not in apart]
    if not apart or len(apart) > len(others) or (alike := _mean(others, cosines)) < ALIKE:
        return ""
    return (
        f"the candidates agree but for {listed([spec.name for spec in apart])} (mean cosine "
        f"{_mean(apart, cosines):.2f}, of all others {alike:.2f}): likely each run began with a head of its "
        "own, of which there is no average. Start all runs from one saved model, head included"
    )


def _mean(specs: Sequence[TensorSpec], cosines: Mapping[str, float]) -> float:
    """By the numbers of elements."""
    sizes = [math.prod(spec.shape) for spec in specs]
    weighed = sum(size * cosines[spec.name] for size, spec in zip(sizes, specs, strict=True))
    return weighed / sum(sizes) if any(sizes) else 0.0
