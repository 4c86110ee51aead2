"""A sweep on real process workers: submitted by the command, shared with helpers, whatever comes of them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.flows.prefect_site import SECONDS, Site, awaited, below, prefect_site
from tests.flows.sweeping import (
    alone,
    answered,
    asked,
    flow_runs,
    last_words,
    process_of,
    request_for,
    require_alike,
    submitting,
)

from stockpot.documents import to_document
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import job_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LEADING = Path(__file__).parents[1] / "faults" / "leading_process.py"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the workers' flow runs begin in."""
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def environment(migrated_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An MLflow and a store that all processes share."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "mlflow.db").write_bytes(migrated_mlflow.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.setenv(name, f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("STOCKPOT_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def site(environment: Path, tasks: Path) -> Iterator[Site]:
    with prefect_site(environment / "prefect", STOCKPOT_LOG="json") as found:
        found.deploy(tasks)
        found.start_worker("one")
        found.start_worker("two")
        yield found


@pytest.fixture(scope="module")
def sweep(environment: Path) -> str:
    """Five tiny models that were really logged."""
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    client.create_experiment("sweeps", artifact_location=(environment / "artifacts").as_uri())
    return plant_sweep(client, "sweeps", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(5)})


def test_a_submitted_sweep_is_shared_with_helpers_and_its_answer_is_that_of_one(
    site: Site, sweep: str, tasks: Path, one_thread: None
) -> None:
    from mlflow import MlflowClient

    request = request_for("shared", sweep, tasks)
    command = submitting(site, request, helpers=2)
    printed, told = command.communicate(timeout=2 * SECONDS)
    assert command.returncode == 0, told
    lines = [json.loads(line) for line in told.splitlines()]
    assert any("rank: " in line["message"] for line in lines), "the log of the flow run is told"
    assert {"model": "shared", "sweep": sweep}.items() <= lines[-1].items()
    found, one = answered(request), alone(request)
    require_alike(found, one)
    assert 0 < found.evaluations < one.evaluations
    versions = [each["uri"] for each in json.loads(printed)["soups"]]
    assert versions == [each.uri for each in found.soups]

    priorities = {each["name"]: each["priority"] for each in asked(site, "work_pools/gpu/queues/filter")}
    assert priorities["default"] < priorities["helpers"], "new sweeps first"
    runs = flow_runs(site, "shared")
    logs = [line for file in site.folder.glob("*.log") for line in file.read_text().splitlines()]
    logged = [json.loads(line) for line in logs if line.startswith('{"time": ')]
    about = {(line["flow_run_name"], line["job"]) for line in logged if "job" in line}
    assert {("soup-shared", lines[-1]["job"]), ("help-shared-1", lines[-1]["job"])} <= about
    of_life = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "any_resource": {"id": [f"prefect.flow-run.{runs['soup-shared']['id']}"]},
    }
    awaited(lambda: asked(site, "events/filter", filter=of_life)["total"] or None, "a sign of life")
    assert sorted(runs) == ["help-shared-1", "help-shared-2", "soup-shared"]
    of_soup = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_run(found.soups[0].run_id)
    assert of_soup.data.tags["stockpot.flow_run"].endswith(f"/runs/flow-run/{runs['soup-shared']['id']}")
    assert f"sweep: {sweep}" in runs["soup-shared"]["tags"]

    # The workers have room for one: the other was cancelled, or came when there was nothing left to do.
    said = last_words(site, "shared")
    useful = [line for line in said if line.startswith("helped with ") and " 0 " not in line]
    assert len(useful) == 1, said
    assert {*said} - {*useful} <= {"Cancelled", "helped with 0 evaluations"}


def test_a_helper_killed_in_mid_evaluation_and_a_command_that_is_left_change_nothing(
    site: Site, sweep: str, tasks: Path, one_thread: None
) -> None:
    request = request_for("killed", sweep, tasks)
    (tasks / "killed.stand").touch()
    command = submitting(site, request, helpers=1)
    assert command.stderr is not None
    assert next(line for line in command.stderr if "the flow run: " in line)
    command.send_signal(signal.SIGINT)
    _, told = command.communicate(timeout=60)
    assert "the flow run goes on: " in told
    assert command.returncode != 0

    os.kill(process_of("killed", tasks), signal.SIGKILL)

    def ended() -> str | None:
        state: str = flow_runs(site, "killed")["soup-killed"]["state"]["name"]
        return state if state in {"Completed", "Failed", "Crashed"} else None

    assert awaited(ended, "the end of the sweep", 2 * SECONDS) == "Completed"
    found, one = answered(request), alone(request)
    require_alike(found, one)
    assert found.evaluations == one.evaluations, "what the helper had begun was begun again"


