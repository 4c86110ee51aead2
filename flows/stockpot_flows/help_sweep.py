"""The flow of a helper: a part of the evaluations of one sweep."""

from typing import Any

from httpx import HTTPError
from prefect import State, flow, get_run_logger
from prefect.exceptions import PrefectException
from prefect.states import Completed

from stockpot.entities import Job
from stockpot.errors import CannotHelp, telling_no_secrets
from stockpot.prose import counted
from stockpot.settings import begin_log
from stockpot.watching import Lines
from stockpot.wiring import Workplace
from stockpot.workflow.helping import help_out
from stockpot.workflow.leases import LEASE_SECONDS


@flow(name="help-sweep")
def help_sweep(job: str, wait: float = LEASE_SECONDS) -> State[Any]:
    """Take part in the evaluations of one request, until it is answered. Changes no answer; safe to kill.

    A worker that would not give the same scores takes no part, and says what differs: that is no failure.

    Args:
        job: The request's job, as the flow soup-sweep names it.
        wait: Seconds until somebody works on it.

    Raises the other errors of `stockpot.errors`, each with its mend.
    """

    def wants(found: Job) -> bool:
        return found.name == job

    begin_log()
    told = Lines(get_run_logger().info)
    with telling_no_secrets(HTTPError, PrefectException), Workplace(watch=told) as place:
        try:
            done = help_out(place, told, wants=wants, wait=wait)
        except CannotHelp as error:
            return Completed(message=" ".join(str(error).split()))
    return Completed(message=f"helped with {counted(done, 'evaluation')}")
