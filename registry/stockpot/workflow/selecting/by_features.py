"""Specialists that answer together, each as much as the input is near to its domain (c-BTM).

The shares are known before a model answers, and are the same at all positions of an example.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from stockpot.entities import Recipe, SoupRequest
from stockpot.statistics import TEMPERATURE, nearest, nearness
from stockpot.workflow.selecting.by_posterior import NO_ROWS, TWO, Likelihoods, Mixed

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Features
    from stockpot.workflow.selecting.domains import Domains

BY_NEARNESS = "specialists together, by how near the input is to each domain"
BY_NEAREST_TWO = "the specialists of the two nearest domains together"
BY_NEAREST = "the specialist of the nearest domain"
ROUTED_BY_FEATURES = (BY_NEARNESS, BY_NEAREST_TWO, BY_NEAREST)
"""Nobody has to tell them the domain."""


def open_features(request: SoupRequest, bench: "Bench", domains: "Domains") -> Mapping[str, "Features"]:
    """Those of the held-out and the report split, where likelihoods may be mixed by them. Raises BadTask."""
    if not domains or not bench.has_log_likelihoods:
        return {}
    return bench.features((request.select_on, request.report_on))


def specialists_by_nearness(
    request: SoupRequest,
    domains: "Domains",
    specialists: Mapping[str, Recipe],
    features: Mapping[str, "Features"],
    evaluators: Mapping[str, "Evaluator"],
    bench: "Bench",
    stop: Callable[[], bool],
) -> tuple[tuple[Mixed, ...], tuple[str, ...]]:
    """On the report split: all of them, the two nearest, the nearest; and what is missing, or how it was
    done. Nothing where there are not two, or the task gives no log likelihoods that make its scores.

    It takes a pass over the report split for each specialist, none once `stop` is true. `specialists`: by
    domain. `features`: what `open_features` found.
    """
    aim = domains.aims.get(request.report_on)
    experts = [*dict.fromkeys(specialists.values())]
    if aim is None or len(experts) < TWO or not bench.has_log_likelihoods:
        return (), ()
    missing = f"{NO_ROWS} by nearness"
    if not features:
        return (), (f"{missing}: the task gives no features(split)",)
    if stop():
        return (), (f"{missing}: time is up",)
    reported = Likelihoods(experts, evaluators[request.report_on], bench)
    if not reported.told:
        return (), ()
    held_out = domains.aims[request.select_on]
    places = [held_out.places(domain) for domain in specialists]
    near = nearness(features[request.report_on], features[request.select_on], places)
    ways = {BY_NEARNESS: near, BY_NEAREST_TWO: nearest(near, TWO), BY_NEAREST: nearest(near, 1)}
    costs = {BY_NEARNESS: len(experts), BY_NEAREST_TWO: TWO, BY_NEAREST: 1}
    if len(experts) == TWO:
        del ways[BY_NEAREST_TWO]
    sums = bench.mixed_log_likelihoods([*specialists.values()], [*ways.values()], request.report_on)
    rows = tuple(
        Mixed(label, tuple(experts), reported.scored(own, aim), costs[label])
        for label, own in zip(ways, sums, strict=True)
    )
    how = (
        f"by nearness: each specialist weighs by softmax(-d^2 / {TEMPERATURE:g}), d the Euclidean distance "
        f"of an example's features from the mean of its domain's examples on split {request.select_on}"
    )
    return rows, (how,)
