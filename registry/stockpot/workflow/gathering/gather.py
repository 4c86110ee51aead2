"""From a sweep's runs to its prospects: listed, and told apart by their headers before any download."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stockpot.entities import ExclusionReason, Run, SoupRequest, TensorSpec, WeightsSource
from stockpot.entities.request import INPUTS
from stockpot.entities.weights_names import is_adapter
from stockpot.errors import BadCheckpoint
from stockpot.soup import CODES, cast_tensors
from stockpot.workflow.gathering.adapters import Adapters, of_one_base, told_bases
from stockpot.workflow.gathering.ahead import ahead
from stockpot.workflow.gathering.arrivals import Prospect, Prospects
from stockpot.workflow.gathering.checkpoint_choice import choice_of
from stockpot.workflow.gathering.exclusion_rules import REASONS, Gathering
from stockpot.workflow.gathering.expected import expected_sweep
from stockpot.workflow.gathering.headers import layout_of
from stockpot.workflow.gathering.odd_numberings import alike
from stockpot.workflow.gathering.recalled import Recalled
from stockpot.workflow.gathering.shortlist import Shortlist

if TYPE_CHECKING:
    from stockpot.ports import Tracker, Watcher
    from stockpot.workflow.gathering.supply import Supply

LOOKS = 8
"""Runs whose weights are looked for at once: several small requests each, which wait on the server."""


def gather(
    request: SoupRequest,
    tracker: "Tracker",
    supply: "Supply",
    fits: Callable[[Sequence[TensorSpec]], Sequence[str]],
    watch: "Watcher",
) -> Prospects:
    """List the sweep, find each run's weights, and leave out what its header shows to be incompatible.

    `fits` tells how tensors differ from the task's model. Raises UnknownSweep for a sweep that does
    not exist, BadRequest for one that still runs and for a metric that was not logged, NothingToSoup when
    fewer than two runs can be candidates.
    """
    prospects = find_prospects(request, tracker, supply, fits, watch)
    if len(prospects.found) < 2:
        expected_sweep(prospects, supply)  # raises
    return prospects


def find_prospects(
    request: SoupRequest,
    tracker: "Tracker",
    supply: "Supply",
    fits: Callable[[Sequence[TensorSpec]], Sequence[str]],
    watch: "Watcher",
    seen: Callable[[Run, Sequence[WeightsSource]], object] = lambda *_: None,
) -> Prospects:
    """The same, with however few prospects.

    `seen` is told every weights file of each run, by several threads at once.
    """
    recalled = supply.recalled()
    shortlist = _list(request, tracker, watch, recalled)
    runs = shortlist.chosen()
    gathering, adapters = Gathering(shortlist.exclusions), Adapters(request, tracker)
    layouts: dict[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] = {}  # each once: thousands have the same

    def look(run: Run) -> Prospect | None:
        source, why = _chosen(run, request, tracker, shortlist, gathering, seen)
        if source is None:
            return None
        source = replace(source, run_ended=run.ended)
        try:
            source, layout, base = _headers(source, tracker, supply, adapters)
            if request.dtype is not None:
                source, layout = _cast(source, layout, CODES[request.dtype], supply)
        except BadCheckpoint as fault:  # told as where the file is downloaded
            gathering.exclude_unread(run, source, fault)
            return None
        return Prospect(run, source, layout and layouts.setdefault(layout, layout), why, base)

    found = []
    stage = "find weights"
    watch.start(stage, len(runs))
    for batch in ahead(look, runs, at_once=LOOKS):
        for prospect in batch:
            if prospect and (
                prospect.layout is None
                or gathering.can_be_averaged(
                    prospect.run, prospect.layout, fits, merged=prospect.source.base is not None
                )
            ):
                found.append(prospect)
            watch.advance(stage)
    found = alike(found, gathering, supply.numberings)
    found = of_one_base(found, request, supply, gathering)
    notes = told_bases(found, supply, watch)
    return Prospects(
        request,
        tuple(found),
        tuple(gathering.exclusions),
        shortlist.order,
        (*shortlist.notes(), *notes),
        len(shortlist.unfinished),
        recalled,
        adapters.paths,
        tracker.datasets([one.run.run_id for one in found]) if request.domain_from == INPUTS else {},
    )


def _chosen(
    run: Run,
    request: SoupRequest,
    tracker: "Tracker",
    shortlist: Shortlist,
    gathering: Gathering,
    seen: Callable[[Run, Sequence[WeightsSource]], object],
) -> tuple[WeightsSource | None, str]:
    """The run's one weights file, and why this of several; None where the run was excluded."""
    why = []

    def choose(sources: Sequence[WeightsSource]) -> WeightsSource:
        source, told = choice_of(sources, request, tracker)
        why.append(told)
        return source

    try:
        found = tracker.weights(run)
        seen(run, found)
        below = shortlist.below[run.run_id]
        return gathering.choose_weights(run, found, request.pattern, choose, below), "".join(why)
    except BadCheckpoint as error:
        reason = REASONS.get(type(error), ExclusionReason.NO_WEIGHTS)
        gathering.exclude(run, reason, error.what, error.mend)
        return None, ""


def _list(request: SoupRequest, tracker: "Tracker", watch: "Watcher", recalled: Recalled) -> Shortlist:
    shortlist = Shortlist(request, recalled)
    stage = "list runs"
    watch.start(stage, 0)  # nobody knows how many
    for run in tracker.runs(request.selector):
        shortlist.add(run)
        watch.advance(stage)
    shortlist.require_finished()
    shortlist.require_metric()
    for note in shortlist.notes(tracker.parent(request.selector)):
        watch.say(note)
    return shortlist


def _headers(
    source: WeightsSource, tracker: "Tracker", supply: "Supply", adapters: Adapters
) -> tuple[WeightsSource, tuple[TensorSpec, ...] | None, str]:
    """The source, of an adapter with its base; its tensors as far as headers tell; what it calls its base."""
    if not is_adapter(source):
        return source, supply.layout(source) or layout_of(source, tracker), ""
    adapter = adapters.found(source)
    return adapter.source, adapters.layout(adapter, supply), adapter.config.base


def _cast(
    source: WeightsSource, layout: tuple[TensorSpec, ...] | None, code: str, supply: "Supply"
) -> tuple[WeightsSource, tuple[TensorSpec, ...] | None]:
    """The source, to be cast to this dtype unless its tensors are known to have it, and its layout then."""
    if layout is not None and cast_tensors(layout, code) == layout:
        return source, layout
    source = replace(source, cast=code)
    return source, cast_tensors(layout, code) if layout is not None else supply.layout(source)
