"""What a request would do, without evaluating anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.entities import Digest, Recipe, SoupRequest, Sweep

if TYPE_CHECKING:
    from registry.ports import Evaluator, Store


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


def plan(request: SoupRequest, sweep: Sweep, evaluators: Mapping[str, "Evaluator"], store: "Store") -> Plan:
    """Count the passes that a request needs beyond what is remembered."""
    digests = [candidate.checkpoint.digest for candidate in sweep.candidates]

    def missing(split: str) -> int:
        protocol = evaluators[split].protocol.digest
        return sum(_unknown(store, digest, protocol) for digest in digests)

    searches = {"greedy": len(digests) - 1}
    others = (request.report_on, *request.shifts)
    return Plan(
        sweep,
        sum(candidate.checkpoint.size for candidate in sweep.candidates),
        missing(request.select_on),
        sum(searches.get(method, 1) for method in request.methods),
        sum(missing(split) + len(request.methods) for split in others),
    )


def _unknown(store: "Store", checkpoint: Digest, protocol: Digest) -> bool:
    return store.score(Recipe.mean([checkpoint]).digest, protocol) is None
