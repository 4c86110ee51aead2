"""The walk of one sweep, from its name to its registered soups."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from traceback import clear_frames
from typing import TYPE_CHECKING, Protocol, TypeVar

from stockpot.entities import (
    Aim,
    Candidate,
    Job,
    Opening,
    OverlayRule,
    Recipe,
    Selection,
    SoupOutcome,
    SoupReport,
    SoupRequest,
)
from stockpot.errors import NoRoomForWeights, OutOfDeviceMemory
from stockpot.ports import Records
from stockpot.workflow.gathering.arrivals import Arrivals, Prospects
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.gathering.starting_point import find_base
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.publishing.markdown import folded
from stockpot.workflow.publishing.page import tables_in_markdown
from stockpot.workflow.publishing.publish import Publisher
from stockpot.workflow.publishing.rehearsal import Rehearsal
from stockpot.workflow.selecting.all_data import search_all_data
from stockpot.workflow.selecting.by_domain import with_domains
from stockpot.workflow.selecting.by_features import open_features, specialists_by_nearness
from stockpot.workflow.selecting.by_posterior import specialists_together
from stockpot.workflow.selecting.by_target import averaged_for_target, open_target
from stockpot.workflow.selecting.domains import Domains, domains_of
from stockpot.workflow.selecting.every_way import every_way, with_every_way
from stockpot.workflow.selecting.heads import heads_apart
from stockpot.workflow.selecting.measure import measure, open_splits
from stockpot.workflow.selecting.overlaid import overlaid, overlay_rule, told
from stockpot.workflow.selecting.ranking import Ranking, rank
from stockpot.workflow.selecting.search import around_base, by_group, require_base, require_groups, search
from stockpot.workflow.selecting.specialists import Specialist, search_specialists
from stockpot.workflow.sharing.in_parts import plain_split, shared_split
from stockpot.workflow.sharing.opening import NOT_OPEN, halve_as_before, opening_of
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Features, MakeMethod, Store, Watcher

T = TypeVar("T")


class Stage(Protocol):
    """Runs one named stage of the walk: plainly, or as a task of an orchestrator."""

    def __call__(self, name: str, work: Callable[[], T], /) -> T:
        """What the work returns."""
        ...


class Place(Records, Protocol):
    """The adapters that a walk needs."""

    @property
    def supply(self) -> Supply:
        """Weights by digest."""
        ...

    def methods(self, request: SoupRequest) -> Mapping[str, "MakeMethod"]:
        """The request's selection methods by name."""
        ...

    def reading(self, request: SoupRequest) -> AbstractContextManager[None]:
        """Notes what the request's task reads in its ``with`` blocks, of which there may be several."""
        ...

    def bench(self, request: SoupRequest) -> "Bench":
        """The request's task."""
        ...

    def publisher(self, bench: "Bench", watch: "Watcher") -> Publisher:
        """What registers soups."""
        ...

    def start_helpers(self, job: Job) -> None:
        """Let others take part in the job, unless they do already: other devices, other machines."""
        ...


@dataclass(frozen=True)
class Leader:
    """The process that works on a job: the owner of its lease."""

    job: Job
    owner: str


@dataclass(frozen=True)
class _Opened:
    """What there is to evaluate on, and how."""

    splits: Mapping[str, "Evaluator"]
    rule: OverlayRule | None
    """By which soups get statistics."""
    domains: Domains
    target: "Evaluator | None"
    """What the specialists are averaged for."""
    features: Mapping[str, "Features"]
    """By which they may answer together, by split."""


@dataclass(frozen=True)
class _Found:
    """What was chosen on the held-out split."""

    selections: tuple[Selection, ...]
    specialists: tuple[Specialist, ...]
    of_all_data: Mapping[str, Recipe]
    lacking: tuple[str, ...]
    """What there is no specialist of, and why."""


