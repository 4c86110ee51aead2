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
from stockpot.workflow.selecting.from_base import REACHES
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


def plan(  # noqa: PLR0913 - what there is, and what the task tells
    prospects: Prospects,
    supply: "Supply",
    methods: Mapping[str, "MakeMethod"],
    evaluators: Mapping[str, "Evaluator"],
    store: "Store",
    rule: OverlayRule | None = None,
    domains: Domains | None = None,
    *,
    likelihoods: bool = False,
    features: bool = False,
) -> Plan:
    """Count the passes that a request needs beyond what is remembered. `rule`: by which soups get statistics.
    `domains`: what specialists are looked for. `likelihoods`: whether the task tells those of positions, by
    which they answer together. `features`: whether it tells those of examples as well. Raises NothingToSoup.
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
    beside = _among_domains(request, sweep.candidates, domains, likelihoods=likelihoods, features=features)
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
        soups + beside.held_out,
        sum(min(missing(split), shown) + len(methods) for split in (request.report_on, *request.shifts))
        + beside.reported,
        evaluators[request.select_on].protocol,
        0 if request.base is None else passes_of_base(request),
        0 if rule is None else soups + between + beside.soups,
    )


@dataclass(frozen=True)
class _Passes:
    """What is asked for among domains beside the request's methods, at most."""

    held_out: int = 0
    reported: int = 0
    """Over the report split, the shifted ones, and the target."""
    soups: int = 0
    """That get statistics."""

    def __add__(self, other: "_Passes") -> "_Passes":
        return _Passes(
            self.held_out + other.held_out, self.reported + other.reported, self.soups + other.soups
        )


def _among_domains(
    request: SoupRequest,
    candidates: Sequence[Candidate],
    domains: Domains | None,
    *,
    likelihoods: bool,
    features: bool = False,
) -> _Passes:
    if not domains:
        return _Passes()
    found = _of_specialists(request, candidates, domains, likelihoods=likelihoods, features=features)
    if of_all := len(of_all_data(candidates, domains)):
        found += _Passes(of_all - 1, min(of_all, 2), of_all - 1)  # the best of them, and their soup
    return found + _of_every_way(request, candidates, domains) if request.compare_all else found


def _of_every_way(request: SoupRequest, candidates: Sequence[Candidate], domains: Domains) -> _Passes:
    """The mean of the specialists on every split; the generalist without the runs of each domain on two. With
    a base also TIES on every split, and what the extrapolation is chosen from on the first.
    """
    told = [domains.told(candidate.run) for candidate in candidates]
    alone = {domain for each in told for domain in labels(each) if domain != ALL and is_own(each, domain)}
    has_all = all(own_candidates(domain, candidates, domains.runs) for domain in domains.counting)
    left = len(alone) if GENERALIST in request.methods else 0
    across = int(has_all and len(domains.counting) > 1)
    from_base = request.base is not None and GENERALIST in request.methods
    beyond, ties = (len(REACHES), int(len(candidates) > 1)) if from_base else (0, 0)
    rows = across + ties + int(from_base)
    held_out = left + across + beyond + ties
    return _Passes(held_out, left + rows * (1 + len(request.shifts)), held_out)


def _of_specialists(
    request: SoupRequest,
    candidates: Sequence[Candidate],
    domains: Domains,
    *,
    likelihoods: bool,
    features: bool,
) -> _Passes:
    aim = domains.aims[request.select_on]
    found = {domain: len(own_candidates(domain, candidates, domains.runs)) for domain in aim.counting}
    own = {domain: count for domain, count in found.items() if count}
    # Of H runs one pass shows that scores can be read off those of the whole split, and H - 1 are of soups.
    # What was found is scored on all of it, and each domain's best run on the report split.
    parts = sum(len(aim.places(domain)) * count for domain, count in own.items()) / len(aim.domains)
    several = len(own) > 1
    factors = int(likelihoods and several)  # a pass that tells them, where outputs are not remembered
    positions = len(own) if features and several else 0
    target = len(own) + 1 if request.target is not None and several else 0  # their average, too
    return _Passes(
        math.ceil(parts) + len(own) + factors,
        len(own) * (2 + len(request.shifts)) + several + factors + positions + target,
        sum(count - 1 for count in own.values()) + several,
    )
