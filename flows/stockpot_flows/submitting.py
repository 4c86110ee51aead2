"""A request that is handed to workers: started as a run of a deployment, and followed to its answer."""

import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.utilities.urls import url_for

from stockpot import errors
from stockpot.documents import to_document
from stockpot.entities import Answer, Lease, SoupOutcome, SoupRequest
from stockpot.errors import BadRequest, PrefectUnreachable, StockpotError, StoreError
from stockpot.logs import working_on
from stockpot.ports import Watcher
from stockpot.secrets import without_secrets
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import job_of
from stockpot.workflow.leases import holder
from stockpot_flows.address import Address
from stockpot_flows.artifacts import tags_of
from stockpot_flows.deployments import deploy_command
from stockpot_flows.server import faults_told, unreachable

POLL_SECONDS = 2.0
"""Between two looks at the flow run and its log."""
PATIENCE_SECONDS = 300.0
"""Without an answer of Prefect's, which may be restarted meanwhile: the flow run need not notice."""
STRANDED_SECONDS = 900.0
"""Without a word of a flow run that a worker has taken. The automations tell of it sooner; where there are
none, or the event that they wait for was lost with Prefect's server, nothing else ever would.
"""
LATE = timedelta(seconds=60)
"""How much later than others a line of the log may arrive: several processes write it."""
PAGE = 200
AGAIN = "submit the same request again: it goes on from what was done"


def submit(
    request: SoupRequest, watch: Watcher, address: Address, *, deployment: str, helpers: int | None
) -> SoupOutcome:
    """Start a flow run for this request, follow its log, and return its answer from the store.

    Args:
        request: What the flow is asked for.
        watch: Told what the flow run logs.
        address: Of the Prefect server that is configured.
        deployment: As Prefect names it: FLOW/DEPLOYMENT.
        helpers: How many helpers the flow run asks for; None for the deployment's own number.

    Whoever ends this process does not end the flow run. The answer is the store's, whatever Prefect says of
    the run: that tells the reason alone, where there is no answer. Raises that reason, as the walk raised it;
    BadRequest where no such deployment is known, PrefectUnreachable where Prefect does not answer.
    """
    with Workplace(watch=watch) as place:
        work = _Work(request, place)
        with faults_told(address, "did not take the request"):
            run = _started(request, deployment, helpers, address)
        where = _page(run)
        try:
            watch.say(f"the flow run: {where}")
            with working_on(model=request.model, sweep=request.sweep, job=work.job.name):
                fault = _followed(run, address, work, watch.say)
        except (KeyboardInterrupt, SystemExit):
            watch.say(f"the flow run goes on: {where}")
            raise
        found = work.answer()
    if found is not None and (fault is None or work.is_new(found.at)):
        return replace(found.outcome, evaluations=0, passes=0.0)  # this process did none of them
    raise fault or StoreError(
        f"the flow run has ended well, and this store has no answer of it: {where}",
        mend="export STOCKPOT_STORE_URL as the workers have it; the run's log names the versions",
    )


def as_raised(message: str) -> StockpotError | None:
    """The error of ours that a flow run's state tells in words; None where it tells none."""
    parts = re.match(r"(?:Flow run encountered an exception: )?(\w+): (.*)", message, re.DOTALL)
    kind = getattr(errors, parts[1], None) if parts else None
    if parts is None or not (isinstance(kind, type) and issubclass(kind, StockpotError)):
        return None
    told, _, mend = parts[2].partition("\nTo mend it: ")
    what, *faults = told.split("\n  - ")
    return kind(what, mend=mend, faults=faults)


class _Work:
    """What the store knows of a request: the truth, whatever Prefect says of the flow run."""

    def __init__(self, request: SoupRequest, place: Workplace) -> None:
        self._request = request
        self._place = place
        self.job = job_of(request, place.tracker)
        before = place.store.answer(self.job)
        self._before = -math.inf if before is None else before.at
        self._told = False
        place.store.close()  # it lends a connection, and the flow run may take hours

    def is_new(self, at: float) -> bool:
        """Whether something was answered after this was made; seconds by the store's clock."""
        return at > self._before

    def answer(self) -> Answer | None:
        """The newest: about the sweep as it is now, or as it was when this was made."""
        jobs = job_of(self._request, self._place.tracker), self.job
        found = [answer for job in jobs if (answer := self._place.store.answer(job)) is not None]
        return max(found, key=lambda answer: answer.at, default=None)

    def held(self) -> Lease | None:
        """By a process that works on it, and may yet answer it."""
        records = self._place.store.job_records([self.job.name])
        self._place.store.close()
        answered = {record.lease: record.answered_at or -math.inf for record in records if record.lease}
        return next((lease for lease, at in answered.items() if not self.is_new(at)), None)

    def goes_on(self, fault: StockpotError, say: Callable[[str], object]) -> bool:
        """Whether it is held; that is told once, and what Prefect says."""
        lease = self.held()
        if lease is not None and not self._told:
            say(f"{fault.what}. But {holder(lease)}, works on the request: waiting for it")
            self._told = True
        return lease is not None


