"""A request about one state of a sweep is worked on by one process at a time, and answered once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from stockpot.entities import (
    Answer,
    Evidence,
    Job,
    PublishedSoup,
    SoupOutcome,
    SoupRequest,
    SoupState,
    tags,
)
from stockpot.errors import BadRequest, Busy, StoreError
from stockpot.workflow import leases
from stockpot.workflow.leases import Hold, holder
from stockpot.workflow.walk import Place, Stage, walk

if TYPE_CHECKING:
    from stockpot.ports import Tracker, Watcher

T = TypeVar("T")


class Office(Place, Protocol):
    """The adapters that a job needs."""

    def evidence(self, request: SoupRequest, *, since: float) -> Evidence | None:
        """What a walk that began at `since` depended on; None where a file of that changed meanwhile."""
        ...

    def still_holds(self, evidence: Evidence) -> bool:
        """Whether all that it tells of looks as it did."""
        ...


def answer(request: SoupRequest, place: Office, stage: Stage, watch: "Watcher") -> SoupOutcome:
    """Walk for this request, unless it is answered already, or another process is about to answer it.

    A request is answered already where the sweep's runs, the task's modules, the files that its arguments
    name, the software and the machine are as they were, and the versions are still there. In any doubt the
    walk is done again; it finds its scores remembered. Raises Busy where another process works on the same
    request and this one may not wait, StoreError where another process took over, and what `walk` raises.
    """
    job = Job.of(replace(request, wait=True), tuple(place.tracker.runs(request.selector)))
    place.store.begin_job(job)
    before = place.store.answer(job)
    if before and before.evidence and before.evidence.whole and not _asks_anew(request):
        found = _as_found(before, place)
        if found is not None:
            watch.say("this request is answered, and nothing has changed: --verify-exact evaluates it again")
            return found
    hold = Hold(place.store, job.lease, f"this request for {request.model}")
    found = _wait(hold, request, lambda: _newer(job, before, place), watch)
    if found is not None:
        return found
    with hold.kept_alive():
        return _newer(job, before, place) or _work(job, hold, place, stage, watch)


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
    while hold.attempt() is not None:
        time.sleep(leases.POLL_SECONDS)
        found = look()
        if found is not None:
            return found
    return None


def _newer(job: Job, before: Answer | None, place: Office) -> SoupOutcome | None:
    """What another process has answered since, from what this one would have found."""
    now = place.store.answer(job)
    return None if now is None or (before and now.at <= before.at) else _as_found(now, place)


def _as_found(known: Answer, place: Office) -> SoupOutcome | None:
    """The answer as it stands now; None where anything is not as it was."""
    if known.evidence is None or not place.still_holds(known.evidence):
        return None
    soups = [_still_there(soup, place.tracker) for soup in known.outcome.soups]
    there = tuple(soup for soup in soups if soup is not None)
    return (
        replace(known.outcome, soups=there, evaluations=0, passes=0.0) if len(there) == len(soups) else None
    )


def _still_there(soup: PublishedSoup, tracker: "Tracker") -> PublishedSoup | None:
    if soup.state is SoupState.LEFT_OUT:
        return soup
    if soup.state is SoupState.WITHDRAWN:
        return None  # a person may have asked for it again
    try:
        version = tracker.version(soup.uri)
    except BadRequest:
        return None
    same = (version.run_id, version.tags.get(tags.RECIPE)) == (soup.run_id, soup.recipe)
    if not same or tags.DUPLICATE_OF in version.tags:
        return None
    return replace(soup, state=SoupState.ADOPTED, aliases=version.aliases)


def _work(job: Job, hold: Hold, place: Office, stage: Stage, watch: "Watcher") -> SoupOutcome:
    began = time.time()
    outcome = walk(job.request, place, _WhileHeld(stage, hold), watch, job)
    try:
        evidence = place.evidence(job.request, since=began)
        place.store.finish_job(job, outcome, evidence, owner=hold.owner)
    except (StoreError, OSError) as error:  # the soups are registered: only the next request takes longer
        watch.say(f"the answer could not be kept: {' '.join(str(error).split())}")
    return outcome


@dataclass(frozen=True)
class _WhileHeld:
    """Begins no stage after another process has taken over."""

    stage: Stage
    hold: Hold

    def __call__(self, name: str, work: Callable[[], T], /) -> T:
        self.hold.renew()
        return self.stage(name, work)
