"""The flow: one sweep in, registered soups out."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from httpx import HTTPError
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for
from pydantic import Field

from stockpot.entities import SoupOutcome, SoupRequest
from stockpot.errors import telling_no_secrets
from stockpot.ports import Watcher
from stockpot.secrets import without_secrets
from stockpot.settings import begin_log
from stockpot.watching import Lines, Several, Silent
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import answer
from stockpot_flows.artifacts import StageArtifacts, publish_artifacts, tag_this_run
from stockpot_flows.recruits import Recruits

T = TypeVar("T")


# Stages are tasks, not subflows: each subflow would cost a second. Prefect caches and keeps nothing:
# what has been done is in the store and in MLflow, whichever run asks again.
@task(cache_policy=NO_CACHE, persist_result=False, retries=0)
def stage(work: Callable[[], Any]) -> Any:
    """One stage of the walk."""
    with telling_no_secrets():  # Prefect logs the traceback of what a task or a flow raises
        return work()


def run_stage(name: str, work: Callable[[], T], /) -> T:
    """Run a stage as a Prefect task of its name."""
    result: T = stage.with_options(name=name, task_run_name=name)(work)  # type: ignore[assignment]  # not async
    return result


_named = flow(name="soup-sweep", flow_run_name="soup-{request.model}")


@_named
def soup_sweep(request: SoupRequest, helpers: Annotated[int, Field(ge=0)] = 0) -> SoupOutcome:
    """Gather the sweep's candidates, rank them, search for soups, measure those, and register them.

    The same request again finds everything done: it evaluates nothing and adopts the versions. Safe
    to kill, and to run twice at once. Raises the errors of `stockpot.errors`, each with its mend.

    Args:
        request: What to do.
        helpers: How many runs of the deployment help-sweep to ask for. They take part where workers have
            room, and change no answer.
    """
    return _sweep(request, Silent(), helpers)


def run_watched(request: SoupRequest, watch: Watcher) -> SoupOutcome:
    """Run the flow in this process, where somebody watches beside Prefect."""

    @_named
    def soup_sweep(request: SoupRequest) -> SoupOutcome:
        return _sweep(request, watch)

    return soup_sweep(request)


def _sweep(request: SoupRequest, watch: Watcher, helpers: int = 0) -> SoupOutcome:
    begin_log()
    page = url_for("flow-run", flow_run.id)
    page = without_secrets(page) if page else None
    if page:
        watch.say(f"the flow run: {page}")
    tag_this_run(request)
    told = StageArtifacts(Several(watch, Lines(get_run_logger().info)), request.model)
    recruits = Recruits(helpers, str(flow_run.id), told.say)
    with telling_no_secrets(HTTPError, PrefectException):  # Prefect's own: `embedded` tells them
        with Workplace(watch=told, elsewhere=recruits, flow_run=page) as place:
            outcome = answer(request, place, run_stage, told)
        publish_artifacts(outcome)
    return outcome
