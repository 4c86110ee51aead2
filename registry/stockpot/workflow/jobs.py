"""A request about one state of a sweep is worked on by one process at a time, and answered once."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from stockpot.entities import (
    Answer,
    Evidence,
    ExclusionReason,
    Job,
    ModelVersion,
    PublishedSoup,
    Run,
    SoupOutcome,
    SoupReport,
    SoupRequest,
    SoupState,
    tags,
)
from stockpot.errors import BadRequest, Busy, StockpotError, StoreError, Unexpected
from stockpot.logs import working_on
from stockpot.prose import one_line
from stockpot.workflow.gathering.recalled import recalled, told
from stockpot.workflow.gathering.starting_point import base_as_listed, pinned
from stockpot.workflow.leases import Hold, holder
from stockpot.workflow.publishing.alias import owed_alias
from stockpot.workflow.publishing.policy import stands_in
from stockpot.workflow.publishing.standing import without_model
from stockpot.workflow.walk import Leader, Place, Stage, walk

if TYPE_CHECKING:
    from stockpot.ports import Tracker, Watcher

T = TypeVar("T")

LONGEST = 1000
"""Characters of a fault that are kept."""


class Office(Place, Protocol):
    """The adapters that a job needs."""

    def evidence(self) -> Evidence:
        """What the last walk depended on."""
        ...

    def change_since(self, evidence: Evidence) -> str:
        """A clause that tells what does not look as it did; empty where all does."""
        ...


def answer(request: SoupRequest, place: Office, stage: Stage, watch: "Watcher") -> SoupOutcome:
    """Walk for this request, unless it is answered already, or another process is about to answer it.

    A request is answered already where the sweep's runs, the task's modules, the files that it read, the
    software and the machine are as they were, and the versions are still there, with nothing left to do for
    them. In any doubt, which is told, the walk is done again; it finds its scores remembered. Raises Busy
    where another process works on the same request and this one may not wait, StoreError where another
    process took over, and what `walk` raises.
    """
    job = job_of(request, place.tracker)
    with working_on(model=request.model, sweep=request.sweep, job=job.name):
        return _answer(job, request, place, stage, watch)


def _answer(job: Job, request: SoupRequest, place: Office, stage: Stage, watch: "Watcher") -> SoupOutcome:
    place.store.begin_job(job)
    before = place.store.answer(job)
    if before is not None and not _asks_anew(request):
        known = before.evidence.doubt or _as_found(before, place)
        if isinstance(known, SoupOutcome):
            watch.say(
                "this request is answered, and nothing that it is seen to depend on has changed: "
                "--verify-exact evaluates it again"
            )
            place.store.confirm_job(job)
            return known
        watch.say(f"this request was answered before, and is worked on again: {known}")
    hold = Hold(place.store, job.lease, f"this request for {request.model}")
    found = _wait(hold, request, lambda: _newer(job, before, place), watch)
    if found is not None:
        return found
    with hold.kept_alive():
        return _newer(job, before, place) or _work(job, hold, place, stage, watch)


def job_of(request: SoupRequest, tracker: "Tracker", runs: Iterable[Run] | None = None) -> Job:
    """The job of this request about its sweep: as it is now, or of these `runs`. Raises what listing the
    sweep, and looking up its base, raise.
    """
    request = pinned(request, tracker)
    runs = (*(tracker.runs(request.selector) if runs is None else runs), *base_as_listed(request, tracker))
    return Job.of(replace(request, wait=True), runs)


def _asks_anew(request: SoupRequest) -> bool:
    """Whether the request wants something to be done that an earlier answer has not done."""
    return request.again or request.verify_exact or request.max_seconds is not None


def _wait(
    hold: Hold, request: SoupRequest, look: Callable[[], SoupOutcome | None], watch: "Watcher"
) -> SoupOutcome | None:
    """Until the lease is ours: None. Or until the other process has the answer: that."""
    held = hold.attempt()
    if held is None:
        return None
    told = f"another process works on this very request for {request.model}: {holder(held)}"
    if not request.wait:
        raise Busy(told, mend="leave out --no-wait to wait for its answer, or run this command again later")
    watch.say(f"{told}: waiting for it")
    for _ in hold.pauses():
        found = look()
        if found is not None or hold.attempt() is None:
            return found
    return None


def _newer(job: Job, before: Answer | None, place: Office) -> SoupOutcome | None:
    """What another process has answered since, from what this one would have found."""
    now = place.store.answer(job)
    if now is None or (before and now.at <= before.at):
        return None
    found = _as_found(now, place)
    if not isinstance(found, SoupOutcome):
        return None
    place.store.confirm_job(job)
    return found


def _as_found(known: Answer, place: Office) -> SoupOutcome | str:
    """The answer as it stands now; or a clause that says what is not as it was."""
    if change := place.change_since(known.evidence):
        return change
    if change := _recalled_since(known.outcome.report, place):
        return change
    soups, stands = [], stands_in(known.outcome.report, known.outcome.soups)
    for soup in known.outcome.soups:
        there = _still_there(soup, known.outcome.report, place.tracker, stands_in=stands)
        if isinstance(there, str):
            return there
        soups.append(there)
    return replace(known.outcome, soups=tuple(soups), evaluations=0, passes=0.0)


def _recalled_since(report: SoupReport, place: Office) -> str:
    """A clause where a candidate was recalled since, or may be one again; empty where all is as it was."""
    now = recalled(place.store, place.tracker)
    for candidate in report.candidates:
        if (word := now.of(candidate.run_id, candidate.checkpoint)) is not None:
            return told(word)
    for run_id in (one.run_id for one in report.exclusions if one.reason is ExclusionReason.RECALLED):
        if run_id not in now.runs and not {*place.store.logged_by([run_id])} & now.checkpoints.keys():
            return f"run {run_id} was recalled, and is no more"
    return ""


def _still_there(
    soup: PublishedSoup, report: SoupReport, tracker: "Tracker", *, stands_in: bool
) -> PublishedSoup | str:
    """The soup where a walk would leave it as it is; else a clause that says what a walk may do."""
    if soup.state is SoupState.LEFT_OUT:
        return soup
    if soup.state is SoupState.WITHDRAWN:
        return "a person withdrew a soup, and may have asked for it again"
    try:
        version = tracker.version(soup.uri)
    except BadRequest:
        return f"{soup.uri} is gone"
    left = _left_to_do(version, soup, report, tracker, stands_in=stands_in)
    return left or replace(soup, state=SoupState.ADOPTED, aliases=version.aliases)


def _left_to_do(
    version: ModelVersion, soup: PublishedSoup, report: SoupReport, tracker: "Tracker", *, stands_in: bool
) -> str:
    same = (version.run_id, version.tags.get(tags.RECIPE)) == (soup.run_id, soup.recipe)
    if not same or tags.DUPLICATE_OF in version.tags:
        return f"{soup.uri} is another soup, or a duplicate of one"
    if alias := owed_alias(version, soup.recipe, report, tracker, stands_in=stands_in):
        return f"nobody holds the alias {alias}, which {soup.uri} has earned"
    return without_model(version, tracker)


def _evidence(outcome: SoupOutcome, place: Office) -> Evidence:
    """What the answer depended on: also on what the artifact store failed at, which may pass."""
    evidence = place.evidence()
    if any(e.reason is ExclusionReason.NOT_READ for e in outcome.report.exclusions):
        evidence = replace(evidence, doubt="the weights of a run did not arrive, and may arrive now")
    return evidence


def _work(job: Job, hold: Hold, place: Office, stage: Stage, watch: "Watcher") -> SoupOutcome:
    with _failure_kept(job, hold, place):
        outcome = walk(job.request, place, _WhileHeld(stage, hold), watch, Leader(job, hold.owner))
    try:
        place.store.finish_job(job, outcome, _evidence(outcome, place), owner=hold.owner)
    except (StoreError, OSError) as error:  # the soups are registered: only the next request takes longer
        watch.say(f"the answer could not be kept: {' '.join(str(error).split())}")
    return outcome


@contextmanager
def _failure_kept(job: Job, hold: Hold, place: Office) -> Iterator[None]:
    """Keep why an attempt failed, for whoever asks again. Who was told to end has not failed."""
    try:
        yield
    except Exception as error:
        told = error if isinstance(error, StockpotError) else Unexpected.of(error)
        with suppress(StoreError, OSError):  # overtaken, or no database: the error itself is told
            place.store.fail_job(job, fault_line(told), owner=hold.owner)
        raise


def fault_line(error: StockpotError) -> str:
    """An error for a table of jobs: in one line, without its mend."""
    line = one_line("; ".join((error.what, *error.faults)))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


@dataclass(frozen=True)
class _WhileHeld:
    """Begins no stage after another process has taken over."""

    stage: Stage
    hold: Hold

    def __call__(self, name: str, work: Callable[[], T], /) -> T:
        self.hold.renew()
        return self.stage(name, work)