def test_what_stops_a_submitted_request_is_told_as_if_it_had_run_here(
    site: Site, sweep: str, tasks: Path
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    too_small = plant_sweep(client, "sweeps", {"only": weights("dense", seed=9)})
    command = submitting(site, replace(request_for("small", sweep, tasks), sweep=too_small), helpers=0)
    printed, told = command.communicate(timeout=2 * SECONDS)
    assert command.returncode == 4, told
    assert json.loads(told.splitlines()[-1])["error"] == "NothingToSoup"
    assert not printed


def test_a_run_whose_worker_died_is_told_to_be_crashed_and_the_next_request_goes_on_from_it(
    site: Site, sweep: str, tasks: Path, one_thread: None
) -> None:
    site.run(sys.executable, "-m", "stockpot", "automations")
    request = replace(request_for("lost", sweep, tasks), task="lost:Standing")
    (tasks / "lost.stand").touch()
    command = submitting(site, request, helpers=0)
    child = process_of("lost", tasks)
    worker = next(each for each in site.processes if child in below(each.pid))
    for process in (worker.pid, child):  # who started it would tell Prefect of its end
        os.kill(process, signal.SIGKILL)
    site.start_worker("three")
    printed, said = command.communicate(timeout=2 * SECONDS)
    assert (command.returncode, printed) == (10, ""), said
    last = json.loads(said.splitlines()[-1])
    assert "ended as Crashed: No sign of life for 90 s: its process is gone" in last["message"]
    (tasks / "lost.stand").unlink()
    again = submitting(site, request, helpers=0)
    assert again.communicate(timeout=2 * SECONDS)[0]
    assert again.returncode == 0
    found, one = answered(request), alone(request)
    require_alike(found, one)
    assert found.evaluations == one.evaluations - 3, "what was acknowledged is not done again"


def test_a_run_that_a_worker_took_and_never_began_is_told_to_be_crashed(site: Site) -> None:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.states import Pending, Running

    from stockpot_flows.automations import ours

    _, waiting = ours(waiting=10)
    with SyncPrefectClient(site.variables["PREFECT_API_URL"]) as client:
        made = client.create_automation(waiting.model_copy(update={"name": "short"}))
        helping = client.read_deployment_by_name("help-sweep/help-sweep").id
        stays, begins = (
            client.create_flow_run_from_deployment(helping, state=Pending(), parameters={"job": "none"})
            for _ in range(2)
        )
        client.set_flow_run_state(begins.id, Running())

        def crashed() -> str | None:
            state = client.read_flow_run(stays.id).state
            return state.message if state is not None and state.is_crashed() else None

        assert awaited(crashed, "the automation") == "A worker took it 10 s ago, and it has not begun."
        state = client.read_flow_run(begins.id).state
        assert state is not None
        assert state.is_running()
        client.delete_automation(made)


def test_a_helper_of_another_kind_says_what_differs_and_that_is_no_failure(
    prefect: None, sweep: str, tasks: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stockpot_flows.help_sweep import help_sweep

    monkeypatch.syspath_prepend(tasks)
    monkeypatch.chdir(tasks)
    request = request_for("unlike", sweep, tasks)
    variables = {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    leader = subprocess.Popen(
        [sys.executable, str(LEADING), json.dumps(to_document(request))],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert leader.stdout is not None
    assert leader.stdout.readline().strip() == "leads"
    try:
        with Workplace() as place:
            job = job_of(request, place.tracker)
        state = help_sweep(job.name, return_state=True)
    finally:
        (tasks / "unlike.helper").write_text("nobody")
        leader.communicate(timeout=SECONDS)
    assert state.is_completed()
    assert state.message is not None
    assert "this process would not give the scores" in state.message
    assert " 1 thread here, " in state.message
    assert " 2 threads there" in state.message
    assert leader.returncode == 0
