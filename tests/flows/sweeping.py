"""Requests about tiny sweeps on the workers of a site, and what came of them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.flows.prefect_site import SECONDS, Site, awaited

from stockpot import SoupOutcome, SoupRequest, soup
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import job_of

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

def tell():
    with HELPER.open("a+") as told:
        told.seek(0)
        if f"{os.getpid()}\\n" not in told.readlines():
            told.write(f"{os.getpid()}\\n")
    if Path(__file__).with_suffix(".stand").exists():
        time.sleep(600)  # it is killed

class Standing(TinyTask):
    '''Stands still in its fourth evaluation.'''

    version = "1"
    batches = 0

    def predict(self, model, batch):
        Standing.batches += 1
        if Standing.batches == 35:
            tell()
        return super().predict(model, batch)

class Meeting(TinyTask):
    '''Helpers tell their processes. Nobody goes further than the first batch before one has, or as many as
    `wanted` tells.
    '''

    version = "1"

    def predict(self, model, batch):
        if HELPS:
            tell()
        wanted = HELPER.with_suffix(".wanted")
        number = int(wanted.read_text()) if wanted.exists() else 1
        end = time.monotonic() + 300
        while not HELPER.exists() or len(HELPER.read_text().split()) < number:
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


def process_of(name: str, tasks: Path) -> int:
    """Which has told, as soon as it has."""
    told = tasks / f"{name}.helper"
    return int(awaited(lambda: told.read_text() or None if told.exists() else None, name, 2 * SECONDS))


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
    return httpx.post(url, json=question, trust_env=False, timeout=SECONDS).raise_for_status().json()


def flow_runs(site: Site, model: str) -> dict[str, Any]:
    """By name: all that work on this model."""
    wanted = {"tags": {"all_": [f"model: {model}"]}}
    return {run["name"]: run for run in asked(site, "flow_runs/filter", flow_runs=wanted)}


def last_words(site: Site, model: str) -> list[str]:
    """Of all helpers, as soon as they have ended."""

    def found() -> list[str] | None:
        states = [run["state"] for name, run in flow_runs(site, model).items() if name.startswith("help")]
        ended = all(state["type"] in {"COMPLETED", "CANCELLED"} for state in states)
        return [state["message"] or state["name"] for state in states] if ended else None

    return awaited(found, "the end of the helpers")


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
        patch.delenv("STOCKPOT_STORE_URL", raising=False)
        return soup(of_one, flow=False, watch=Silent())


def require_alike(found: SoupOutcome, one: SoupOutcome) -> None:
    """Also in where each trial of the search was ended: greedy's passes are the same."""
    assert found.report.selections == one.report.selections
    assert [row.scores for row in found.report.table] == [row.scores for row in one.report.table]
    assert [row.versus_best for row in found.report.table] == [row.versus_best for row in one.report.table]
    assert [soup.checkpoint for soup in found.soups] == [soup.checkpoint for soup in one.soups] != []
