"""Helpers that Prefect is asked for: capacity, on which no answer depends."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from stockpot.entities import Job
from stockpot.prose import counted, one_line
from stockpot.secrets import without_secrets
from stockpot_flows.artifacts import tags_of
from stockpot_flows.deployments import HELP, deploy_command


class Recruits:
    """Flow runs of the deployment `help-sweep`, wherever its workers have room. None of them is awaited.

    Whether one begins, dies or ends decides nothing: what it evaluates is leased and committed in the store.
    Where Prefect cannot be asked, that is said, and the work goes on without.
    """

    def __init__(self, count: int, flow_run: str, say: Callable[[str], object]) -> None:
        """`flow_run`: the id of the one that asks. It may ask again: that makes no further ones."""
        self._count = count
        self._flow_run = flow_run
        self._say = say
        self._asked: list[UUID] = []

    def start(self, job: Job) -> None:
        """Ask for them, once."""
        count, self._count = self._count, 0
        try:
            for number in range(1, count + 1):
                self._asked.append(self._ask(job, number))
        except ObjectNotFound:
            self._say(
                f"no helpers: Prefect has no deployment {HELP}, so this process goes on alone. To have it: "
                f"{deploy_command()}"
            )
        except Exception as error:  # noqa: BLE001 - whatever its client raises
            self._say(f"no more helpers, since Prefect could not be asked for them: {_told(error)}")
        if count and self._asked:
            self._say(f"asked Prefect for {counted(len(self._asked), 'helper')}")

    def close(self) -> None:
        """Cancel those that have not begun. The others find their work done, and end."""
        asked, self._asked = self._asked, []
        if not asked:
            return
        try:
            with get_client(sync_client=True) as client:
                for run in asked:
                    state = client.read_flow_run(run).state
                    if state is not None and state.is_scheduled():
                        # For a scheduled run Prefect makes Cancelled of this, and for no other.
                        client.set_flow_run_state(run, Cancelling())
        except Exception as error:  # noqa: BLE001 - whatever its client raises
            self._say(
                f"helpers that have not begun were not cancelled, and will find no work: {_told(error)}"
            )

    def _ask(self, job: Job, number: int) -> UUID:
        run: Any = run_deployment(
            HELP,
            parameters={"job": job.name},
            flow_run_name=one_line(f"help-{job.request.model}-{number}"),
            tags=tags_of(job.request),
            idempotency_key=f"{self._flow_run} {job.name} {number}",
            timeout=0,
            as_subflow=True,
        )
        found: UUID = run.id
        return found


def _told(error: Exception) -> str:
    return one_line(without_secrets(f"{type(error).__name__}: {error}"))
