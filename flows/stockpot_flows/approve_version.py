"""The flow that waits, without a process, for a person's word in Prefect's UI before an alias moves."""

from typing import Any
from uuid import uuid4

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput, keyset_from_base_key, read_flow_run_input
from prefect.states import Completed
from prefect.utilities.urls import url_for
from pydantic import Field

from stockpot.entities import Ask, Digest
from stockpot.errors import BadRequest, telling_no_secrets
from stockpot.prose import one_line
from stockpot.secrets import without_secrets
from stockpot.settings import begin_log
from stockpot.watching import Lines
from stockpot.wiring import Workplace
from stockpot.workflow.promotion import persons
from stockpot.workflow.promotion.asking import is_open
from stockpot.workflow.promotion.policies import read_policies
from stockpot.workflow.promotion.watching import look
from stockpot_flows.deployments import APPROVE, deploy_command

WEEK = 7 * 24 * 3600
TRIES = 3
"""Flow runs for one ask: whatever ended two of them, nobody hears what a hundred more would say."""


class Answer(RunInput):
    """What a person says. Prefect does not tell who resumed a run, so that is asked for."""

    promote: bool = Field(default=False, description="Whether the alias shall move to this version")
    who: str = Field(pattern=r"\S", max_length=200, description="Your name, for the trail")
    reason: str = Field(pattern=r"\S", max_length=2000, description="Why, for the trail")


@flow(name="approve-version", flow_run_name="approve-{uri}")
def approve_version(uri: str, why: str, ask: str, seconds: int = WEEK) -> State[Any]:
    """Judge a version, show the verdict to a person, and do what he says. It begins anew when he has
    answered; where another champion, or another verdict, is found by then, he is asked again.

    Args:
        uri: models:/NAME/VERSION.
        why: How it was asked for.
        ask: The name of that.
        seconds: After which nobody will answer: then Prefect fails the run, and the next look asks anew.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    begin_log()
    with telling_no_secrets(), Workplace(watch=Lines(get_run_logger().info)) as place:
        model = uri.removeprefix("models:/").rpartition("/")[0]
        policy = read_policies(place.settings.policies_file).of(model)
        look(place, models=[model], promised=place.settings.watch_every)
        if not is_open(place, model, policy, ask):
            return Completed(message=f"{uri} was answered meanwhile, or nobody asks for it any more")
        promoter = place.promoter(policy)
        decision = promoter.judge(uri)
        form = Answer.with_initial_data(description=persons.form(decision, why))
        key = _key(persons.name_of(decision))
        answer = suspend_flow_run(wait_for_input=form, timeout=seconds, key=key)
        word = persons.Word(answer.promote, answer.who, answer.reason)
        return Completed(message=one_line(persons.settle(promoter, decision, word).told))


def _key(shown: Digest) -> str:
    """Of this run's last form, where that showed the same and was answered: then Prefect has the answer. Else
    of a new one, also where an earlier form showed the same: what was answered since may be something else.

    Prefect takes no key twice, and none with a colon.
    """
    context = FlowRunContext.get()
    run = context and context.flow_run
    used = (run and run.empirical_policy.pause_keys) or set()
    name = shown.rpartition(":")[2]
    for last in used:
        if last.startswith(f"{len(used)}-{name}-"):
            answer = keyset_from_base_key(f"suspended-{last}")["response"]
            if read_flow_run_input(answer) is not None:  # one that was cancelled, and is retried, has none
                return last
    return f"{len(used) + 1}-{name}-{uuid4().hex}"


def ask_person(ask: Ask) -> str:
    """Have a flow run wait for an answer, and tell where; another one where the last ended without, and no
    more than TRIES. One that a person cancelled is the last: nobody wants to be asked.

    Raises BadRequest where Prefect has no deployment for it, and where all have ended.
    """
    for number in range(TRIES):
        run = _begun(ask, number)
        state = run.state
        page = without_secrets(url_for("flow-run", run.id) or str(run.id))
        if state is None or not (state.is_final() or state.is_cancelling()):
            return page
        if state.is_cancelled() or state.is_cancelling():
            break
    told = state and f"{state.name}: {one_line(state.message or 'it said no more')}"
    raise BadRequest(
        f"nobody is asked any more: the last flow run that asked, {page}, ended as {told}",
        mend=f"prefect flow-run retry {run.id}",
    )


def _begun(ask: Ask, number: int) -> FlowRun:
    """That flow run for the ask: Prefect begins it once."""
    try:
        return run_deployment(  # type: ignore[return-value]  # no coroutine
            APPROVE,
            parameters={"uri": ask.uri, "why": ask.why, "ask": ask.name},
            idempotency_key=f"{ask.name} {number}",
            timeout=0,
            as_subflow=False,
        )
    except ObjectNotFound as error:
        raise BadRequest(
            f'its policy says confirm = "prefect", and Prefect has no deployment {APPROVE}',
            mend=deploy_command(),
        ) from error
