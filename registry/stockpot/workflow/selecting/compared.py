"""Paired comparisons as a request aims its scores: on the mixture, where examples are of several domains."""

from collections.abc import Hashable, Sequence

from stockpot.entities import Comparison, Score
from stockpot.statistics import compare, compare_mixture, pairs_by_domain


def compared(
    split: str, baseline: Score, challenger: Score, *, groups: Sequence[Hashable] | None = None
) -> Comparison:
    """Of the two scores' values: of the mixture of domains, where they have an aim."""
    aim = baseline.aim
    if aim is None:
        return compare(split, baseline, challenger, groups=groups)
    pairs = pairs_by_domain(baseline, challenger, aim.domains, groups)
    return compare_mixture(split, {domain: pairs[domain] for domain in aim.counting}, aim.share)


def compared_on(
    domain: str, split: str, baseline: Score, challenger: Score, *, groups: Sequence[Hashable] | None = None
) -> Comparison:
    """On this domain's examples alone. Raises ValueError for scores without domains."""
    if baseline.aim is None:
        raise ValueError(f"the scores on split {split} are of no domains")
    one, other, own = pairs_by_domain(baseline, challenger, baseline.aim.domains, groups)[domain]
    return compare(f"{split} of {domain}", one, other, groups=own)
