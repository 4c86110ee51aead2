"""Part of somebody else's request: the evaluations that its process waits for."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from stockpot.entities import Digest, Job, Opening, OverlayRule, Recipe, SoupRequest
from stockpot.errors import DeviceLost, NoRoomForWeights, OutOfDeviceMemory, StockpotError, StoreError
from stockpot.logs import working_on
from stockpot.ports import Interrupted
from stockpot.prose import counted
from stockpot.workflow import leases
from stockpot.workflow.gathering.arrivals import Arrivals, Prospects
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.gathering.starting_point import find_base
from stockpot.workflow.leases import holder, pauses
from stockpot.workflow.selecting.all_data import search_all_data
from stockpot.workflow.selecting.curve import curve_units
from stockpot.workflow.selecting.domains import Domains, domains_of
from stockpot.workflow.selecting.every_way import every_way
from stockpot.workflow.selecting.measure import merged, open_splits, singles, units_of
from stockpot.workflow.selecting.overlaid import overlaid, overlay_rule
from stockpot.workflow.selecting.ranking import rank
from stockpot.workflow.selecting.search import around_base, by_group, search
from stockpot.workflow.selecting.specialists import search_specialists
from stockpot.workflow.sharing.in_parts import shared_split
from stockpot.workflow.sharing.opening import halve_as_before, require_alike
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator
from stockpot.workflow.sharing.units import settled

if TYPE_CHECKING:
    from stockpot.ports import Bench, MakeMethod, Store, Watcher
    from stockpot.workflow.walk import Place

LOOK_SECONDS = 2.0
"""Between two looks at whether a job is still worked on."""
POLL_SECONDS = 0.2, 5.0
"""Between two looks at whether there is something to help with."""


class AtWork:
    """Whether some process still works on a job, as it was opened: looked up every few seconds."""

    def __init__(self, store: "Store", job: Job, opening: Opening) -> None:
        self._store = store
        self._job = job
        self._opening = opening
        self._looked = -LOOK_SECONDS
        self._found = True

    def __call__(self) -> bool:
        """Whether its lease is held, and its opening the same."""
        now = monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            held = self._store.holder(self._job.lease) is not None
            self._found = held and self._store.opening(self._job.name) == self._opening
        return self._found


def help_out(
    place: "Place",
    watch: "Watcher",
    *,
    wants: Callable[[Job], bool] = lambda _: True,
    task_args: Mapping[str, str] | None = None,
    wait: float = 0.0,
) -> int:
    """Take part in the jobs that other processes work on, as long as there are such that `wants` tells.

    Waits for their ends: one that has no work for others now may have some later, and one whose lease was
    late may go on. Returns the number of evaluations. `task_args`: in place of those of the same name in a
    request, for paths that are others here. `wait`: seconds until a first job may begin. Raises what stands
    in the way, CannotHelp above all, where this process can help with none.
    """
    evaluations, begun, seen, last = 0, False, list[Job](), monotonic()
    done: dict[Digest, Opening] = {}
    refused: dict[Digest, tuple[Opening, StockpotError]] = {}
    for _ in pauses(place.store, *POLL_SECONDS):
        jobs = [job for job in place.store.jobs_at_work() if wants(job)]
        left = [
            job for job in jobs if job.name not in refused or refused[job.name][0] != _opening(place, job)
        ]
        if left:
            seen, last = left, monotonic()
        elif jobs or monotonic() - last >= _patience(place, seen, wait):
            break
        for job in left:
            opening = _opening(place, job)
            if opening is None or done.get(job.name) == opening:
                continue
            gc.collect()  # the model of the job before leaves the device
            helped = _Help(job, opening, place, watch)
            try:
                with working_on(model=job.request.model, sweep=job.request.sweep, job=job.name):
                    given = helped.give(task_args or {})
                if given:
                    done[job.name] = opening
            except (StoreError, DeviceLost, NoRoomForWeights):
                raise
            except StockpotError as error:
                watch.say(f"no help for {job.request.model}: {' '.join(str(error).split())}")
                refused[job.name] = opening, error.with_traceback(None)
            evaluations, begun = evaluations + helped.evaluations, begun or helped.begun
            break  # that may have taken hours
    if refused and not begun:
        raise next(error for _, error in refused.values())
    return evaluations


def _opening(place: "Place", job: Job) -> Opening | None:
    """None until its leader has opened the splits."""
    found = place.store.opening(job.name)
    return found if found is not None and found.protocols else None


def _patience(place: "Place", seen: Sequence[Job], wait: float) -> float:
    """Seconds to wait while nobody works on anything: a lease that ran out, since the database was away, say,
    may be renewed.
    """
    if not seen:
        return wait
    return 0.0 if all(place.store.answer(job) for job in seen) else leases.LEASE_SECONDS


class _Help:
    """With one job, as it was opened."""

    def __init__(self, job: Job, opening: Opening, place: "Place", watch: "Watcher") -> None:
        self._job = job
        self._opening = opening
        self._place = place
        self._watch = watch
        self._evaluators: dict[str, SharedEvaluator] = {}

    @property
    def begun(self) -> bool:
        """Whether this process could help."""
        return bool(self._evaluators)

    @property
    def evaluations(self) -> int:
        """That were begun here."""
        return sum(evaluator.started for evaluator in self._evaluators.values())

    def give(self, task_args: Mapping[str, str]) -> bool:
        """Evaluate what nobody else does. Whether nothing is left to do here."""
        place, asked, watch = self._place, self._job.request, self._watch
        given = {name: task_args.get(name, value) for name, value in asked.task_args.items()}
        request = replace(asked, task_args=given, verify_exact=False)
        led = place.store.holder(self._job.lease)
        watch.say(f"helping with a request for {request.model}{f', of {holder(led)}' if led else ''}")
        methods, bench = place.methods(request), place.bench(request)
        halve_as_before(bench, bench.batch_size, self._opening)
        prospects = gather(request, place.tracker, place.supply, bench.fits, watch)
        try:
            splits, rule = open_splits(request, bench), overlay_rule(request, bench)
            require_alike(splits, self._opening, rule)
            domains = domains_of(request, bench, prospects.runs, prospects.datasets)
            wanted = AtWork(place.store, self._job, self._opening)
            for split, evaluator in splits.items():
                aim, compared = domains.aims.get(split), split != request.select_on
                self._evaluators[split] = shared_split(
                    evaluator, place.store, bench, aim, compared=compared, wanted=wanted
                )
            searched = overlaid(methods, rule)
            _evaluate(request, prospects, searched, self._evaluators, domains, rule, bench, place, watch)
        except Interrupted:
            watch.say(f"{self._helped()}: the request has ended, or was opened anew")
            return False
        except NoRoomForWeights:
            raise
        except OutOfDeviceMemory as error:
            # One device's shortage makes no other protocol: whoever leads may halve the batches, for all.
            watch.say(f"no more help with batches of {bench.batch_size} examples: {error.what}")
        except BaseException:  # above all SystemExit: whoever started this process ends it with the request
            if self.begun:
                watch.say(self._helped())
            raise
        watch.say(self._helped())
        return True

    def _helped(self) -> str:
        return f"helped {self._job.request.model} with {counted(self.evaluations, 'evaluation')}"


def _evaluate(  # noqa: PLR0913, PLR0917 - as in the walk
    request: SoupRequest,
    prospects: Prospects,
    methods: Mapping[str, "MakeMethod"],
    evaluators: Mapping[str, SharedEvaluator],
    domains: Domains,
    rule: OverlayRule | None,
    bench: "Bench",
    place: "Place",
    watch: "Watcher",
) -> None:
    """The walk's evaluations, in its order, but that of the candidates those on the other splits come before
    the search: whoever leads is at it already.
    """
    held_out = evaluators[request.select_on]

    def stop() -> bool:
        held_out.require_wanted()
        return False

    base = find_base(prospects, place.tracker, place.supply, bench.fits, watch.say)
    arrivals = Arrivals(prospects, place.supply, bench.fits, watch, base)
    ranking = replace(rank(arrivals, held_out, watch, stop), base=base)
    for unit in units_of(singles(request, ranking), evaluators):
        unit.attempt()
    methods, _ = around_base(methods, ranking, place.supply)
    methods, _ = by_group(methods, ranking, domains)
    selections = search(request, ranking, methods, held_out, stop, watch)
    specialists, _ = search_specialists(request, ranking, domains, bench, held_out, rule, stop, watch)
    search_all_data(request, ranking, domains, held_out, rule, stop, watch)
    found = merged([*selections, *(specialist.selection for specialist in specialists)])
    start = [Recipe.mean([base.checkpoint.digest])] if base else []
    for _ in settled(units_of([*(recipe for _, recipe in found), *start], evaluators)):
        pass
    further = curve_units(request, ranking, found, evaluators)
    if request.compare_all:
        ways = every_way(found, specialists, ranking.candidates, domains, rule, base)
        further = [*further, *ways.units(request, evaluators)]
    for unit in further:
        unit.attempt()
