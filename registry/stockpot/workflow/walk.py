"""The walk of one sweep, from its name to its registered soups."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING, Protocol, TypeVar

from stockpot.entities import Job, SoupOutcome, SoupReport, SoupRequest
from stockpot.errors import NoRoomForWeights, OutOfDeviceMemory
from stockpot.evaluation import RememberingEvaluator
from stockpot.workflow.gathering.arrivals import Arrivals, Prospects
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.publishing.markdown import folded
from stockpot.workflow.publishing.page import markdown_table
from stockpot.workflow.publishing.publish import Publisher
from stockpot.workflow.publishing.rehearsal import Rehearsal
from stockpot.workflow.publishing.verdict import columns
from stockpot.workflow.selecting.measure import measure, open_splits
from stockpot.workflow.selecting.ranking import rank
from stockpot.workflow.selecting.search import search

if TYPE_CHECKING:
    from stockpot.ports import Evaluator, MakeMethod, Store, TaskBench, Tracker, Watcher

T = TypeVar("T")


class Stage(Protocol):
    """Runs one named stage of the walk: plainly, or as a task of an orchestrator."""

    def __call__(self, name: str, work: Callable[[], T], /) -> T:
        """What the work returns."""
        ...


class Place(Protocol):
    """The adapters that a walk needs."""

    @property
    def tracker(self) -> "Tracker":
        """MLflow."""
        ...

    @property
    def store(self) -> "Store":
        """Stockpot's own memory."""
        ...

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

    def bench(self, request: SoupRequest) -> "TaskBench":
        """The request's task."""
        ...

    def publisher(self, bench: "TaskBench", watch: "Watcher") -> Publisher:
        """What registers soups."""
        ...


def walk(
    request: SoupRequest, place: Place, stage: Stage, watch: "Watcher", job: Job | None = None
) -> SoupOutcome:
    """Gather, prove permissions, rank, select, measure, publish.

    The sweep is looked up first: its faults are told before the task's splits are opened, which may take
    long. Nothing is kept between the stages but what the store and MLflow hold: a second walk for the same
    request asks the same questions, finds them answered, and ends in the same versions. Where batches do not
    fit the device, what follows the look-up begins again with half of them: raises OutOfDeviceMemory where
    not even a single example fits, or where that is no help. The candidates are kept as those of `job`.
    """
    stop = _deadline(request.max_seconds)
    reading = place.reading(request)
    with reading:
        methods, bench = place.methods(request), place.bench(request)
        bench.fits(())  # makes the task's model, which may read files as well
    prospects = stage("gather", lambda: gather(request, place.tracker, place.supply, bench.fits, watch))
    experiment = prospects.found[0].run.experiment_id
    stage("prove permissions", lambda: place.tracker.prove_writable(request.model, experiment))
    while True:
        try:
            with reading:
                splits = open_splits(request, bench)
            return _walk(prospects, place, methods, bench, splits, stop, stage, watch, job)
        except NoRoomForWeights:
            raise
        except OutOfDeviceMemory as error:
            clear_frames(error.__traceback__)  # whoever keeps the error keeps no tensors
            sizes = bench.halve_batch()
            if sizes is None:
                raise
        before, after = sizes
        watch.say(
            f"batches of {before} examples do not fit the device: all is evaluated in batches of {after}, "
            "which is another protocol; scores under the first are not used"
        )


def _walk(  # noqa: PLR0913, PLR0917 - what the stages need, each once
    prospects: Prospects,
    place: Place,
    methods: Mapping[str, "MakeMethod"],
    bench: "TaskBench",
    splits: Mapping[str, "Evaluator"],
    stop: Callable[[], bool],
    stage: Stage,
    watch: "Watcher",
    job: Job | None,
) -> SoupOutcome:
    request = prospects.request
    publisher = place.publisher(bench, watch)
    rehearsal = Rehearsal(publisher, request)
    evaluators = {
        split: RememberingEvaluator(evaluator, place.store, before=rehearsal, heed=bench.heed)
        for split, evaluator in splits.items()
    }
    held_out = evaluators[request.select_on]
    arrivals = Arrivals(prospects, place.supply, bench.fits, watch)
    ranking = stage("rank", lambda: rank(arrivals, held_out, watch, stop))
    if job is not None:
        place.store.commit_candidates(job, ranking.candidates)
    plain = bench.evaluator(request.select_on, plain=True) if request.verify_exact else None
    selections = stage("select", lambda: search(request, ranking, methods, held_out, stop, watch, plain))
    for selection in selections:
        place.store.commit_selection(selection, held_out.protocol)
    report = stage("measure", lambda: measure(request, ranking, selections, evaluators, bench, stop, watch))
    place.store.commit_report(report)
    with _told_if_it_fails(report, watch):
        soups = stage("publish", lambda: publisher.publish(report, ranking, evaluators[request.report_on]))
    return SoupOutcome(report, soups, sum(e.started for e in evaluators.values()), bench.passes)


@contextmanager
def _told_if_it_fails(report: SoupReport, watch: "Watcher") -> Iterator[None]:
    """What took hours to measure is shown, whatever goes wrong after it."""
    try:
        yield
    except OutOfDeviceMemory:  # the walk begins again
        raise
    except BaseException:
        table = markdown_table(report, columns(report.request), folded)
        watch.say("What was measured before this stopped, and is remembered:")
        for line in filter(None, table.splitlines()):
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
