"""What a flow run on workers says of its end, and what the command makes of it."""

import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from tests.flows.prefect_site import awaited

from stockpot.calls import submit
from stockpot.cli import main
from stockpot.documents import to_document
from stockpot.entities import Accept, Dtype, Job, SoupOutcome, SoupRequest
from stockpot.errors import BadRequest, BadTask, Busy, NothingToSoup, PrefectUnreachable, StockpotError
from stockpot.testing.listener import Listener
from stockpot.testing.store_values import EVIDENCE, report, soup
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import job_of
from stockpot_flows import submitting
from stockpot_flows.submitting import as_raised

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

REQUEST = SoupRequest(model="m", task="t", sweep="s")


@pytest.mark.parametrize(
    "error",
    [
        NothingToSoup("only one run", mend="log more"),
        BadTask("it breaks", faults=["first", "second"], mend="look"),
        Busy("another process\nis at it"),
    ],
)
def test_an_error_of_ours_is_read_from_what_prefect_keeps_of_it(error: StockpotError) -> None:
    read = as_raised(f"Flow run encountered an exception: {type(error).__name__}: {error}")
    assert type(read) is type(error)
    assert str(read) == str(error)
    assert read.exit_code == error.exit_code


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Flow run encountered an exception: KeyError: 'x'",
        "Flow run process exited with non-zero status code -9.",
        "TRACEBACK: a name in the module of errors that is none",
        "Sequence: neither",
    ],
)
def test_what_is_no_error_of_ours_is_read_as_none(message: str) -> None:
    assert as_raised(message) is None


def test_what_is_handed_over_arrives_as_the_request_that_it_was() -> None:
    from stockpot_flows.soup_sweep import soup_sweep

    request = SoupRequest(
        model="m",
        task="t",
        sweep="s",
        task_args={"n": "1"},
        margin="-1%",
        accept=Accept.BETTER,
        dtype=Dtype.FLOAT32,
        max_seconds=math.inf,
        shifts=("fog",),
    )
    sent = json.loads(json.dumps({"request": to_document(request), "helpers": 2}))
    assert soup_sweep.validate_parameters(sent) == {"request": request, "helpers": 2}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--submit", "--no-flow"], "leave out --flow and --no-flow"),
        (["--submit-to", "soup-sweep/large", "--flow"], "leave out --flow and --no-flow"),
        (["--helpers", "2"], "add --submit"),
        (["--submit", "--helpers", "-1"], "give a number from 0 on"),
        (["--submit"], "export PREFECT_API_URL="),
    ],
)
def test_options_that_contradict_each_other_are_told(
    options: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("nobody")))
    with pytest.raises(SystemExit, match="3"):
        main(["soup", "--model", "m", "--task", "t", "--sweep", "s", *options])
    assert told in capsys.readouterr().err


