"""From the announcement of a sweep to its first evaluation, by the shipped trigger; one line of JSON.

    python -m tests.benchmarks.triggers FOLDER [--rounds 4]

A Prefect server, a worker that is idle, and a scan by rules, beside empty flows in their places: an event
makes a run of the first, which asks for a run of the second. `announced`, `empty`: seconds from that until
the first evaluation begins, until the second empty flow does. `lost`, `nothing`: seconds from the creation to
the end of a flow run whose request is answered, and of an empty one. `parts` of each announcement: when the
scan was created, began and ended, when the soup's run was created and began, in seconds.
"""

import argparse
import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from tests.flows.prefect_site import Site, awaited, prefect_site

from stockpot.announcing import announce
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights

TASK = '''
import time
from pathlib import Path
from stockpot.testing.tiny import TinyTask

class Timed(TinyTask):
    """Tells when its first evaluation begins."""

    def __init__(self, data):
        super().__init__()

    def predict(self, model, batch):
        begun = Path(__file__).with_name("begun")
        if not begun.exists():
            begun.write_text(str(time.time()))
        return super().predict(model, batch)
'''
EMPTY = """
import time
from pathlib import Path
from prefect import flow
from prefect.deployments import run_deployment

@flow(name="first")
def first():
    run_deployment("second/second", timeout=0, as_subflow=False)

@flow(name="second")
def second():
    Path(__file__).with_name("begun").write_text(str(time.time()))
"""
DEPLOYMENTS = """
- name: first
  entrypoint: empty_flows.first
  triggers:
  - type: event
    match: {prefect.resource.id: "bench.*"}
    expect: [bench.happened]
    for_each: [prefect.resource.id]
    posture: Reactive
    threshold: 1
    within: 60
  work_pool: {name: gpu, work_queue_name: default, job_variables: *job}

- name: second
  entrypoint: empty_flows.second
  work_pool: {name: gpu, work_queue_name: default, job_variables: *job}
"""
RULES = """
[[rule]]
name = "bench"
experiments = ["bench"]
since = 1970-01-01
[rule.request]
model = "bench"
task = "timed_task:Timed"
task_args = {{ data = "{data}" }}
"""
"""The task names its data: else it is not known what an answer depends on, and each request walks again."""


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """So many announcements, each of a sweep of its own, and so many of everything else. The first of several
    is left out: what it needs from the disk is not in memory yet.
    """
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    os.environ["STOCKPOT_HOME"] = str(folder / "home")
    tasks = folder / "tasks"
    for made in (tasks, folder / "home"):
        made.mkdir(parents=True)
    (folder / "home" / "rules.toml").write_text(RULES.format(data=tasks / "data.txt"))
    (tasks / "data.txt").write_text("the same")
    (tasks / "timed_task.py").write_text(TASK)
    (tasks / "empty_flows.py").write_text(EMPTY)
    sys.path.insert(0, str(tasks))  # the site's processes get it
    client = MlflowClient(uri)
    client.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
    found: dict[str, list[Any]] = {"announced": [], "empty": [], "lost": [], "nothing": [], "parts": []}
    with prefect_site(folder / "prefect") as site:
        site.deploy(tasks, DEPLOYMENTS)
        site.start_worker("idle")
        os.environ |= site.variables
        for number in range(rounds):
            runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(4 * number, 4 * number + 4)}
            sweep = plant_sweep(client, "bench", runs)
            client.set_terminated(sweep)
            for name, figure in _round(site, tasks, sweep).items():
                found[name].append(figure)
    return {name: figures[1:] or figures for name, figures in found.items()}


def _round(site: Site, tasks: Path, sweep: str) -> dict[str, Any]:
    begun = tasks / "begun"

    def told() -> float | None:
        return float(begun.read_text() or 0) or None if begun.exists() else None

    begun.unlink(missing_ok=True)
    event = {"event": "bench.happened", "resource": {"prefect.resource.id": f"bench.{sweep}"}, "payload": {}}
    at = datetime.now().astimezone().isoformat()
    start = time.time()
    _ask(site, "events", [{**event, "occurred": at, "id": str(uuid4())}])
    empty = awaited(told, "the second empty flow") - start
    _idle(site)
    begun.unlink()
    start = time.time()
    assert announce(sweep).notes == ()
    announced = awaited(told, "the first evaluation") - start
    scan, made = _idle(site)[1::-1]
    parts = {
        **{f"scan {name}": _time(scan[name]) - start for name in ("created", "start_time", "end_time")},
        **{f"soup {name}": _time(made[name]) - start for name in ("created", "start_time")},
    }
    took = []
    requests: dict[str, Any] = {"second/second": {}, "soup-sweep/soup": made["parameters"]}
    for name, parameters in requests.items():
        deployment = _ask(site, f"deployments/name/{name}")["id"]
        question = {"parameters": parameters, "idempotency_key": str(uuid4())}
        _ask(site, f"deployments/{deployment}/create_flow_run", question)
        run = _idle(site)[0]
        took.append(_time(run["end_time"]) - _time(run["created"]))
    return {"announced": announced, "empty": empty, "nothing": took[0], "lost": took[1], "parts": parts}


def _idle(site: Site) -> list[dict[str, Any]]:
    """All flow runs, the newest first, as soon as all have ended, and well."""

    def ended() -> list[dict[str, Any]] | None:
        runs: list[dict[str, Any]] = _ask(site, "flow_runs/filter", {"sort": "START_TIME_DESC"})
        states = {run["state_type"] for run in runs}
        assert states <= {"SCHEDULED", "PENDING", "RUNNING", "COMPLETED"}, states
        return runs if states == {"COMPLETED"} else None

    return awaited(ended, "the end of all flow runs")


def _ask(site: Site, path: str, question: Any = None) -> Any:
    url = f"{site.variables['PREFECT_API_URL']}/{path}"
    method = "GET" if question is None else "POST"

    def answered() -> httpx.Response | None:
        told = httpx.request(method, url, json=question, trust_env=False, timeout=60)
        return None if told.status_code == httpx.codes.SERVICE_UNAVAILABLE else told.raise_for_status()

    told = awaited(answered, "a server whose SQLite is not busy")
    return told.json() if told.content else None


def _time(told: str) -> float:
    return datetime.fromisoformat(told).timestamp()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.folder.absolute(), arguments.rounds)))


if __name__ == "__main__":
    main()
