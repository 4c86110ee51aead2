"""What a request would do, without downloading or evaluating anything."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Digest,
    EvaluationProtocol,
    Exclusion,
    OverlayRule,
    Recipe,
    Run,
    SoupRequest,
    WeightsSource,
)
from stockpot.entities.domain import ALL, is_own, labels
from stockpot.selection import is_by_group
from stockpot.workflow.gathering.arrivals import Prospects
from stockpot.workflow.gathering.expected import doubts, expected_sweep, is_read
from stockpot.workflow.selecting.all_data import of_all_data
from stockpot.workflow.selecting.curve import SHARES, passes_of_base
from stockpot.workflow.selecting.domains import Domains
from stockpot.workflow.selecting.overlaid import told
from stockpot.workflow.selecting.rows import GENERALIST
from stockpot.workflow.selecting.search import contenders_of, with_base
from stockpot.workflow.selecting.specialists import own_candidates

if TYPE_CHECKING:
    from stockpot.ports import Evaluator, MakeMethod, Store
    from stockpot.workflow.gathering.supply import Supply


@dataclass(frozen=True)
class PlannedCandidate:
    """A run that will be a candidate, as far as its header tells."""

    run: Run
    source: WeightsSource
    checkpoint: Checkpoint | None
    """None where its weights were never read."""


@dataclass(frozen=True)
class Plan:
    """The candidates and exclusions of a sweep, and what it would cost to go on."""

    candidates: tuple[PlannedCandidate, ...]
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]
    """What was taken for granted, and what only the weights' bytes can tell."""
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
    base_passes: int = 0
    """At most this many passes for the base's row and the curve from there, on all of those splits."""
    statistics_passes: int = 0
    """At most this many passes over the examples on which statistics of soups are estimated."""


def plan(
    prospects: Prospects,
    supply: "Supply",
    methods: Mapping[str, "MakeMethod"],
    evaluators: Mapping[str, "Evaluator"],
    store: "Store",
    rule: OverlayRule | None = None,
    domains: Domains | None = None,
    *,
    likelihoods: bool = False,
) -> Plan:
    """Count the passes that a request needs beyond what is remembered. `rule`: by which soups get statistics.
    `domains`: what specialists are looked for. `likelihoods`: whether the task tells those of positions, by
    which they answer together. Raises NothingToSoup.
    """
    request, sweep = prospects.request, expected_sweep(prospects, supply)
    contenders = contenders_of(sweep.candidates)
    singles = [Recipe.mean([contender.checkpoint]).digest for contender in contenders]

    def missing(split: str) -> int:
        return len(singles) - len(store.scored(singles, evaluators[split].protocol.digest))

    complete = with_base(methods, Digest("unread:base"), Digest("unread:coefficients"))
    # By group: of D domains of H runs D (H - 1) + 1, which is never more than one for each.
    soups = sum(
        len(contenders) if is_by_group(make) else make(contenders, accept=request.accept).most_soups
        for make in complete.values()
    )
    special = _of_specialists(request, sweep.candidates, domains, likelihoods=likelihoods)
    of_all = 0 if not domains else len(of_all_data(sweep.candidates, domains))
    beside = _of_every_way(request, sweep.candidates, domains)
    between = 0 if request.base is None else len(SHARES) - 2
    shown = len(contenders) if request.points == "all" else 1 + request.points
    return Plan(
        tuple(
            PlannedCandidate(c.run, c.source, c.checkpoint if is_read(c) else None) for c in sweep.candidates
        ),
        sweep.exclusions,
        (
            *prospects.notes,
            *told(request, rule),
            *(domains.notes if domains else ()),
            *doubts(prospects, sweep),
        ),
        sum(candidate.checkpoint.size for candidate in sweep.candidates),
        missing(request.select_on),
        soups + special.selection + max(of_all - 1, 0) + beside.each_split + beside.across,
        sum(
            min(missing(split), shown) + len(methods) + special.count
            for split in (request.report_on, *request.shifts)
        )
        + special.references
        + min(of_all, 2)  # the best of them, and their soup
        + beside.each_split
        + beside.across * (1 + len(request.shifts)),
        evaluators[request.select_on].protocol,
        0 if request.base is None else passes_of_base(request),
        0
        if rule is None
        else soups + between + special.soups + max(of_all - 1, 0) + beside.each_split + beside.across,
    )


@dataclass(frozen=True)
class _OfSpecialists:
    """What they cost beside the request's methods, at most."""

    count: int = 0
    selection: int = 0
    """Passes over the held-out split: searches take parts of one, and what they found is scored on all."""
    references: int = 0
    """Passes over the report split: of each domain's best run, and of the average of these. Over the target
    split, where there is one: of each specialist.
    """
    soups: int = 0
    """That get statistics."""


@dataclass(frozen=True)
class _OfEveryWay:
    """What is measured beside the choices, at most."""

    each_split: int = 0
    """Soups on the held-out and on the report split: without the runs of each domain."""
    across: int = 0
    """Soups on every split: the mean of the specialists."""


def _of_every_way(
    request: SoupRequest, candidates: Sequence[Candidate], domains: Domains | None
) -> _OfEveryWay:
    if domains is None or not domains or not request.compare_all:
        return _OfEveryWay()
    told = [domains.told(candidate.run) for candidate in candidates]
    alone = {domain for each in told for domain in labels(each) if domain != ALL and is_own(each, domain)}
    has_all = all(own_candidates(domain, candidates, domains.runs) for domain in domains.counting)
    left = len(alone) if GENERALIST in request.methods else 0
    return _OfEveryWay(left, int(has_all and len(domains.counting) > 1))


def _of_specialists(
    request: SoupRequest,
    candidates: Sequence[Candidate],
    domains: Domains | None,
    *,
    likelihoods: bool = False,
) -> _OfSpecialists:
    aim = None if domains is None else domains.aims.get(request.select_on)
    if domains is None or aim is None:
        return _OfSpecialists()
    found = {domain: len(own_candidates(domain, candidates, domains.runs)) for domain in aim.counting}
    own = {domain: count for domain, count in found.items() if count}
    if not own:
        return _OfSpecialists()
    # Of H runs one pass shows that scores can be read off those of the whole split, and H - 1 are of soups.
    parts = sum(len(aim.places(domain)) * count for domain, count in own.items()) / len(aim.domains)
    mean = int(len(own) > 1)
    target = len(own) + 1 if request.target is not None and len(own) > 1 else 0  # their average, too
    factors = int(likelihoods and len(own) > 1)  # a pass that tells them, where outputs are not remembered
    soups = sum(count - 1 for count in own.values()) + mean
    return _OfSpecialists(
        len(own), math.ceil(parts) + len(own) + factors, len(own) + mean + factors + target, soups
    )
