"""Comparisons where the examples of a split come from several domains: on their mixture, and on each."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from stockpot.entities import Comparison, Score
from stockpot.statistics.comparison import NO_INTERVAL, Pair, compare, compared
from stockpot.statistics.holm import holm

FEWEST_FOR_A_VERDICT = 30
"""Origins of a domain. Of fewer the difference is told, and nothing is said of it."""


def pairs_by_domain(
    baseline: Score,
    challenger: Score,
    domains: Sequence[str],
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Pair]:
    """Of one split, the pair of each domain's examples, by label in ascending order.

    Raises ValueError where labels, groups or scores differ in number, or a score has a metric of the split
    alone: that of a domain is no part of that.
    """
    _require_examples(len(domains), {"baseline": baseline, "challenger": challenger})
    if groups is not None and len(groups) != len(domains):
        raise ValueError(f"{len(groups)} groups for {len(domains)} labels of domains")
    places: dict[str, list[int]] = defaultdict(list)
    for place, domain in enumerate(domains):
        places[domain].append(place)
    return {
        domain: (
            baseline.of_domain(domain, places[domain]),
            challenger.of_domain(domain, places[domain]),
            None if groups is None else tuple([groups[place] for place in places[domain]]),
        )
        for domain in sorted(places)
    }


def routed(scores: Mapping[str, Score], domains: Sequence[str]) -> Score:
    """What a router that knows each example's domain would score: each example from its domain's specialist.

    `scores`: of each domain the specialist's, on the whole split. Specialists without examples have no part.

    Raises ValueError where a domain has no specialist, labels and scores differ in number, or a score has a
    metric of the split alone.
    """
    wanted = sorted(set(domains))
    if missing := [domain for domain in wanted if domain not in scores]:
        raise ValueError(f"no scores of a specialist for {', '.join(missing)}")
    if not wanted:
        raise ValueError("no examples to route")
    _require_examples(len(domains), {domain: scores[domain] for domain in wanted})
    first = scores[wanted[0]]
    if first.aim is not None and any(scores[domain].parts for domain in wanted):
        places = {domain: first.aim.places(domain) for domain in wanted}
        return Score.of_parts({d: scores[d].of_domain(d, places[d]) for d in wanted}, first.aim)
    examples = tuple([scores[domain].examples[place] for place, domain in enumerate(domains)])
    return replace(first, examples=examples, gaps=None)


def compare_mixture(
    name: str, pairs: Mapping[str, Pair], weights: Mapping[str, float], *, level: float = 0.95
) -> Comparison:
    """Compare the weighted mean over domains of each domain's mean; `name` is what the result calls it.

    `pairs`: of each domain its examples of one split; `weights`: one for each, zero or more. A domain of
    weight zero has no part. Without groups each example is an origin of its own, also where lengths agree.
    Origins may span domains.

    The interval is `compare_mean`'s, by the same table, with these differences:

    - The jackknife and the bootstrap keep the number of origins of each stratum: of those that are in the
      same domains (`Origins.strata`).
    - What the table asks of origins that differ or carry, it asks of each domain: rare losses on one are not
      known from another. `Origins.telling` says how much is open then.
    - For scores of 0 and 1 it is Tango's, of as many pairs as would have this standard error: each origin
      weighs as its domain does.

    Of one domain that has a weight, it is what `compare` finds. Some domain of too few origins leaves the
    mixture without interval: a weight of zero takes it out.

    Raises ValueError as `compare` does, where weights and pairs are not of the same domains, and where
    weights are negative, not finite, or all zero.
    """
    if weights.keys() != pairs.keys():
        raise ValueError(f"weights for {sorted(weights)} cannot weigh {sorted(pairs)}")
    if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
        raise ValueError(f"weights are zero or more, and one is more, got {dict(weights)}")
    part = {domain: pair for domain, pair in pairs.items() if weights[domain]}
    if len(part) > 1:
        return compared(name, part, level, [weights[domain] for domain in part])[0]
    ((before, after, groups),) = part.values()
    return compare(name, before, after, groups=groups, level=level)


def compare_domains(
    pairs: Mapping[str, Pair], *, level: float = 0.95
) -> tuple[dict[str, Comparison], frozenset[str]]:
    """Compare each domain's mean, and say of which it is shown to be another, better or worse: at most in
    1 - `level` of all such families is it shown of any that truly has none.

    The levels are Holm's (`holm`). A domain of fewer than FEWEST_FOR_A_VERDICT origins is not among them: it
    has its difference, and no interval.

    Raises ValueError as `compare` does.
    """
    found = {
        domain: replace(_at(pairs, domain, level), low=-math.inf, high=math.inf, method=NO_INTERVAL)
        for domain, (before, _, groups) in pairs.items()
        if len(before.examples if groups is None else set(groups)) < FEWEST_FOR_A_VERDICT
    }
    judged = [domain for domain in pairs if domain not in found]
    decided, shown = holm(judged, lambda domain, at: _at(pairs, domain, at), _differs, level=level)
    found |= decided
    return {domain: found[domain] for domain in pairs}, shown


def _at(pairs: Mapping[str, Pair], domain: str, level: float) -> Comparison:
    before, after, groups = pairs[domain]
    return compare(domain, before, after, groups=groups, level=level)


def _differs(found: Comparison) -> bool:
    return found.low > 0 or found.high < 0


def _require_examples(n: int, scores: Mapping[str, Score]) -> None:
    for name, score in scores.items():
        if score.metric is not None and score.parts is None:
            raise ValueError(f"the score {name} has a metric of the split, which is none of a domain")
        if len(score.examples) != n:
            raise ValueError(f"{len(score.examples)} examples of {name} for {n} labels of domains")
