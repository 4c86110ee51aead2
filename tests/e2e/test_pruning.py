"""After pruning everything that may go, all that was registered is as it was."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from stockpot.cli import main
from stockpot.entities import SoupRequest, SoupState
from stockpot.soup.whole_file import writing
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.gathering.workrooms import PART, SCRATCH, scratch, workroom
from stockpot.workflow.jobs import answer
from stockpot.workflow.pruning import prune
from stockpot.workflow.walk import in_turn, walk

Run = Callable[..., str]
T = TypeVar("T")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command that succeeds; what it printed."""

    def run_it(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        assert not ended.value.code, captured.err
        return captured.out

    return run_it


def _kinds(told: str) -> dict[str, int]:
    return {one["kind"]: one["number"] for one in json.loads(told)["found"]}


@pytest.mark.slow
def test_what_is_registered_is_shown_rebuilt_and_adopted_as_before(
    tiny_sweep: SoupRequest, home: Path, tmp_path: Path, run: Run
) -> None:
    request = replace(tiny_sweep, methods=("greedy",), shifts=(), margin=-100.0)
    with Workplace() as place:
        (soup,) = answer(request, place, in_turn, Silent()).soups
        other = replace(request, task_args={**request.task_args, "n": "40"}, model="unfinished")
        with pytest.raises(_Stopped):
            walk(other, place, _until_measured, Silent())
    shown = run("show", soup.uri, "--json")
    for folder in (home / "cache", home / "cache" / "outputs"):
        (folder / ".writing-of-a-process-that-is-gone").write_bytes(b"half")
    (home / "cache" / f"{PART}of-a-dead-process").mkdir()
    (home / "cache" / f"{PART}of-a-dead-process" / "model").write_bytes(b"half")
    (home / "models" / f"{PART}of-another").mkdir(parents=True)
    before = sorted([*(home / "cache").rglob("*"), *(home / "models").rglob("*")])
    told = _kinds(run("prune", "--older-than", "0", "--json"))
    assert told["leftovers"] == 4
    assert told["evaluations"] > 0, "those of the unfinished request"
    assert min(told["weights"], told["gaps"], told["outputs"]) > 0
    after = sorted([*(home / "cache").rglob("*"), *(home / "models").rglob("*")])
    assert after == before, "a dry run removes nothing"
    assert _kinds(run("prune", "--older-than", "0", "--yes", "--json")) == told
    assert [path for path in (home / "cache").rglob("*") if path.is_file()] == []
    assert [*(home / "models").iterdir()] == []
    assert run("show", soup.uri, "--json") == shown
    run("rebuild", soup.uri, "--out", str(tmp_path / "again.safetensors"))
    with Workplace() as place:
        again = walk(request, place, in_turn, Silent())
        assert [found.state for found in again.soups] == [SoupState.ADOPTED]
        assert [found.uri for found in again.soups] == [soup.uri]
        assert again.evaluations == 0
        assert answer(request, place, in_turn, Silent()).soups[0].uri == soup.uri


@pytest.mark.slow
def test_a_request_under_which_all_is_pruned_before_each_stage_repeats_nothing(
    tiny_sweep: SoupRequest, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, said = replace(tiny_sweep, shifts=(), margin=-100.0), list[str]()
    with Workplace() as place:
        cache = place.settings.cache_folder

        def pruning(_name: str, work: Callable[[], T], /) -> T:
            prune(place.store, cache, str(cache / "outputs"), [], 0.0, really=True, say=said.append)
            return work()

        pruned = answer(request, place, pruning, Silent())
    monkeypatch.setenv("STOCKPOT_HOME", str(tmp_path / "another"))
    with Workplace() as place:
        plain = answer(request, place, in_turn, Silent())
    assert (pruned.evaluations, pruned.passes) == (plain.evaluations, plain.passes)
    assert pruned.report.rows == plain.report.rows
    assert {"looks a sweep up" in message for message in said} == {True}, "before the splits were open"


def test_what_a_living_process_works_with_stays(home: Path) -> None:
    with Workplace() as place:
        cache = place.cache.folder
        with workroom(cache, PART) as room, writing(cache) as file:
            found = prune(place.store, cache, str(cache / "outputs"), [], 0.0, really=True, say=_fail)
            assert room.is_dir()
            assert file.path.exists()
        assert {one.kind: one.number for one in found}["leftovers"] == 0


def test_a_temporary_folder_of_ours_goes_once_its_process_is_gone_and_others_stay(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, somebodys = tmp_path / f"{SCRATCH}of-a-dead-process", tmp_path / "tmp-of-somebody"
    for folder in (dead, somebodys):
        folder.mkdir()
    with Workplace() as place, scratch() as living:
        cache = place.cache.folder
        found = prune(place.store, cache, str(cache / "outputs"), [], 0.0, really=True, say=_fail)
        assert living.is_dir()
    assert (dead.exists(), somebodys.exists(), living.exists()) == (False, True, False)
    assert {one.kind: one.number for one in found}["leftovers"] == 1


def test_weights_that_were_used_since_the_oldest_job_at_work_began_stay(
    tiny_sweep: SoupRequest, home: Path
) -> None:
    from stockpot.entities import Job, Opening
    from stockpot.testing.store_values import VALIDATION

    with Workplace() as place:
        cache = place.cache.folder
        used, old = (cache / f"{name * 64}.safetensors" for name in "ab")
        for file in (used, old):
            file.write_bytes(b"weights")
        os.utime(old, (1, 1))
        job = Job.of(tiny_sweep, [])
        place.store.begin_job(job)
        place.store.take_lease(job.lease, owner="me", seconds=1000)
        place.store.open_job(job, Opening("1.0", (VALIDATION,)), owner="me")
        prune(place.store, cache, str(cache / "outputs"), [], 0.0, really=True, say=_fail)
        assert (used.exists(), old.exists()) == (True, False)


class _Stopped(Exception):
    pass


def _until_measured(name: str, work: Callable[[], T], /) -> T:
    if name == "measure":
        raise _Stopped
    return work()


def _fail(message: str) -> None:
    pytest.fail(message)
