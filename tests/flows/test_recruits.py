"""Helpers that Prefect is asked for: they come or they do not, and the work goes on."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import httpx
import pytest

from stockpot.entities import Job, SoupRequest, digest_of_bytes
from stockpot.testing.listener import Listener
from stockpot_flows import recruits
from stockpot_flows.deployments import HELP
from stockpot_flows.recruits import Recruits

JOB = Job(digest_of_bytes(b"job"), SoupRequest(model="birds", task="t", sweep="1f0c"))


@pytest.fixture
def deployed(prefect: None) -> Iterator[UUID]:
    """The deployment of helpers, of which no worker knows: its id."""
    from prefect.client.orchestration import get_client

    flow, name = HELP.split("/")
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow_from_name(flow), name)
        yield deployment
        client.delete_deployment(deployment)


def asked_within_a_flow(count: int, said: Listener) -> UUID:
    """Ask, twice as a walk may, and leave: the id of the flow run."""
    from prefect import flow
    from prefect.runtime import flow_run

    @flow
    def asks() -> str:
        found = Recruits(count, str(flow_run.id), said.say)
        found.start(JOB)
        found.start(JOB)
        found.close()
        return str(flow_run.id)

    return UUID(asks())


def test_helpers_are_asked_for_once_under_their_sweep_and_those_that_never_began_are_cancelled(
    deployed: UUID,
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    listener = Listener()
    parent = asked_within_a_flow(2, listener)
    with get_client(sync_client=True) as client:
        of_helpers = DeploymentFilter(id=DeploymentFilterId(any_=[deployed]))
        runs = sorted(client.read_flow_runs(deployment_filter=of_helpers), key=lambda run: run.name)
        above = {
            client.read_task_run(run.parent_task_run_id).flow_run_id for run in runs if run.parent_task_run_id
        }
    assert [run.name for run in runs] == ["help-birds-1", "help-birds-2"]
    assert [run.parameters for run in runs] == [{"job": JOB.name}] * 2
    assert all(set(run.tags) == {"model: birds", "sweep: 1f0c"} for run in runs)
    assert [run.state and run.state.name for run in runs] == ["Cancelled"] * 2
    assert above == {parent}
    assert listener.said == ["asked Prefect for 2 helpers"]


def test_a_flow_run_that_asks_again_gets_the_same_ones(deployed: UUID) -> None:
    same = [Recruits(1, "a flow run", Listener().say) for _ in range(2)]
    for each in same:
        each.start(JOB)
    assert same[0]._asked == same[1]._asked != []
    other = Recruits(1, "another flow run", Listener().say)
    other.start(JOB)
    assert not {*other._asked} & {*same[0]._asked}


def test_a_helper_that_is_at_work_is_not_cancelled(deployed: UUID) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    found = Recruits(1, str(uuid4()), Listener().say)
    found.start(JOB)
    (run,) = found._asked
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Running(), force=True)
        found.close()
        state = client.read_flow_run(run).state
    assert state is not None
    assert state.is_running()


def test_without_the_deployment_that_is_said_in_one_sentence_with_its_command(prefect: None) -> None:
    listener = Listener()
    asked_within_a_flow(3, listener)
    (said,) = listener.said
    assert f"Prefect has no deployment {HELP}" in said
    assert "goes on alone" in said
    assert "prefect --no-prompt deploy --all --prefect-file /" in said


def test_where_prefect_does_not_answer_that_is_said_and_no_password_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def down(*_: object, **__: object) -> None:
        raise httpx.ConnectError("no route to http://me:hush@prefect")

    monkeypatch.setenv("PREFECT_API_URL", "http://me:hush@prefect")
    monkeypatch.setattr(recruits, "run_deployment", down)
    listener = Listener()
    found = Recruits(2, str(uuid4()), listener.say)
    found.start(JOB)
    found.close()
    (said,) = listener.said
    assert "could not be asked for them: ConnectError: no route" in said
    assert "hush" not in said
