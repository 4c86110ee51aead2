"""Part of somebody else's request: the evaluations that its process waits for."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from stockpot.entities import Digest, Job, Opening, SoupRequest
from stockpot.errors import CannotHelp, NoRoomForWeights, OutOfDeviceMemory
from stockpot.ports import Interrupted
from stockpot.prose import counted
from stockpot.workflow.gathering.arrivals import Arrivals, Prospects
from stockpot.workflow.gathering.gather import gather
from stockpot.workflow.leases import holder, pauses
from stockpot.workflow.selecting.measure import merged, open_splits, singles, units_of
from stockpot.workflow.selecting.ranking import rank
from stockpot.workflow.selecting.search import search
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

    Waits for their ends: one that has no work for others now may have some later. Returns the number of
    evaluations. `task_args`: in place of those of the same name in the request, for
    paths that are others here. `wait`: seconds until a first job may begin. Raises CannotHelp where this
    process cannot help with any.
    """
    begin, evaluations, seen = monotonic(), 0, False
    done: dict[Digest, Opening] = {}
    refused: dict[Digest, CannotHelp] = {}
    for _ in pauses(place.store, *POLL_SECONDS):
        jobs = [job for job in place.store.jobs_at_work() if wants(job) and job.name not in refused]
        if not jobs and (seen or monotonic() - begin >= wait):
            break
        seen |= bool(jobs)
        for job in jobs:
            opening = place.store.opening(job.name)
            if opening is None or done.get(job.name) == opening:
                continue
            helped = _Help(job, opening, place, watch)
            try:
                if helped.give(task_args or {}):
                    done[job.name] = opening
            except CannotHelp as error:
                watch.say(f"no help for {job.request.model}: {error.what}: {'; '.join(error.faults)}")
                refused[job.name] = error
            evaluations += helped.evaluations
    if refused and not done:
        raise next(iter(refused.values()))
    return evaluations


class _Help:
    """With one job, as it was opened."""

    def __init__(self, job: Job, opening: Opening, place: "Place", watch: "Watcher") -> None:
        self._job = job
        self._opening = opening
        self._place = place
        self._watch = watch
        self._evaluators: dict[str, SharedEvaluator] = {}

    @property
    def evaluations(self) -> int:
        """That were begun here."""
        return sum(evaluator.started for evaluator in self._evaluators.values())

    def give(self, task_args: Mapping[str, str]) -> bool:
        """Evaluate what nobody else does. Whether nothing is left to do here."""
        place, asked, watch = self._place, self._job.request, self._watch
        request = replace(asked, task_args={**asked.task_args, **task_args}, verify_exact=False)
        led = place.store.holder(self._job.lease)
        watch.say(f"helping with a request for {request.model}{f', of {holder(led)}' if led else ''}")
        methods, bench = place.methods(request), place.bench(request)
        halve_as_before(bench, bench.batch_size, self._opening)
        prospects = gather(request, place.tracker, place.supply, bench.fits, watch)
        try:
            splits = open_splits(request, bench)
            require_alike(splits, self._opening)
            wanted = AtWork(place.store, self._job, self._opening)
            for split, evaluator in splits.items():
                shared = SharedEvaluator(evaluator, place.store, heed=bench.heed, wanted=wanted)
                self._evaluators[split] = shared
            _evaluate(request, prospects, methods, self._evaluators, bench, place, watch)
        except Interrupted:
            watch.say("nobody works on this any more, or not in batches of this size")
            return False
        except NoRoomForWeights:
            raise
        except OutOfDeviceMemory as error:
            # One device's shortage makes no other protocol: whoever leads may halve the batches, for all.
            watch.say(f"no more help with batches of {bench.batch_size} examples: {error.what}")
        watch.say(f"helped with {counted(self.evaluations, 'evaluation')}")
        return True


def _evaluate(
    request: SoupRequest,
    prospects: Prospects,
    methods: Mapping[str, "MakeMethod"],
    evaluators: Mapping[str, SharedEvaluator],
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

    arrivals = Arrivals(prospects, place.supply, bench.fits, watch)
    ranking = rank(arrivals, held_out, watch, stop)
    for unit in units_of(singles(request, ranking), evaluators):
        unit.attempt()
    selections = search(request, ranking, methods, held_out, stop, watch)
    for _ in settled(units_of((recipe for _, recipe in merged(selections)), evaluators)):
        pass
