"""A request is worked on by one process at a time, and what is answered is answered at once."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar, cast

import pytest

from stockpot.documents import from_document
from stockpot.entities import ExclusionReason, Job, JobState, SoupOutcome, SoupRequest, SoupState, tags
from stockpot.errors import BadTask, Busy, NothingToSoup
from stockpot.testing.crashes import CrashingTracker
from stockpot.testing.sweeps import plant_run
from stockpot.testing.tiny import weights
from stockpot.tracking import mlflow_weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import answer
from stockpot.workflow.walk import in_turn

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from stockpot.ports import Tracker, Watcher

T = TypeVar("T")
TASK = """
from pathlib import Path
from stockpot.testing.tiny import TinyTask

class Task(TinyTask):
    def __init__(self, data: str) -> None:
        super().__init__(kind="dense", n=Path(data).read_text())
        assert Path("hidden" + ".txt").read_text() != "empty"  # no string of the module names the file

    def model(self):
        assert Path("layers" + ".txt").read_text() != "empty"
        return super().model()
"""
COMMAND = """
import sys
from stockpot.cli import main
try: main()
finally: print({"torch", "prefect"} & sys.modules.keys() or "light", file=sys.stderr)
"""


@pytest.fixture
def request_(tiny_sweep: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoupRequest:
    """A request whose task is a module in the working directory, and reads two files, of which an argument
    names one.
    """
    monkeypatch.chdir(tmp_path)
    module = f"task_{tmp_path.parent.name.replace('-', '_')}_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(TASK)
    (tmp_path / "n.txt").write_text("80")
    (tmp_path / "hidden.txt").write_text("hidden")
    (tmp_path / "layers.txt").write_text("two")
    time.sleep(0.1)
    monkeypatch.setattr("stockpot.evidence.reads.STARTED", time.time())
    return replace(tiny_sweep, task=f"{module}:Task", task_args={"data": "n.txt"}, methods=("uniform",))


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.waits = Event()

    def say(self, message: str) -> None:
        self.said.append(message)
        if "waiting" in message:
            self.waits.set()


def asked(request: SoupRequest, watch: "Watcher | None" = None) -> tuple[SoupOutcome, bool]:
    """The outcome, and whether it was known without a walk."""
    place = Workplace()
    watched = CrashingTracker(place.tracker)
    place.tracker = cast("Tracker", watched)
    outcome = answer(request, place, in_turn, watch or Silent())
    return outcome, "prove_writable" not in watched.calls


def test_a_request_that_is_answered_is_answered_again_without_a_walk(request_: SoupRequest) -> None:
    first, known = asked(request_)
    assert not known
    again, known = asked(request_)
    assert known
    assert again.evaluations == 0
    assert again.report == first.report
    assert [soup.uri for soup in again.soups] == [soup.uri for soup in first.soups]
    assert [soup.state for soup in again.soups] == [SoupState.ADOPTED]


def test_an_attempt_that_fails_is_kept_with_its_reason_until_there_is_an_answer(
    request_: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Workplace().store
    with monkeypatch.context() as stopped:
        stopped.setattr("stockpot.workflow.jobs.walk", _raise(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            asked(request_)
    (record,) = store.job_records()
    assert (record.state, record.attempts) == (JobState.STOPPED, 0)
    (tmp_path / "hidden.txt").write_text("empty")
    with pytest.raises(BadTask):
        asked(request_)
    with monkeypatch.context() as secret:
        secret.setenv("MLFLOW_S3_ENDPOINT_URL", "http://me:hunter2@nowhere.invalid")
        secret.setattr("stockpot.workflow.jobs.walk", _raise(OSError("no\npassword like hunter2")))
        with pytest.raises(OSError, match="hunter2"):
            asked(request_)
    (record,) = store.job_records()
    assert (record.state, record.attempts) == (JobState.FAILED, 2)
    assert record.fault == "OSError: no\\npassword like ***"
    (tmp_path / "hidden.txt").write_text("hidden")
    asked(request_)
    (record,) = store.job_records(sweeps=[request_.sweep or ""])
    assert (record.state, record.fault, record.attempts) == (JobState.DONE, None, 2)


def _raise(error: BaseException | type[BaseException]) -> Callable[..., SoupOutcome]:
    def walk(*_: object) -> SoupOutcome:
        raise error

    return walk


@pytest.mark.slow
@pytest.mark.parametrize("broken", [1, 2])
def test_a_run_whose_transfer_broke_is_tried_again_and_no_answer_without_it_is_kept(
    request_: SoupRequest, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    odd = next(iter(Workplace().tracker.runs(request_.selector))).run_id
    whole, left = mlflow_weights.download, iter(range(broken))

    def cut(client: "MlflowClient", uri: str, into: Path) -> Path:
        file = whole(client, uri, into)
        if odd in uri and next(left, None) is not None:
            file.write_bytes(file.read_bytes()[:-8])
        return file

    monkeypatch.setattr(mlflow_weights, "download", cut)
    first, _ = asked(request_)
    told = Told()
    again, known = asked(request_, told)
    if broken == 1:
        assert first.report.exclusions == ()
        assert known
        return
    assert [(e.run_id, e.reason) for e in first.report.exclusions] == [(odd, ExclusionReason.NOT_READ)]
    assert not known
    assert any("did not arrive" in message for message in told.said)
    assert again.report.exclusions == ()


@pytest.mark.slow
def test_weights_that_a_resumed_run_replaced_by_others_of_the_same_size_are_read_anew(
    request_: SoupRequest, tmp_path: Path, mlflow_uri: str
) -> None:
    from mlflow import MlflowClient
    from safetensors.torch import save

    client, selector = MlflowClient(mlflow_uri), request_.selector
    tracker = Workplace().tracker
    run = next(iter(tracker.runs(selector)))
    resumed = run.run_id
    first, _ = asked(request_)
    file = tmp_path / "model.safetensors"
    file.write_bytes(save(weights("dense", seed=77), {"format": "pt"}))
    (source,) = tracker.weights(run)
    assert file.stat().st_size == source.size, "MLflow cannot tell them apart"
    client.update_run(resumed, status="RUNNING")
    client.log_artifact(resumed, str(file))
    client.set_terminated(resumed)
    second, known = asked(request_)
    assert not known
    assert second.report.rows[1].recipe != first.report.rows[1].recipe
    assert len(second.soups) == 1
    assert not second.soups[0].adopted


def change_a_module(request: SoupRequest, _client: "MlflowClient") -> None:
    file = Path(request.task.partition(":")[0] + ".py")
    file.write_text(file.read_text() + "# changed\n")


def change_what_no_argument_names(_request: SoupRequest, _client: "MlflowClient") -> None:
    Path("hidden.txt").write_text("another")


def change_the_data(_request: SoupRequest, _client: "MlflowClient") -> None:
    Path("n.txt").write_text("96")


def change_the_data_but_neither_size_nor_date(_request: SoupRequest, _client: "MlflowClient") -> None:
    before = Path("n.txt").stat()
    Path("n.txt").write_text("96")
    os.utime("n.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


def remove_the_version(_request: SoupRequest, client: "MlflowClient") -> None:
    client.delete_model_version("tiny", "1")


def remove_the_logged_model(_request: SoupRequest, client: "MlflowClient") -> None:
    source = client.get_model_version("tiny", "1").source
    assert source is not None
    client.delete_logged_model(source.rpartition("/")[2])


def add_a_run(request: SoupRequest, client: "MlflowClient") -> None:
    assert request.sweep is not None
    experiment = client.get_run(request.sweep).info.experiment_id
    plant_run(client, experiment, request.sweep, "late", weights("dense", seed=99))


def rename_a_run(request: SoupRequest, client: "MlflowClient") -> None:
    experiment = client.get_run(str(request.sweep)).info.experiment_id
    (run,) = client.search_runs([experiment], "params.seed = '0'")
    client.set_tag(run.info.run_id, "mlflow.runName", "another")


def change_what_the_model_reads(_request: SoupRequest, _client: "MlflowClient") -> None:
    Path("layers.txt").write_text("three")


def choose_another_device(_request: SoupRequest, _client: "MlflowClient") -> None:
    os.environ["STOCKPOT_DEVICE"] = "cpu"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change_a_module, marks=pytest.mark.slow),
        pytest.param(change_the_data, marks=pytest.mark.slow),
        pytest.param(change_what_no_argument_names, marks=pytest.mark.slow),
        pytest.param(change_what_the_model_reads, marks=pytest.mark.slow),
        pytest.param(change_the_data_but_neither_size_nor_date, marks=pytest.mark.slow),
        pytest.param(remove_the_version, marks=pytest.mark.slow),
        pytest.param(remove_the_logged_model, marks=pytest.mark.slow),
        add_a_run,
        pytest.param(rename_a_run, marks=pytest.mark.slow),
        pytest.param(choose_another_device, marks=pytest.mark.slow),
    ],
)
def test_whatever_changed_is_looked_at_again(
    request_: SoupRequest,
    mlflow_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[SoupRequest, "MlflowClient"], None],
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("STOCKPOT_DEVICE", raising=False)
    asked(request_)
    assert asked(request_)[1]
    change(request_, MlflowClient(mlflow_uri))
    told = Told()
    outcome, known = asked(request_, told)
    assert not known
    another_job = change in (add_a_run, rename_a_run)
    assert any("this request was answered before" in line for line in told.said) != another_job
    states = [soup.state for soup in outcome.soups]
    assert (SoupState.WITHDRAWN in states) == (change in (remove_the_version, remove_the_logged_model))


@pytest.mark.parametrize("field", ["again", pytest.param("verify_exact", marks=pytest.mark.slow)])
def test_a_request_that_wants_something_done_is_walked_although_it_was_answered(
    request_: SoupRequest, field: str
) -> None:
    request = replace(request_, **{field: True})  # type: ignore[arg-type]  # both are flags
    asked(request)
    assert not asked(request)[1]


def test_a_task_that_may_read_anything_is_never_answered_from_memory(tiny_sweep: SoupRequest) -> None:
    asked(tiny_sweep)
    told = Told()
    outcome, known = asked(tiny_sweep, told)
    assert not known
    assert outcome.evaluations == 0
    assert told.said[0] == (
        "this request was answered before, and is worked on again: "
        "the task names no file among its arguments, so that what it read is not known"
    )


@pytest.mark.slow
def test_the_command_answers_a_request_that_was_answered_without_torch(request_: SoupRequest) -> None:
    asked(request_)
    words = ["--sweep", str(request_.sweep), "--model", request_.model, "--task", request_.task]
    options = ["--task-arg", "data=n.txt", "--method", "uniform", "--shift", "shifted", "--no-flow", "--json"]
    command = [sys.executable, "-c", COMMAND, "soup", *words, *options]
    answered = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "this request is answered, and nothing that it is seen to depend on has changed" in answered.stderr
    assert answered.stderr.splitlines()[-1] == "light"
    outcome = from_document(SoupOutcome, json.loads(answered.stdout))
    assert [soup.state for soup in outcome.soups] == [SoupState.ADOPTED]


@pytest.mark.slow
def test_an_alias_that_a_soup_earned_and_never_had_is_given_by_the_next_request(
    request_: SoupRequest, mlflow_uri: str
) -> None:
    from mlflow import MlflowClient

    client, request = MlflowClient(mlflow_uri), replace(request_, methods=("greedy",), margin=-100.0)
    (first,) = asked(request)[0].soups
    assert first.aliases == ("challenger",)
    client.delete_registered_model_alias("tiny", "challenger")
    outcome, known = asked(request)
    assert (known, outcome.soups[0].aliases) == (True, ()), "a person took it away"
    client.delete_model_version_tag("tiny", "1", tags.ALIAS)  # as if another version had held it
    told = Told()
    outcome, known = asked(request, told)
    assert (known, outcome.soups[0].aliases) == (False, ("challenger",))
    assert f"nobody holds the alias challenger, which {first.uri} has earned" in told.said[0]
    assert asked(request)[1]


@pytest.mark.slow
def test_what_changed_while_it_was_read_is_no_evidence(request_: SoupRequest) -> None:
    place = Workplace()

    def stage(name: str, work: Callable[[], T], /) -> T:
        if name == "measure":
            Path("n.txt").write_text("96")
        return work()

    answer(request_, place, stage, Silent())
    assert not asked(request_)[1]


def held(request: SoupRequest) -> tuple[Job, Workplace]:
    """The request's job, on which another process works."""
    place = Workplace()
    job = Job.of(request, tuple(place.tracker.runs(request.selector)))
    place.store.take_lease(job.lease, owner="elsewhere/7/token", seconds=1000)
    return job, place


