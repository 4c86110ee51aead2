"""How the scores of a split's examples make one number, where examples belong to domains."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from stockpot.entities.digest import Digest, digest_of_document, short


@dataclass(frozen=True, eq=False)
class Aim:
    """The mean over domains of each domain's mean, by their weights; or the least of these means.

    Every step rounds monotonely (an exact sum, a quotient, products with weights, their exact sum, a
    quotient): where no example scores less, the value is not less. So what holds for the greatest scores
    that examples may have bounds the value. NaN as soon as an example of a domain that counts is NaN.

    Raises ValueError for no weight above zero, a weight that is below zero or not finite, and for a domain
    with a weight above zero that has no example.
    """

    domains: tuple[str, ...]
    """The label of each example, in the split's order."""
    weights: Mapping[str, float]
    """Of each domain that has part in it: numbers above zero, or zero for no part; any sum."""
    worst: bool = False
    """The least of the means of the domains with a weight above zero, in place of their mean."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.weights.values()):
            raise ValueError(f"weights of domains are numbers of zero or more, got {dict(self.weights)}")
        if not self.counting:
            raise ValueError("no domain has a weight above zero")
        if lacking := [domain for domain in self.counting if domain not in self._places]:
            raise ValueError(f"no example is of the domain {', '.join(lacking)}")

    @cached_property
    def counting(self) -> tuple[str, ...]:
        """The domains with a weight above zero, sorted."""
        return tuple(sorted(domain for domain, weight in self.weights.items() if weight > 0))

    @cached_property
    def _places(self) -> Mapping[str, tuple[int, ...]]:
        found: dict[str, list[int]] = defaultdict(list)
        for place, domain in enumerate(self.domains):
            found[domain].append(place)
        return {domain: tuple(places) for domain, places in sorted(found.items())}

    def places(self, domain: str) -> tuple[int, ...]:
        """Of the domain's examples, ascending. Raises KeyError for one that has none."""
        return self._places[domain]

    @property
    def all_domains(self) -> tuple[str, ...]:
        """Of examples, also those without a weight; sorted."""
        return tuple(self._places)

    @property
    def share(self) -> Mapping[str, float]:
        """Of each domain that counts, its part of the whole: they add up to one, as far as floats do."""
        total = math.fsum(self.weights[domain] for domain in self.counting)
        return {domain: self.weights[domain] / total for domain in self.counting}

    @cached_property
    def name(self) -> str:
        """What bounds are kept by: kind, weights, and which example is of which domain."""
        told = ", ".join(f"{domain}={self.weights[domain]:.17g}" for domain in self.counting)
        return f"{'least' if self.worst else 'mean'} of {told}; labels {short(self._digest)}"

    @cached_property
    def _digest(self) -> Digest:
        return digest_of_document(self.domains)

    def value(self, examples: Sequence[float]) -> float:
        """Of scores in the split's order. NaN where infinities of both signs leave no number."""
        return self.of({d: exact_mean([examples[i] for i in self._places[d]]) for d in self.counting})

    def of(self, by_domain: Mapping[str, float]) -> float:
        """Of a number for each domain that counts. NaN as in `value`."""
        means = [by_domain[domain] for domain in self.counting]
        if any(map(math.isnan, means)):
            return math.nan
        if self.worst:
            return min(means)
        try:
            total = math.fsum(self.weights[d] * m for d, m in zip(self.counting, means, strict=True))
            return total / math.fsum(self.weights[domain] for domain in self.counting)
        except (ValueError, OverflowError):
            return math.nan


def exact_mean(values: Sequence[float]) -> float:
    """From an exact sum. NaN where infinities of both signs, or a sum beyond the floats, leave none."""
    try:
        return math.fsum(values) / len(values)
    except (ValueError, OverflowError):
        return math.nan
