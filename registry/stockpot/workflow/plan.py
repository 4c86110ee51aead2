"""What a request would do, without evaluating anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.entities import EvaluationProtocol, Recipe, SoupRequest, Sweep
from stockpot.workflow.selecting.search import contenders_of

if TYPE_CHECKING:
    from stockpot.ports import Evaluator, MakeMethod, Store


@dataclass(frozen=True)
class Plan:
    """The candidates and exclusions of a sweep, and what it would cost to go on."""

    sweep: Sweep
    weight_bytes: int
    """Of all candidates together: what the cache holds for this sweep."""
    ranking_passes: int
    """Forward passes over the held-out split, to rank candidates that have no remembered score."""
    selection_passes: int
    """At most this many further passes over the held-out split."""
    report_passes: int
    """At most this many passes over the report and shifted splits, for the table and the figure."""
    protocol: EvaluationProtocol | None = None
    """Of the held-out split: what scores are remembered under."""


def plan(
    request: SoupRequest,
    sweep: Sweep,
    methods: Mapping[str, "MakeMethod"],
    evaluators: Mapping[str, "Evaluator"],
    store: "Store",
) -> Plan:
    """Count the passes that a request needs beyond what is remembered."""
    digests = [candidate.checkpoint.digest for candidate in sweep.candidates]
    contenders = contenders_of(sweep.candidates)

    def missing(split: str) -> int:
        protocol = evaluators[split].protocol.digest
        return sum(store.score(Recipe.mean([digest]).digest, protocol) is None for digest in digests)

    shown = len(digests) if request.points == "all" else 1 + request.points
    return Plan(
        sweep,
        sum(candidate.checkpoint.size for candidate in sweep.candidates),
        missing(request.select_on),
        sum(make(contenders, accept=request.accept).most_soups for make in methods.values()),
        sum(min(missing(split), shown) + len(methods) for split in (request.report_on, *request.shifts)),
        evaluators[request.select_on].protocol,
    )