def test_the_second_waits_and_then_has_the_answer_of_the_first(
    tiny_sweep: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stockpot.evidence.reads.STARTED", time.time() + 10
    )  # other tests import modules of theirs
    job, place = held(tiny_sweep)
    told, outcomes = Told(), list[SoupOutcome]()
    waiting = Thread(target=lambda: outcomes.append(answer(tiny_sweep, Workplace(), in_turn, told)))
    waiting.start()
    assert told.waits.wait(30)
    assert "process 7 on elsewhere, since 20" in told.said[0]
    first = SoupOutcome(answer(replace(tiny_sweep, model="other"), place, in_turn, Silent()).report, (), 12)
    evidence = place.evidence()
    assert evidence.doubt, "what was read while one waited is good enough"
    place.store.finish_job(job, first, evidence, owner="elsewhere/7/token")
    waiting.join(30)
    assert outcomes == [replace(first, evaluations=0)]


def test_a_waiting_process_goes_on_where_the_other_gave_up(tiny_sweep: SoupRequest) -> None:
    job, place = held(tiny_sweep)
    told, outcomes = Told(), list[SoupOutcome]()
    waiting = Thread(target=lambda: outcomes.append(answer(tiny_sweep, Workplace(), in_turn, told)))
    waiting.start()
    assert told.waits.wait(30)
    place.store.release_lease(job.lease, owner="elsewhere/7/token")
    waiting.join(60)
    assert outcomes[0].evaluations > 0


def test_a_request_that_may_not_wait_leaves_and_tells_who_works_on_it(tiny_sweep: SoupRequest) -> None:
    held(tiny_sweep)
    with pytest.raises(Busy, match="process 7 on elsewhere, since 20") as error:
        asked(replace(tiny_sweep, wait=False))
    assert error.value.exit_code == 9
    assert "--no-wait" in error.value.mend


def test_a_walk_that_fails_lets_the_next_one_try(tiny_sweep: SoupRequest) -> None:
    hopeless = replace(tiny_sweep, weights="*.nothing")
    for _ in range(2):
        with pytest.raises(NothingToSoup):
            asked(replace(hopeless, wait=False))


@pytest.mark.slow
def test_where_each_candidate_was_found_leads_from_a_run_to_its_version(tiny_sweep: SoupRequest) -> None:
    outcome, _ = asked(replace(tiny_sweep, methods=("uniform",)))
    (soup,) = outcome.soups
    store = Workplace().store
    for candidate in outcome.report.candidates:
        (row,) = store.registrations_with(candidate.run_id)
        assert f"models:/{row.model}/{row.version}" == soup.uri
        (place,) = store.places(candidate.checkpoint)
        assert (place.run_id, place.path) == (candidate.run_id, "model.safetensors")
