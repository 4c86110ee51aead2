"""The scan as a flow, and announcements as events, on a real Prefect."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from stockpot.announcing import announce
from stockpot.entities import JobState, SoupRequest
from stockpot.errors import BadRequest
from stockpot.settings import read_settings
from stockpot.store import SqlStore
from stockpot.testing.sweeps import plant_run
from stockpot.testing.tiny import weights
from stockpot.wiring import Workplace
from stockpot.workflow.scanning.rules import read_rules
from stockpot_flows.events import FINISHED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RULES = """
[[rule]]
name = "tiny"
experiments = ["sweeps"]
since = 1970-01-01
[rule.request]
model = "tiny"
task = "stockpot.testing.tiny:TinyTask"
shifts = ["shifted"]
"""
HIDDEN = [
    "torch",
    "sqlalchemy",
    "alembic",
    "pandas",
    "prefect",
    "numpy",
    "scipy",
    "matplotlib",
    "safetensors",
]
HIDDEN += [
    "sklearn",
    "pyarrow",
    "flask",
    "rich",
    "typer",
    "fsspec",
    "pydantic_settings",
    "docker",
    "graphene",
]
SKINNY = f"""
import sys
from importlib.machinery import PathFinder
whole = PathFinder.find_spec

def find(name, path=None, target=None):
    return None if name.split(".")[0] in {HIDDEN} else whole(name, path, target)