def walk(
    request: SoupRequest, place: Place, stage: Stage, watch: "Watcher", leader: Leader | None = None
) -> SoupOutcome:
    """Gather, prove permissions, read the base if one is named, rank, select, measure, publish.

    The sweep is looked up first: its faults are told before the task's splits and the device are opened,
    which may take long. Nothing is kept between the stages but what the store and MLflow hold: a second walk
    for the same request asks the same questions, finds them answered, and ends in the same versions. Where
    batches do not fit the device, what follows the look-up begins again with half of them: raises
    OutOfDeviceMemory where not even a single example fits, or where that is no help. What the splits were
    opened with, and the candidates, are kept as those of the leader's job, so that other processes can help.
    """
    opened_before = _take_over(leader, place.store)
    stop = _deadline(request.max_seconds)
    reading = place.reading(request)
    with reading:
        methods, bench = place.methods(request), place.bench(request)
        bench.fits(())  # makes the task's model, which may read files as well
    prospects = stage("gather", lambda: gather(request, place.tracker, place.supply, bench.fits, watch))
    experiment = prospects.found[0].run.experiment_id
    stage("prove permissions", lambda: place.tracker.prove_writable(request.model, experiment))
    base = None
    if request.base is not None:
        base = stage(
            "read the base", lambda: find_base(prospects, place.tracker, place.supply, bench.fits, watch.say)
        )
    require_base(methods, base)
    own = bench.batch_size
    halve_as_before(bench, own, opened_before)
    said = False
    while True:
        try:
            with reading:
                splits, rule = open_splits(request, bench), overlay_rule(request, bench)
                domains = domains_of(request, bench, prospects.runs, prospects.datasets)
                target = open_target(request, bench, splits)
                features = open_features(request, bench, domains)
            for sentence in () if said else (*told(request, rule), *domains.notes):
                watch.say(sentence)
            said = True
            require_groups(methods, domains)
            if leader is not None:
                place.store.open_job(leader.job, opening_of(splits, bench, own, rule), owner=leader.owner)
            opened = _Opened(splits, rule, domains, target, features)
            searched = overlaid(methods, rule)
            return _walk(prospects, base, place, searched, bench, opened, stop, stage, watch, leader)
        except NoRoomForWeights:
            raise
        except OutOfDeviceMemory as error:
            clear_frames(error.__traceback__)  # whoever keeps the error keeps no tensors
            before = bench.batch_size
            if before == 1:
                raise
        bench.halve_batch()
        watch.say(
            f"batches of {before} examples do not fit the device: all is evaluated in batches of "
            f"{bench.batch_size}, which is another protocol; scores under the first are not used"
        )


def _take_over(leader: Leader | None, store: "Store") -> Opening | None:
    """How whoever led before opened the job's splits. Who helps waits until this process has opened them."""
    if leader is None:
        return None
    before = store.opening(leader.job.name)
    store.open_job(leader.job, NOT_OPEN, owner=leader.owner)
    return before


def _walk(  # noqa: PLR0913, PLR0917 - what the stages need, each once
    prospects: Prospects,
    base: Candidate | None,
    place: Place,
    methods: Mapping[str, "MakeMethod"],
    bench: "Bench",
    opened: _Opened,
    stop: Callable[[], bool],
    stage: Stage,
    watch: "Watcher",
    leader: Leader | None,
) -> SoupOutcome:
    request = prospects.request
    publisher = place.publisher(bench, watch)
    rehearsal = Rehearsal(publisher.packer, request)

    def before(recipe: Recipe) -> None:
        """There is something to evaluate."""
        if base is None or recipe.checkpoints != (base.checkpoint.digest,):  # no run's of the sweep
            rehearsal(recipe)
        if leader is not None:
            place.start_helpers(leader.job)

    evaluators, target = _shared(request, opened, place.store, bench, before, watch)
    held_out = evaluators[request.select_on]
    arrivals = Arrivals(prospects, place.supply, bench.fits, watch, base)
    ranking = replace(stage("rank", lambda: rank(arrivals, held_out, watch, stop)), base=base)
    if leader is not None:
        of_runs = [base] if base is not None and base.run.run_id else []
        place.store.commit_candidates(leader.job, [*ranking.candidates, *of_runs])
    plain = plain_split(request.select_on, bench, held_out.aim) if request.verify_exact else None
    methods, left_out = around_base(methods, ranking, place.supply)
    methods, not_grouped = by_group(methods, ranking, opened.domains)

    def select() -> _Found:
        domains, rule = opened.domains, opened.rule
        selections = search(request, ranking, methods, held_out, stop, watch, plain)
        own, lacking = search_specialists(request, ranking, domains, bench, held_out, rule, stop, watch)
        of_all_data = search_all_data(request, ranking, domains, held_out, rule, stop, watch, plain)
        return _Found(selections, own, of_all_data, lacking)

    def measured() -> SoupReport:
        every = [*found.selections, *(specialist.selection for specialist in found.specialists)]
        whole = measure(request, ranking, every, evaluators, bench, stop, watch)
        told = _with_domains(whole, found, evaluators, target, bench, opened, stop, watch)
        return _comparing_all(told, found, ranking, evaluators, bench, opened, stop, watch)

    found = stage("select", select)
    for selection in found.selections:
        place.store.commit_selection(selection, held_out.protocol)
    for specialist in found.specialists:
        place.store.commit_selection(specialist.selection, specialist.protocol)
    report = stage("measure", measured)
    notes = (*report.notes, *left_out, *not_grouped, *opened.domains.notes, *found.lacking)
    report = replace(report, notes=notes)
    place.store.commit_report(report)
    report = replace(report, hint=heads_apart(report, ranking, place.supply) or None)
    with _told_if_it_fails(report, watch):
        soups = stage("publish", lambda: publisher.publish(report, ranking, evaluators[request.report_on]))
    asked = (*evaluators.values(), *([target] if target else []))
    return SoupOutcome(report, soups, sum(evaluator.started for evaluator in asked), bench.passes)


