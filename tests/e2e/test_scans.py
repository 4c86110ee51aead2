"""From a sweep that finished to its soup, by a scan on a real MLflow: asked for by many, made once."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stockpot import calls
from stockpot.entities import JobState, SoupRequest
from stockpot.errors import Busy
from stockpot.testing.sweeps import plant_run
from stockpot.testing.tiny import weights
from stockpot.wiring import Workplace
from stockpot.workflow.scanning.findings import Done, Standing

pytestmark = pytest.mark.slow
RULES = """
[[rule]]
name = "tiny"
experiments = ["sweeps"]
since = 1970-01-01
[rule.request]
model = "tiny"
task = "stockpot.testing.tiny:TinyTask"
task_args = { kind = "dense", n = 80 }
shifts = ["shifted"]
"""
AT_ONCE = 100


@pytest.fixture
def sweep(tiny_sweep: SoupRequest, home: Path) -> str:
    home.mkdir()
    (home / "rules.toml").write_text(RULES)
    return tiny_sweep.sweep or ""


def versions() -> int:
    return len(MlflowClient().search_model_versions("name='tiny'"))


def test_a_sweep_is_souped_once_and_again_when_it_has_grown(sweep: str) -> None:
    found, (done,) = calls.scan()
    assert [one.standing for one in found.sightings] == [Standing.DUE]
    assert (done.sweep, done.exit_code, done.fault) == (sweep, 0, "")
    assert len(done.versions) == versions() > 0
    assert calls.scan()[1] == ()
    client = MlflowClient()
    parent = client.get_run(sweep).info
    plant_run(client, parent.experiment_id, sweep, "late", weights("dense", seed=9))
    found, (grown,) = calls.scan()
    assert grown.exit_code == 0
    first, second = Workplace().store.job_records()
    assert (first.state, second.state) == (JobState.DONE, JobState.DONE)
    assert (second.name, second.predecessor) == (grown.job, first.name)


def test_what_failed_before_its_rule_was_mended_is_no_failure_any_more(sweep: str, home: Path) -> None:
    (home / "rules.toml").write_text(RULES.replace("TinyTask", "TinyTaks"))
    _, (failed,) = calls.scan()
    assert failed.exit_code
    (home / "rules.toml").write_text(RULES)
    store = Workplace().store
    (row,) = store.known_sweeps([sweep], ["tiny"])
    assert row.job == failed.job
    store.keep_scan([replace(row, look_at=1.0)], {})  # in place of a ten minutes' wait
    _, (done,) = calls.scan()
    assert done.exit_code == 0
    found = {record.name: record.state for record in store.job_records()}
    assert found == {failed.job: JobState.REPLACED, done.job: JobState.DONE}


@pytest.mark.timeout(900)
def test_a_hundred_triggers_at_once_for_one_sweep_are_one_job_and_one_version_of_each_soup(
    sweep: str,
) -> None:
    def trigger(_: int) -> tuple[Done, ...]:
        try:
            return calls.scan()[1]
        except Busy:
            return ()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        done = [one for results in threads.map(trigger, range(AT_ONCE)) for one in results]
    answered = [one for one in done if one.versions]
    assert answered
    assert {one.exit_code for one in done} == {0}
    (record,) = Workplace().store.job_records()
    assert (record.state, record.attempts) == (JobState.DONE, 0)
    assert {one.job for one in done} == {record.name}
    assert versions() == len(set(answered[0].versions))
    assert calls.scan()[1] == ()


@pytest.mark.timeout(600)
def test_a_killed_scan_is_gone_on_with_by_the_next_one(sweep: str, tmp_path: Path) -> None:
    (tmp_path / "killing.py").write_text(KILLING)
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    killed = subprocess.run(
        [sys.executable, "killing.py"], cwd=tmp_path, env=surroundings, check=False, timeout=300
    )
    assert killed.returncode == -9
    store = Workplace().store
    (record,) = store.job_records()
    assert record.state is JobState.RUNNING, "its lease has not run out"
    held = record.lease
    assert held is not None
    assert [one.standing for one in calls.scan(dry_run=True)[0].sightings] == [Standing.RUNNING]
    store.release_lease(held.name, owner=held.owner)  # in place of a minute's wait
    _, (done,) = calls.scan()
    assert done.exit_code == 0
    assert len(json.loads(json.dumps(done.versions))) == versions()


KILLING = """
import os, signal
from stockpot import calls
from stockpot.workflow import walk

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

import stockpot.workflow.jobs as jobs
jobs.walk = die
calls.scan()
"""