PathFinder.find_spec = find
from stockpot.announcing import announce
print(announce(sys.argv[1], rule="tiny").notes, set({HIDDEN}) & set(sys.modules))
"""


@pytest.fixture
def sweep(prefect: None, tiny_sweep: SoupRequest, home: Path) -> str:
    home.mkdir()
    (home / "rules.toml").write_text(RULES)
    return tiny_sweep.sweep or ""


def runs_of(deployment: str) -> list[Any]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    chosen = DeploymentFilter(name=DeploymentFilterName(any_=[deployment.split("/")[1]]))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(deployment_filter=chosen)


def scanned(deployment: str) -> str:
    from stockpot_flows.scan_sweeps import scan_sweeps

    return scan_sweeps(deployment=deployment, return_state=True).message or ""


def test_a_finished_sweep_is_handed_to_the_deployment_once(
    sweep: str, deployed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stockpot_flows import scan_sweeps

    assert scanned(deployed) == "asked for 1 soup; 0 other sweeps looked at"
    assert scanned(deployed) == "asked for 0 soups; 0 other sweeps looked at"
    (run,) = runs_of(deployed)
    request = run.parameters["request"]
    assert (request["sweep"], request["model"], request["shifts"]) == (sweep, "tiny", ["shifted"])
    (record,) = Workplace().store.job_records()
    assert record.state is JobState.WAITING
    assert run.idempotency_key == f"{record.name}-0"
    assert run.parent_task_run_id is None
    monkeypatch.setattr(scan_sweeps, "LOST_AFTER", 1e-9)
    place = Workplace()
    (known,) = place.store.known_sweeps([sweep], ["tiny"])
    place.store.keep_scan([replace(known, look_at=1.0)], {})
    assert scanned(deployed).startswith("asked for 1 soup")
    assert {run.idempotency_key for run in runs_of(deployed)} == {f"{record.name}-{n}" for n in range(2)}


def test_nothing_is_asked_for_where_nobody_would_hear_it(sweep: str) -> None:
    from stockpot_flows.scan_sweeps import scan_sweeps

    with pytest.raises(BadRequest, match="Prefect knows no deployment soup-sweep/nowhere"):
        scan_sweeps(deployment="soup-sweep/nowhere")
    assert Workplace().store.job_records() == ()
    assert Workplace().store.sweeps_due(["tiny"]) == ()


def test_one_that_cannot_be_handed_over_keeps_no_other_from_it(
    sweep: str, deployed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stockpot_flows import scan_sweeps

    client = MlflowClient()
    parent = client.create_run(client.get_run(sweep).info.experiment_id).info.run_id
    for seed in (8, 9):
        plant_run(
            client, client.get_run(sweep).info.experiment_id, parent, f"{seed}", weights("dense", seed=seed)
        )
    client.set_terminated(parent)
    hand_over, asked = scan_sweeps._submit, []

    def refuse_first(one: Any, deployment: str) -> None:
        asked.append(one)
        if len(asked) == 1:
            raise ConnectionError("no answer")
        hand_over(one, deployment)

    monkeypatch.setattr(scan_sweeps, "_submit", refuse_first)
    with pytest.raises(ConnectionError):
        scan_sweeps.scan_sweeps(deployment=deployed)
    (run,) = runs_of(deployed)
    assert len(asked) == 2
    assert run.parameters["request"]["sweep"] == asked[1].request.sweep


def test_a_scan_that_was_deployed_before_there_are_rules_says_so(sweep: str, deployed: str) -> None:
    read_settings().rules_file.unlink()
    assert scanned(deployed).startswith("there are no rules yet: ")
    assert runs_of(deployed) == []


def test_a_second_scan_leaves_it_to_the_first(sweep: str, deployed: str) -> None:
    settings = read_settings()
    store = SqlStore(settings.database)
    store.take_lease(read_rules(settings.rules_file).lease, owner="elsewhere/1/x", seconds=600)
    assert scanned(deployed).startswith("another scan is under way: process 1 on elsewhere")
    assert runs_of(deployed) == []


def test_an_announcement_is_an_event_that_fires_once_until_the_sweep_changes(
    sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    first, again = announce(sweep), announce(sweep)
    assert first == again
    assert first.notes == ()
    client = MlflowClient()
    plant_run(client, client.get_run(sweep).info.experiment_id, sweep, "late", weights("dense", seed=9))
    grown = announce(sweep)
    assert grown.event != first.event
    assert set(events_about(sweep)) == {str(first.event), str(grown.event)}


def events_about(sweep: str) -> list[str]:
    """Ids, as soon as the server has written them."""
    from prefect.client.orchestration import get_client

    wanted = {"filter": {"event": {"name": [FINISHED]}, "resource": {"id": [f"stockpot.sweep.{sweep}"]}}}
    deadline = time.monotonic() + 120
    with get_client(sync_client=True) as client:
        while True:
            found = client.request("POST", "/events/filter", json=wanted).json()["events"]
            if len({event["id"] for event in found}) > 1:
                return [event["id"] for event in found]
            assert time.monotonic() < deadline, found
            time.sleep(0.5)


def test_an_event_that_cannot_be_sent_is_said_and_the_tag_is_set(
    sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    nowhere = "http://me:hunter2@127.0.0.1:1/api"
    monkeypatch.setenv("PREFECT_API_URL", nowhere)
    with temporary_settings({PREFECT_API_URL: nowhere}):
        told = announce(sweep)
    (note,) = told.notes
    assert "from PREFECT_API_URL, took no event" in note
    assert "The tag is set: the next scan finds the sweep" in note
    assert "hunter2" not in note
    assert MlflowClient().get_run(sweep).data.tags["stockpot.soup"] == told.tag


def test_announcing_needs_no_more_than_mlflow_skinny(start_mlflow: Any, tmp_path: Path) -> None:
    (tmp_path / "skinny.py").write_text(SKINNY)
    with start_mlflow(tmp_path) as uri:
        client = MlflowClient(uri)
        parent = client.create_run("0").info.run_id
        below = client.create_run("0", tags={"mlflow.parentRunId": parent}).info.run_id
        for run_id in (below, parent):
            client.set_terminated(run_id)
        told = subprocess.run(
            [sys.executable, "skinny.py", parent],
            cwd=tmp_path,
            env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert told.stdout == "() set()\n"
        assert '"rule": "tiny"' in client.get_run(parent).data.tags["stockpot.soup"]