def test_a_deployment_that_prefect_does_not_know_is_told_with_the_command_that_makes_it(
    prefect: None, tiny_sweep: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    with pytest.raises(BadRequest, match="has no deployment soup-sweep/nowhere") as caught:
        submit(tiny_sweep, deployment="soup-sweep/nowhere", watch=Listener())
    assert "prefect --no-prompt deploy --all" in caught.value.mend


@contextmanager
def submitted(
    request: SoupRequest, deployment: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple["Future[SoupOutcome]", Listener]]:
    """Followed by another thread; its flow run has begun to exist, and nobody takes it."""
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    monkeypatch.setattr(submitting, "POLL_SECONDS", 0.05)
    told = Listener()
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(submit, request, deployment=deployment, watch=told), told


def said(told: Listener, what: str) -> str:
    def found() -> str | None:
        return next((line for line in list(told.said) if what in line), None)

    return awaited(found, what)


def run_of(told: Listener) -> UUID:
    """The flow run that is followed."""
    return UUID(said(told, "the flow run: ").rpartition("/")[2].rpartition(" ")[2])


def end(told: Listener, state: "State[Any]") -> None:
    """The flow run, in this state."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_of(told), state, force=True)


def crash(told: Listener) -> None:
    """As the automation does that misses a sign of life."""
    from prefect.states import Crashed

    end(told, Crashed(message="No sign of life"))


@pytest.fixture
def leads(tiny_sweep: SoupRequest) -> Iterator[tuple[Workplace, Job, Callable[[], None]]]:
    """Somebody who works on the request, and gives it back when that is called."""
    with Workplace() as place:
        job = job_of(tiny_sweep, place.tracker)
        place.store.begin_job(job)
        place.store.take_lease(job.lease, owner="elsewhere/7/x", seconds=600)
        yield place, job, lambda: place.store.release_lease(job.lease, owner="elsewhere/7/x")


def test_a_run_that_prefect_calls_crashed_is_awaited_while_its_process_works_on(
    prefect: None,
    tiny_sweep: SoupRequest,
    deployed: str,
    leads: tuple[Workplace, Job, Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, job, give_back = leads
    with submitted(tiny_sweep, deployed, monkeypatch) as (following, told):
        crash(told)
        line = said(told, "process 7 on elsewhere")
        assert "the flow run ended as Crashed: No sign of life. It is " in line
        assert not following.done()
        answer = SoupOutcome(report(soup("a", "b")), (), 3, 3.0)
        place.store.finish_job(job, answer, EVIDENCE, owner="elsewhere/7/x")
        # An answer is one before its lease is given back, too. This process has evaluated nothing for it.
        assert following.result(60) == replace(answer, evaluations=0, passes=0.0)
        give_back()
    assert sum("process 7" in line for line in told.said) == 1


def test_a_prefect_that_is_gone_for_long_is_no_end_either(
    prefect: None,
    tiny_sweep: SoupRequest,
    deployed: str,
    leads: tuple[Workplace, Job, Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.client.orchestration import SyncPrefectClient

    *_, give_back = leads
    monkeypatch.setattr(submitting, "PATIENCE_SECONDS", 0.0)
    with submitted(tiny_sweep, deployed, monkeypatch) as (following, told):
        said(told, "the flow run: ")
        monkeypatch.setattr(submitting, "get_client", lambda **_: SyncPrefectClient("http://127.0.0.1:1/api"))
        said(told, "process 7 on elsewhere")
        give_back()
        with pytest.raises(PrefectUnreachable, match="does not answer; the flow run may go on"):
            following.result(60)


def test_a_crashed_run_that_nobody_works_on_any_more_is_told(
    prefect: None,
    tiny_sweep: SoupRequest,
    deployed: str,
    leads: tuple[Workplace, Job, Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, job, give_back = leads
    place.store.finish_job(job, SoupOutcome(report(soup("a")), (), 3), EVIDENCE, owner="elsewhere/7/x")
    with submitted(tiny_sweep, deployed, monkeypatch) as (following, told):
        crash(told)
        said(told, "process 7 on elsewhere")
        give_back()
        with pytest.raises(PrefectUnreachable, match="ended as Crashed: No sign of life"):
            following.result(60)  # there is an answer: an older one


def test_a_run_that_no_worker_will_end_is_told_as_soon_as_nobody_works_on_the_request(
    prefect: None,
    tiny_sweep: SoupRequest,
    deployed: str,
    leads: tuple[Workplace, Job, Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.states import Pending

    *_, give_back = leads
    looks: list[bool] = []
    held = submitting._Work.held

    def look(work: submitting._Work) -> object:
        looks.append(True)
        return held(work)

    monkeypatch.setattr(submitting._Work, "held", look)
    monkeypatch.setattr(submitting, "STRANDED_SECONDS", 0.0)
    with submitted(tiny_sweep, deployed, monkeypatch) as (following, told):
        end(told, Pending(name="Submitting"))
        awaited(lambda: looks or None, "a look at who works on it")
        assert not following.done()
        give_back()
        with pytest.raises(
            PrefectUnreachable, match=r"the flow run is Submitting, .* no process works on"
        ) as caught:
            following.result(60)
        assert caught.value.mend.endswith(f"prefect flow-run delete {run_of(told)}")


def test_to_cancel_a_run_whose_worker_is_gone_would_not_end_it(prefect: None, deployed: str) -> None:
    """Why the mend is to delete it: should this fail, Prefect has learnt to, and the mend may be kinder."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling, Pending

    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployed).id
        asked = {"request": to_document(REQUEST)}
        run = client.create_flow_run_from_deployment(found, parameters=asked).id
        become: list[State[Any]] = [Pending(), Pending(name="Submitting"), Cancelling()]
        for state in become:
            client.set_flow_run_state(run, state)
        left = client.read_flow_run(run).state
        client.delete_flow_run(run)
    assert left is not None
    assert left.is_cancelling(), "a run that nobody had taken would be Cancelled"


def test_what_waits_for_a_worker_or_for_a_person_may_do_so_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import states

    monkeypatch.setattr(submitting, "STRANDED_SECONDS", 0.0)
    pulse = submitting._Pulse()
    resting: list[State[Any]] = [
        states.Scheduled(),
        states.AwaitingConcurrencySlot(),
        states.Paused(),
        states.Completed(),
    ]
    assert not any(pulse.is_gone(state, told=False) for state in resting for _ in range(2))
    moving: list[State[Any]] = [states.Pending(), states.Running(), states.Running()]
    assert [pulse.is_gone(state, told=state is moving[1]) for state in moving] == [False, False, True]


def test_an_end_that_the_walk_has_told_is_one_whoever_works_on_the_same_request(
    prefect: None,
    tiny_sweep: SoupRequest,
    deployed: str,
    leads: tuple[Workplace, Job, Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.states import Failed

    with submitted(tiny_sweep, deployed, monkeypatch) as (following, told):
        end(told, Failed(message="Flow run encountered an exception: NothingToSoup: only one run"))
        with pytest.raises(NothingToSoup, match="only one run"):
            following.result(60)


def test_a_sweep_that_grew_meanwhile_is_answered_as_it_was_asked_for(
    prefect: None,
    tiny_sweep: SoupRequest,
    deployed: str,
    leads: tuple[Workplace, Job, Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient
    from prefect.states import Completed

    place, job, give_back = leads
    client = MlflowClient()
    (listed, *_) = place.tracker.runs(tiny_sweep.selector)
    with submitted(tiny_sweep, deployed, monkeypatch) as (following, told):
        said(told, "the flow run: ")
        late = client.create_run(
            client.get_run(listed.run_id).info.experiment_id, tags=client.get_run(listed.run_id).data.tags
        )
        try:
            assert job_of(tiny_sweep, place.tracker).name != job.name
            answer = SoupOutcome(report(soup("a", "b")), (), 3, 3.0)
            place.store.finish_job(job, answer, EVIDENCE, owner="elsewhere/7/x")
            give_back()
            end(told, Completed())
            assert following.result(60) == replace(answer, evaluations=0, passes=0.0)
        finally:
            client.delete_run(late.info.run_id)
