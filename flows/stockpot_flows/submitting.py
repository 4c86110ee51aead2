"""A request that is handed to workers: started as a run of a deployment, and followed to its answer."""

import logging
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
from stockpot.entities import Answer, SoupOutcome, SoupRequest
from stockpot.errors import BadRequest, PrefectUnreachable, StockpotError, StoreError
from stockpot.ports import Watcher
from stockpot.secrets import without_secrets
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import job_of
from stockpot_flows.address import Address
from stockpot_flows.artifacts import tags_of
from stockpot_flows.deployments import deploy_command
from stockpot_flows.server import faults_told, unreachable

POLL_SECONDS = 2.0
"""Between two looks at the flow run and its log."""
PATIENCE_SECONDS = 300.0
"""Without an answer of Prefect's, which may be restarted meanwhile: the flow run need not notice."""
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
        before = _answer(request, place)
        place.store.close()  # it lends a connection, and the flow run may take hours
        with faults_told(address, "did not take the request"):
            run = _started(request, deployment, helpers, address)
        where = without_secrets(url_for("flow-run", run.id) or str(run.id))
        try:
            watch.say(f"the flow run: {where}")
            state = _followed(run, address, watch.say)
        except (KeyboardInterrupt, SystemExit):
            watch.say(f"the flow run goes on: {where}")
            raise
        found = _answer(request, place)
    if found is not None and (state.is_completed() or before is None or found.at > before.at):
        return replace(found.outcome, evaluations=0, passes=0.0)  # this process did none of them
    if state.is_completed():
        raise StoreError(
            f"the flow run has ended well, and this store has no answer of it: {where}",
            mend="export STOCKPOT_STORE_URL as the workers have it; the run's log names the versions",
        )
    raise as_raised(state.message or "") or PrefectUnreachable(
        f"the flow run ended as {state.name}: {state.message or 'it said no more'}. It is {where}", mend=AGAIN
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


def _answer(request: SoupRequest, place: Workplace) -> Answer | None:
    return place.store.answer(job_of(request, place.tracker))


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


def _followed(run: FlowRun, address: Address, say: Callable[[str], object]) -> State[Any]:
    """Until it has ended: its last state."""
    log = _Log(run.id, say)
    heard = time.monotonic()
    while True:
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(run.id).state
                log.tell_new(client)
            heard = time.monotonic()
            if state is not None and state.is_final():
                if log.rested:
                    return state
                log.rested = True  # its last lines come a little later than its state
        except (HTTPError, PrefectException) as error:
            if time.monotonic() - heard > PATIENCE_SECONDS:
                raise unreachable(address, "does not answer; the flow run may go on", error) from error
        time.sleep(POLL_SECONDS)


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

    def tell_new(self, client: SyncPrefectClient) -> None:
        """Tell the lines that have arrived since. Of one with a traceback, its first."""
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
                return
