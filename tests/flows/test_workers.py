"""A sweep on real process workers: submitted by the command, shared with helpers, whatever comes of them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.flows.prefect_site import SECONDS, Site, awaited, prefect_site

from stockpot import SoupOutcome, SoupRequest, soup
from stockpot.documents import to_document
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import job_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LEADING = Path(__file__).parents[1] / "faults" / "leading_process.py"
TASK = """
import os
import time
from pathlib import Path
from prefect.runtime import flow_run
from stockpot.testing.tiny import TinyTask
from stockpot.workflow import leases

leases.LEASE_SECONDS = 5.0  # so that nobody has to wait for a minute for what a killed process held
HELPS = flow_run.flow_name == "help-sweep"
HELPER = Path(__file__).with_suffix(".helper")

class Meeting(TinyTask):
    '''A helper tells its process; who leads goes no further than its first batch before that.'''

    version = "1"

    def predict(self, model, batch):
        if HELPS:
            new = HELPER.with_suffix(".new")
            new.write_text(str(os.getpid()))
            new.rename(HELPER)
            if Path(__file__).with_suffix(".stand").exists():
                time.sleep(600)  # it is killed
        else:
            end = time.monotonic() + 300
            while not HELPER.exists():
                assert time.monotonic() < end, "no helper came"
                time.sleep(0.02)
        return super().predict(model, batch)
"""
COMMAND = """
import signal
from stockpot.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell that runs the tests ignores it
main()
"""


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


def request_for(name: str, sweep: str, tasks: Path) -> SoupRequest:
    """With a task of its own, of which nothing is remembered."""
    (tasks / f"{name}.py").write_text(TASK.replace('version = "1"', f'version = "{name}"'))
    return SoupRequest(
        model=name,
        sweep=sweep,
        task=f"{name}:Meeting",
        task_args={"kind": "dense", "n": "80"},
        shifts=("shifted",),
    )


def submitting(site: Site, request: SoupRequest, helpers: int) -> "subprocess.Popen[str]":
    options = ["--model", request.model, "--task", request.task, "--shift", "shifted", "--submit"]
    arguments = [f"--task-arg={name}={value}" for name, value in request.task_args.items()]
    return subprocess.Popen(
        [
            *(sys.executable, "-c", COMMAND, "soup", *options, *arguments, "--sweep", str(request.sweep)),
            *("--helpers", str(helpers), "--json"),
        ],
        env={**os.environ, **site.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def asked(site: Site, path: str, **question: Any) -> Any:
    """Of Prefect's API."""
    url = f"{site.variables['PREFECT_API_URL']}/{path}"
    return httpx.post(url, json=question, trust_env=False).raise_for_status().json()


def flow_runs(site: Site, model: str) -> dict[str, Any]:
    """By name: all that work on this model."""
    wanted = {"tags": {"all_": [f"model: {model}"]}}
    return {run["name"]: run for run in asked(site, "flow_runs/filter", flow_runs=wanted)}


def answered(request: SoupRequest) -> SoupOutcome:
    with Workplace() as place:
        found = place.store.answer(job_of(request, place.tracker))
    assert found is not None
    return found.outcome


def alone(request: SoupRequest) -> SoupOutcome:
    """What one process finds, for the same task without the waiting: nothing is remembered of it either."""
    of_one = replace(request, task="stockpot.testing.tiny:TinyTask", model=f"{request.model}-alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOCKPOT_HOME", f"{os.environ['STOCKPOT_HOME']}-{request.model}")
        return soup(of_one, flow=False, watch=Silent())


def require_alike(found: SoupOutcome, one: SoupOutcome) -> None:
    """Also in where each trial of the search was ended: greedy's passes are the same."""
    assert found.report.selections == one.report.selections
    assert [row.scores for row in found.report.table] == [row.scores for row in one.report.table]
    assert [row.versus_best for row in found.report.table] == [row.versus_best for row in one.report.table]
    assert [soup.checkpoint for soup in found.soups] == [soup.checkpoint for soup in one.soups] != []


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

    def helped() -> list[str] | None:
        """Of what each helper said at its end."""
        states = [run["state"] for name, run in flow_runs(site, "shared").items() if name.startswith("help")]
        ended = all(state["type"] in {"COMPLETED", "CANCELLED"} for state in states)
        return sorted(state["message"] or state["name"] for state in states) if ended else None

    # The workers have room for one: the other was cancelled, or came when there was nothing left to do.
    said = awaited(helped, "the end of the helpers")
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

    helper = tasks / "killed.helper"
    awaited(lambda: helper.exists() or None, "the helper", 2 * SECONDS)
    os.kill(int(helper.read_text()), signal.SIGKILL)

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
        (tasks / "unlike.helper").touch()
        leader.communicate(timeout=SECONDS)
    assert state.is_completed()
    assert state.message is not None
    assert "this process would not give the scores" in state.message
    assert " 1 thread here, " in state.message
    assert " 2 threads there" in state.message
    assert leader.returncode == 0