def _shared(
    request: SoupRequest,
    opened: _Opened,
    store: "Store",
    bench: "Bench",
    before: Callable[[Recipe], None],
    watch: "Watcher",
) -> tuple[dict[str, SharedEvaluator], SharedEvaluator | None]:
    """What scores each split, and what scores the target, with what all processes know."""

    def shared(evaluator: "Evaluator", aim: Aim | None = None, *, compared: bool = False) -> SharedEvaluator:
        return shared_split(evaluator, store, bench, aim, compared=compared, before=before, say=watch.say)

    aims = opened.domains.aims
    found = {
        split: shared(evaluator, aims.get(split), compared=split != request.select_on)
        for split, evaluator in opened.splits.items()
    }
    return found, None if opened.target is None else shared(opened.target)


def _with_domains(
    report: SoupReport,
    found: _Found,
    evaluators: Mapping[str, SharedEvaluator],
    target: SharedEvaluator | None,
    bench: "Bench",
    opened: _Opened,
    stop: Callable[[], bool],
    watch: "Watcher",
) -> SoupReport:
    """The report, with what it tells of domains, where there are several."""
    request, domains = report.request, opened.domains
    if not domains:
        return report
    own = {specialist.domain: specialist.recipe for specialist in found.specialists}
    mixed, missing = specialists_together(request, domains, [*own.values()], evaluators, bench, stop, watch)
    near, told = specialists_by_nearness(request, domains, own, opened.features, evaluators, bench, stop)
    mixed, missing = (*mixed, *near), (*missing, *told)
    groups, evaluator = bench.groups(request.report_on), evaluators[request.report_on]
    if target is not None:
        average, shares = averaged_for_target(request, own, target, evaluator, bench, opened.rule, stop)
        mixed, missing = (*mixed, *([average] if average else [])), (*missing, shares)
    report = with_domains(
        report, domains, found.specialists, evaluator, groups, opened.rule, mixed, found.of_all_data
    )
    return replace(report, notes=(*report.notes, *missing))


def _comparing_all(
    report: SoupReport,
    found: _Found,
    ranking: Ranking,
    evaluators: Mapping[str, SharedEvaluator],
    bench: "Bench",
    opened: _Opened,
    stop: Callable[[], bool],
    watch: "Watcher",
) -> SoupReport:
    """The report, with what is no choice, where the request asks for that."""
    if not report.request.compare_all:
        return report
    rows = [(row.methods, row.recipe) for row in report.rows]
    every = ranking.candidates, opened.domains, opened.rule, ranking.base
    ways = every_way(rows, found.specialists, *every)
    return with_every_way(report, ways, evaluators, bench, stop, watch)


@contextmanager
def _told_if_it_fails(report: SoupReport, watch: "Watcher") -> Iterator[None]:
    """What took hours to measure is shown, whatever goes wrong after it."""
    try:
        yield
    except OutOfDeviceMemory:  # the walk begins again
        raise
    except BaseException:
        watch.say("What was measured before this stopped, and is remembered:")
        for line in "\n".join(tables_in_markdown(report, folded)).splitlines():
            watch.say(line)
        raise


def in_turn(_name: str, work: Callable[[], T], /) -> T:
    """Run a stage as a plain call."""
    return work()


def _deadline(seconds: float | None) -> Callable[[], bool]:
    if seconds is None:
        return lambda: False
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end
