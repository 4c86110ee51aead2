"""Specialists that answer together, by the posterior of each example's domain (Branch-Train-Merge).

What a specialist scores is its log likelihood times what depends on the example alone, such as one over its
positions. One pass at most tells that factor; all else is read off scores.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.entities import Aim, Recipe, Score, SoupRequest
from stockpot.prose import counted
from stockpot.statistics import cached_prior, kinds, likeliest, together, uniform
from stockpot.workflow.selecting.watched import score_in_full

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Watcher
    from stockpot.workflow.selecting.domains import Domains

BY_POSTERIOR = "specialists together, by the posterior of the domain"
BY_CACHED_PRIOR = "specialists together, by the posterior from each domain's cached prior"
BY_LIKELIEST = "the two specialists of the greatest cached prior together"
TWO = 2
NO_ROWS = "no row for specialists together"
Prior = tuple[float, ...]


@dataclass(frozen=True)
class Mixed:
    """Specialists that answer together, on the report split."""

    label: str
    recipes: tuple[Recipe, ...]
    score: Score
    inference_cost: int
    """Forward passes per input."""


def specialists_together(
    request: SoupRequest,
    domains: "Domains",
    specialists: Sequence[Recipe],
    evaluators: Mapping[str, "Evaluator"],
    bench: "Bench",
    stop: Callable[[], bool],
    watch: "Watcher",
) -> tuple[tuple[Mixed, ...], tuple[str, ...]]:
    """One for each way to know the domain beforehand, where the task gives log likelihoods; and what is
    missing. Nothing where there are not two. `specialists`: that of each domain, which may be another's too.

    A cached prior is learnt on the domain's held-out examples, which takes a pass over the held-out split for
    each specialist that has not been scored there in full: none once `stop` is true.
    """
    aim = domains.aims.get(request.report_on)
    experts = [*dict.fromkeys(specialists)]
    if aim is None or len(experts) < TWO:
        return (), ()
    if not bench.has_log_likelihoods:
        return (), (f"{NO_ROWS}: the task gives no log_likelihood(outputs, batch)",)
    reported = Likelihoods(experts, evaluators[request.report_on], bench)
    if not reported.told:
        return (), (f"{NO_ROWS}: {UNLIKE}",)
    blind = dict.fromkeys(aim.all_domains, uniform(len(experts)))
    found = [Mixed(BY_POSTERIOR, tuple(experts), reported.mixed(blind, aim), len(experts))]
    if stop():
        return tuple(found), (f"{NO_ROWS} by a cached prior: time is up",)
    before = bench.passes
    held_out = Likelihoods(experts, evaluators[request.select_on], bench)
    took = bench.passes - before
    if took:
        watch.say(
            f"a prior for each domain: {counted(len(experts), 'specialist')} took {took:.3g} passes over "
            f"split {request.select_on}"
        )
    if not held_out.told:
        return tuple(found), (f"{NO_ROWS} by a cached prior: {UNLIKE}",)
    priors = blind | held_out.priors(domains.aims[request.select_on])
    found.append(Mixed(BY_CACHED_PRIOR, tuple(experts), reported.mixed(priors, aim), len(experts)))
    if len(experts) > TWO:
        few = {domain: likeliest(prior, TWO) for domain, prior in priors.items()}
        found.append(Mixed(BY_LIKELIEST, tuple(experts), reported.mixed(few, aim), TWO))
    return tuple(found), ()


UNLIKE = (
    "score() is not the sum of log_likelihood() times a factor above zero of each example; "
    "`stockpot task check` tells"
)


class Likelihoods:
    """Of all examples of a split, by each expert."""

    def __init__(self, experts: Sequence[Recipe], evaluator: "Evaluator", bench: "Bench") -> None:
        self._scores = [score_in_full(expert, evaluator).examples for expert in experts]
        self._factors = [1.0] * len(self._scores[0])
        """Of each example: what its log likelihood is multiplied with to be its score."""
        open_ = {*range(len(self._factors))}
        for expert, scores in zip(experts, self._scores, strict=True):
            # A score of zero tells nothing, and is zero by whatever factor.
            wanted = [place for place in open_ if scores[place] and math.isfinite(scores[place])]
            if not wanted:
                continue
            sums = bench.log_likelihoods(expert, evaluator.protocol.split)
            for place in wanted:
                self._factors[place] = scores[place] / sums[place] if sums[place] else math.nan
            open_ -= {*wanted}
        self.told = all(factor > 0 and math.isfinite(factor) for factor in self._factors)
        """Whether these are factors of log likelihoods."""

    def mixed(self, priors: Mapping[str, Prior], aim: Aim) -> Score:
        """What the experts score together; the examples of each domain by its prior."""
        scores = [math.nan] * len(self._factors)
        for domain in aim.all_domains:
            places = aim.places(domain)
            for place, log in zip(places, together(self._logs(places), priors[domain]), strict=True):
                scores[place] = log * self._factors[place]
        return Score(tuple(scores), aim=aim)

    def scored(self, sums: Sequence[float], aim: Aim) -> Score:
        """What those score that give the examples these log likelihoods."""
        return Score(tuple(log * own for log, own in zip(sums, self._factors, strict=True)), aim=aim)

    def priors(self, aim: Aim) -> dict[str, Prior]:
        """Of each domain that has examples here, by these."""
        return {domain: cached_prior(self._logs(aim.places(domain))) for domain in aim.all_domains}

    def kinds(self) -> Prior:
        """How likely an example is of each expert's domain. A cached prior would be that of the last few."""
        return kinds(self._logs(range(len(self._factors))))

    def _logs(self, places: Sequence[int]) -> list[list[float]]:
        return [[scores[place] / self._factors[place] for place in places] for scores in self._scores]
