"""`stockpot status` tells what runs, waits, failed or is done."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from stockpot.cli import main
from stockpot.entities import (
    Digest,
    FailedAsk,
    Job,
    KnownSweep,
    Opening,
    PublishedSoup,
    Score,
    SoupOutcome,
    SoupRequest,
)
from stockpot.store import SqlStore
from stockpot.testing.store_values import EVIDENCE, TEST, VALIDATION, job, report, soup
from stockpot.workflow.check import command_of
from stockpot.workflow.leases import Hold

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_it(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["status", *arguments])
        captured = capsys.readouterr()
        assert not ended.value.code, captured.err
        return captured.out

    return run_it


@pytest.fixture
def store(home: Path) -> SqlStore:
    home.mkdir()
    return SqlStore(f"sqlite:///{home / 'stockpot.db'}")


def _hold(store: SqlStore, job_: Job) -> Hold:
    store.begin_job(job_)
    hold = Hold(store, job_.lease, "a job")
    assert hold.attempt() is None
    return hold


def _done(store: SqlStore, job_: Job, *uris: str) -> None:
    hold = _hold(store, job_)
    recipe = soup("a", "b").digest
    soups = tuple(PublishedSoup(("greedy",), recipe, None, uri, "run", (), None) for uri in uris)
    store.finish_job(job_, SoupOutcome(report(), soups, 7), EVIDENCE, owner=hold.owner)
    store.release_lease(job_.lease, owner=hold.owner)


def _failed(store: SqlStore, job_: Job, fault: str) -> None:
    hold = _hold(store, job_)
    store.fail_job(job_, fault, owner=hold.owner)
    store.release_lease(job_.lease, owner=hold.owner)


def _all_kinds(store: SqlStore) -> dict[str, Job]:
    jobs = {
        state: job("one", sweep=f"sweep-{state}")
        for state in ("running", "waiting", "failed", "done", "stopped", "replaced")
    }
    store.commit_score(soup("before"), VALIDATION, Score((1.0,)))
    hold = _hold(store, jobs["running"])
    store.open_job(jobs["running"], Opening("1.0", (VALIDATION, TEST)), owner=hold.owner)
    store.commit_score(soup("a"), TEST, Score((1.0,)))
    store.ask_job(jobs["waiting"], "birds")
    store.ask_job(jobs["replaced"], "birds")
    wanted = KnownSweep("sweep-replaced", "birds", 1.0, None, None, jobs["done"].name)
    store.keep_scan([wanted], {})
    _failed(store, jobs["failed"], "the store is full")
    _done(store, jobs["done"], "models:/digits/3")
    stopped = _hold(store, jobs["stopped"])
    store.release_lease(jobs["stopped"].lease, owner=stopped.owner)
    return jobs


def test_a_new_store_has_nothing_to_tell(home: Path, run: Run) -> None:
    told = run()
    assert "0 running, 0 waiting, 0 failed, 0 stopped, 0 done, 0 replaced" in told
    assert "Last sign of life: none yet" in told


def test_each_job_is_told_with_its_state_and_what_belongs_to_it(
    home: Path, store: SqlStore, run: Run
) -> None:
    jobs = _all_kinds(store)
    (home / "cache").mkdir()
    (home / "cache" / f"{'a' * 64}.safetensors").write_bytes(b"weights")
    document: dict[str, Any] = json.loads(run("--json"))
    assert document["counts"] == dict.fromkeys(jobs, 1)
    del jobs["replaced"]
    told = {each["state"]: each for each in document["jobs"]}
    assert {state: each["name"] for state, each in told.items()} == {s: j.name for s, j in jobs.items()}
    assert {state: each["sweep"] for state, each in told.items()} == {s: f"sweep-{s}" for s in jobs}
    assert told["running"]["where"].startswith("process ")
    assert told["running"]["evaluations"] == 1
    assert (told["failed"]["fault"], told["failed"]["attempts"]) == ("the store is full", 1)
    assert told["failed"]["next"] == "stockpot soup --sweep sweep-failed --model digits --task arrays"
    assert told["done"]["versions"] == ["models:/digits/3"]
    assert (told["done"]["next"], told["running"]["next"]) == ("", "")
    assert (document["evaluations"], document["cache_files"], document["cache_bytes"]) == (2, 1, 7)
    assert document["last_sign_of_life"] >= max(each["since"] for each in told.values()) - 1
    words = run()
    for word in (
        "process ",
        "the store is full",
        "models:/digits/3",
        "a trigger asked for it",
        "ended early",
    ):
        assert word in words
    assert "its rule wants another job" not in words
    assert "its rule wants another job" in run("--all")


def test_of_many_that_are_done_the_newest_are_told_and_all_on_request(
    home: Path, store: SqlStore, run: Run
) -> None:
    for number in range(12):
        _done(store, job("one", sweep=str(number)))
        _failed(store, job("two", sweep=str(number)), "first line\nsecond [bold]line\x1b[2J")
    told = json.loads(run("--json"))
    assert [each["sweep"] for each in told["jobs"] if each["state"] == "done"] == [
        str(number) for number in range(11, 1, -1)
    ]
    assert sum(each["state"] == "failed" for each in told["jobs"]) == 12, "people have all of those to mend"
    assert told["counts"]["done"] == 12
    assert len(json.loads(run("--all", "--json"))["jobs"]) == 24
    words = run()
    assert "[bold]" in words
    assert "\x1b" not in words


def test_what_was_asked_for_in_mlflow_and_could_not_be_answered_is_told_with_its_next_attempt(
    home: Path, store: SqlStore, run: Run
) -> None:
    noon = 1_800_000_000.0
    for number, fault in enumerate(["it broke off\x1b[2J", ""], start=1):
        name = Digest(f"sha256:{number}")
        uri, why = f"models:/birds/{number}", "alias candidate in MLflow"
        store.keep_ask(FailedAsk(name, "birds", 7, uri, why, fault, 2, noon + number))
    killed, broken = json.loads(run("--json"))["asks"]
    assert (killed["uri"], broken["uri"]) == ("models:/birds/2", "models:/birds/1")
    assert (broken["attempts"], broken["failed_at"]) == (2, noon + 1)
    assert json.loads(run("--json"))["last_sign_of_life"] == noon + 2
    words = " ".join(run().split())
    again = "2 attempts, the next one after 2027-01-15 08:20 UTC, or as soon as it is asked for anew"
    assert "not answered: models:/birds/1, alias candidate in MLflow: it broke off" in words
    assert again in words
    assert "\x1b" not in words
    assert "models:/birds/2, alias candidate in MLflow: whoever judged it was stopped, or is at it;" in words
    assert "stockpot_failed_asks 2" in run("--metrics")


def test_metrics_are_read_by_a_monitors_own_reader(home: Path, store: SqlStore, run: Run) -> None:
    _all_kinds(store)
    read: Any = text_string_to_metric_families
    families = {family.name: family for family in read(run("--metrics"))}
    jobs = {sample.labels["state"]: sample.value for sample in families["stockpot_jobs"].samples}
    assert jobs == dict.fromkeys(("running", "waiting", "failed", "stopped", "done", "replaced"), 1)
    values = {name: family.samples[0].value for name, family in families.items()}
    assert (values["stockpot_evaluations"], values["stockpot_cache_bytes"]) == (2, 0)
    assert 0 <= values["stockpot_oldest_running_seconds"] < 300
    assert families["stockpot_cache_bytes"].unit == "bytes"
    assert values["stockpot_last_sign_of_life_timestamp_seconds"] > 1e9


def test_the_command_to_go_on_with_asks_for_the_same(home: Path) -> None:
    request = SoupRequest(
        model="it's",
        task="birds:Task",
        task_args={"data": "a b.npz"},
        experiment="reviews",
        methods=("greedy",),
        shifts=("fog", "night"),
        margin="-1%",
        points="all",
        partial=True,
        wait=False,
        top=5,
        by="accuracy",
    )
    assert command_of(request) == (
        "stockpot soup --experiment reviews --model 'it'\"'\"'s' --task birds:Task --task-arg 'data=a b.npz' "
        "--method greedy --shift fog --shift night --top 5 --by accuracy --partial --points all --margin -1% "
        "--no-wait"
    )
    assert "--verify-exact" in command_of(replace(request, verify_exact=True))