def _started(request: SoupRequest, deployment: str, helpers: int | None, address: Address) -> FlowRun:
    asked = {} if helpers is None else {"helpers": helpers}
    try:
        return run_deployment(  # type: ignore[return-value]  # no coroutine
            deployment,
            parameters={"request": to_document(request), **asked},
            tags=tags_of(request),
            timeout=0,
            as_subflow=False,
        )
    except ObjectNotFound as error:
        raise BadRequest(
            f"Prefect at {address.shown} has no deployment {deployment}", mend=deploy_command()
        ) from error


def _followed(
    run: FlowRun, address: Address, work: _Work, say: Callable[[str], object]
) -> StockpotError | None:
    """Until it has ended: None where it ended well, else why not.

    Prefect calls a run Crashed of which it hears nothing, also where Prefect was away itself. So that is no
    end while somebody holds the job's lease.
    """
    log = _Log(run.id, say)
    pulse = _Pulse()
    heard = time.monotonic()
    while True:
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(run.id).state
                told = log.tell_new(client)
            heard = time.monotonic()
            if pulse.is_gone(state, told=told) and work.held() is None:
                return _stranded(run, pulse.state)
            if state is not None and state.is_final():
                fault = _fault(run, state)
                if log.rested and not (isinstance(fault, PrefectUnreachable) and work.goes_on(fault, say)):
                    return fault
                log.rested = True  # its last lines come a little later than its state
        except (HTTPError, PrefectException) as error:
            silent = unreachable(address, "does not answer; the flow run may go on", error)
            if time.monotonic() - heard > PATIENCE_SECONDS and not work.goes_on(silent, say):
                return silent
        time.sleep(POLL_SECONDS)


def _fault(run: FlowRun, state: State[Any]) -> StockpotError | None:
    """Why it did not end well: as the walk raised it, else what Prefect says."""
    if state.is_completed():
        return None
    return as_raised(state.message or "") or PrefectUnreachable(
        f"the flow run ended as {state.name}: {state.message or 'it said no more'}. It is {_page(run)}",
        mend=AGAIN,
    )


def _stranded(run: FlowRun, state: str) -> StockpotError:
    return PrefectUnreachable(
        f"Prefect says that the flow run is {state}, but nothing is heard of it for "
        f"{STRANDED_SECONDS / 60:.0f} min, and no process works on the request. It is {_page(run)}",
        # Not to cancel it: that asks the worker that is gone to end it.
        mend=f"{AGAIN}; what is left of the other one: prefect flow-run delete {run.id}",
    )


def _page(run: FlowRun) -> str:
    return without_secrets(url_for("flow-run", run.id) or str(run.id))


@dataclass
class _Pulse:
    """When something of a flow run moved last: its state, or its log."""

    state: str = ""
    _at: float = field(default_factory=time.monotonic)

    def is_gone(self, state: State[Any] | None, *, told: bool) -> bool:
        """Whether nothing moved for STRANDED_SECONDS, which begin anew then. What waits for a worker, or for
        a person, may do so for days, and what has ended moves no more.
        """
        name = "" if state is None else str(state.name)
        rests = state is None or state.is_scheduled() or state.is_paused() or state.is_final()
        gone = time.monotonic() - self._at > STRANDED_SECONDS and not (told or rests or name != self.state)
        if gone or told or rests or name != self.state:
            self.state, self._at = name, time.monotonic()
        return gone


@dataclass
class _Log:
    """What a flow run and its tasks log, each line told once."""

    run: UUID
    say: Callable[[str], object]
    rested: bool = False
    """Whether it was read since the run had ended."""
    _told: set[UUID] = field(default_factory=set)
    _newest: Any = None
    """The latest time of a line, as Prefect has it."""

    def tell_new(self, client: SyncPrefectClient) -> bool:
        """Tell the lines that have arrived since, and whether there were any. Of one with a traceback, its
        first.
        """
        before = len(self._told)
        since = None if self._newest is None else LogFilterTimestamp(after_=self._newest - LATE)
        wanted = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[self.run]),
            level=LogFilterLevel(ge_=logging.INFO),
            timestamp=since,
        )
        for offset in count(0, PAGE):
            lines = client.read_logs(wanted, limit=PAGE, offset=offset)
            for line in lines:
                if line.id not in self._told:
                    self._told.add(line.id)
                    self._newest = max(self._newest or line.timestamp, line.timestamp)
                    self.say(line.message.partition("\n")[0])
            if len(lines) < PAGE:
                break
        return len(self._told) > before
