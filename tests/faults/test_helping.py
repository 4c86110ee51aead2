"""Processes that take part in a request: it is answered as by one, whatever becomes of them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from stockpot import SoupOutcome, SoupRequest, soup
from stockpot.documents import to_document
from stockpot.testing.listener import Listener
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.workflow import leases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
TASK = """
import sys
import time
from pathlib import Path
from stockpot.testing.tiny import TinyTask

HELPS = Path(sys.argv[0]).name == "helping_process.py" or sys.argv[1:2] == ["help"]

def wait_for(name):
    end = time.monotonic() + 90
    while not Path(name).exists():
        assert time.monotonic() < end, name + " never came"
        time.sleep(0.02)

class Meeting(TinyTask):
    '''Who helps tells that it is there; who leads goes no further than its first batch before that.'''

    version = "1"

    def predict(self, model, batch):
        if HELPS:
            Path("helps").touch()
            if Path("stand still").exists():
                wait_for("never")
        else:
            wait_for("helps")
        return super().predict(model, batch)
"""


SMALL_DEVICE = """
        if len(batch[0]) > 3:
            raise __import__("torch").OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """Of the task: a name of its own for each test, since this process imports it."""
    return tmp_path / f"{tmp_path.name}_meeting.py"


@pytest.fixture
def meeting(
    tiny_sweep: SoupRequest, tmp_path: Path, module: Path, monkeypatch: pytest.MonkeyPatch
) -> SoupRequest:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    module.write_text(TASK)
    return replace(tiny_sweep, task=f"{module.stem}:Meeting")


Process = subprocess.Popen[str]


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def begun(processes: list[Process], *command: str, **variables: str) -> Process:
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    processes.append(process)
    return process


def helping(processes: list[Process], clock: float = 0.0) -> Process:
    return begun(processes, str(HERE / "helping_process.py"), str(clock))


def require_answer_of_one(found: SoupOutcome, request: SoupRequest) -> None:
    """The same as one process finds, for the same task without the waiting."""
    alone = soup(replace(request, task="stockpot.testing.tiny:TinyTask", model="alone"), flow=False)
    assert [s.recipe for s in found.report.selections] == [s.recipe for s in alone.report.selections]
    assert [row.scores for row in found.report.table] == [row.scores for row in alone.report.table]
    assert [row.versus_best for row in found.report.table] == [row.versus_best for row in alone.report.table]
    assert [point.report for point in found.report.candidates] == [
        point.report for point in alone.report.candidates
    ]
    assert [s.checkpoint for s in found.soups] == [s.checkpoint for s in alone.soups] != []
    assert found.evaluations < alone.evaluations


@pytest.mark.parametrize("clock", [0.0, 3600.0], ids=["right", "an hour fast"])
def test_two_processes_share_a_request_and_its_answer_is_that_of_one(
    meeting: SoupRequest, processes: list[Process], clock: float
) -> None:
    helper = helping(processes, clock)
    found = soup(meeting, flow=False, watch=Silent())
    said, _ = helper.communicate(timeout=60)
    assert helper.returncode == 0, said
    assert int(said.splitlines()[-1]) > 0, said
    require_answer_of_one(found, meeting)


def test_two_processes_share_a_request_with_a_base_and_its_model_stock(
    meeting: SoupRequest, processes: list[Process], tmp_path: Path
) -> None:
    save_file(weights("dense", seed=99, spread=0.3), tmp_path / "start.safetensors")
    request = replace(meeting, base=str(tmp_path / "start.safetensors"), methods=("greedy", "model-stock"))
    helper = helping(processes)
    found = soup(request, flow=False, watch=Silent())
    said, _ = helper.communicate(timeout=60)
    assert helper.returncode == 0, said
    require_answer_of_one(found, request)
    assert found.report.base is not None
    assert found.report.curve is not None


def test_each_further_device_has_a_process_of_its_own_which_ends_with_the_request(
    meeting: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_DEVICE", "cpu,cpu")
    told = Listener()
    found = soup(meeting, flow=False, watch=told)
    assert any(line.startswith("helper on cpu: ") and "helping with" in line for line in told.said)
    (at_its_end,) = [line for line in told.said if f" helped {meeting.model} with " in line]
    assert at_its_end.startswith("helper on cpu: ")
    assert " with 0 evaluations" not in at_its_end
    monkeypatch.delenv("STOCKPOT_DEVICE")
    require_answer_of_one(found, meeting)


def test_a_helper_that_is_killed_in_the_middle_of_an_evaluation_loses_that_one(
    meeting: SoupRequest, processes: list[Process], tmp_path: Path
) -> None:
    (tmp_path / "stand still").touch()
    helper = helping(processes)
    killing = begun(
        processes,
        "-c",
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "while not Path('helps').exists(): time.sleep(0.02)\n"
        f"os.kill({helper.pid}, {int(signal.SIGKILL)})\n",
    )
    found = soup(meeting, flow=False, watch=Silent())
    assert killing.wait(60) == 0
    assert helper.wait(60) == -signal.SIGKILL
    alone = soup(replace(meeting, task="stockpot.testing.tiny:TinyTask", model="alone"), flow=False)
    assert [s.recipe for s in found.report.selections] == [s.recipe for s in alone.report.selections]
    assert found.evaluations == alone.evaluations, "what the helper had begun was begun again"


def test_two_requests_at_once_about_one_sweep_evaluate_nothing_twice(
    tiny_sweep: SoupRequest, processes: list[Process]
) -> None:
    requests = [replace(tiny_sweep, model=model, methods=("uniform",)) for model in ("one", "other", "alone")]
    *both, alone = [json.dumps(to_document(request)) for request in requests]
    leaders = [begun(processes, str(HERE / "leading_process.py"), document) for document in both]
    shares = [leader.communicate(timeout=240)[0] for leader in leaders]
    assert [leader.returncode for leader in leaders] == [0, 0], shares
    again = begun(processes, str(HERE / "leading_process.py"), alone)
    assert again.communicate(timeout=240)[0].splitlines() == ["leads", "0"]
    measured = (5 + 1) * 3
    assert sum(int(share.split()[-1]) for share in shares) == measured


def test_a_helper_of_another_kind_says_what_differs_and_takes_no_part(
    meeting: SoupRequest, processes: list[Process], tmp_path: Path
) -> None:
    document = json.dumps(to_document(meeting))
    leader = begun(processes, str(HERE / "leading_process.py"), document, OMP_NUM_THREADS="1")
    assert leader.stdout is not None
    assert leader.stdout.readline().strip() == "leads"
    other = begun(processes, "-m", "stockpot", "help", "--wait", "60", OMP_NUM_THREADS="2")
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 3, said
    assert "device: " in said
    assert " 2 threads here, " in said
    assert " 1 thread there" in said
    assert not (tmp_path / "helps").exists()
    (tmp_path / "helps").touch()
    leader.communicate(timeout=120)
    assert leader.returncode == 0


def test_a_helper_of_a_request_that_nobody_leads_any_more_ends_and_says_so(
    meeting: SoupRequest, processes: list[Process], tmp_path: Path, module: Path
) -> None:
    (tmp_path / "stand still").touch()
    module.write_text(TASK.replace('wait_for("never")', 'wait_for("go on")'))
    leader = begun(processes, str(HERE / "leading_process.py"), json.dumps(to_document(meeting)))
    helper = helping(processes)
    while not (tmp_path / "helps").exists():
        assert leader.poll() is None
        assert helper.poll() is None
    leader.kill()
    leader.communicate()
    (tmp_path / "go on").touch()
    said, _ = helper.communicate(timeout=120)
    assert helper.returncode == 0, said


def test_where_batches_are_halved_the_helper_follows(
    meeting: SoupRequest, processes: list[Process], module: Path
) -> None:
    module.write_text(
        TASK.replace("        if HELPS:", SMALL_DEVICE + "        if HELPS:") + "    batch_size = 8\n"
    )
    helper = helping(processes)
    found = soup(meeting, flow=False, watch=Silent())
    said, _ = helper.communicate(timeout=120)
    assert helper.returncode == 0, said
    assert int(said.splitlines()[-1]) > 0, said
    assert {protocol.conditions.batch_size for protocol in found.report.protocols} == {2}
    require_answer_of_one(found, meeting)


def test_a_helper_with_less_memory_takes_no_part_and_makes_no_other_protocol(
    meeting: SoupRequest, processes: list[Process], module: Path
) -> None:
    small = SMALL_DEVICE.replace("if len", "if HELPS and len")
    told = small.replace("raise", "Path('helps').touch()\n            raise")
    module.write_text(TASK.replace("        if HELPS:", told + "        if HELPS:"))
    helper = helping(processes)
    found = soup(meeting, flow=False, watch=Silent())
    said, _ = helper.communicate(timeout=120)
    assert helper.returncode == 0, said
    assert "no more help with batches of 8 examples: " in said
    assert {protocol.conditions.batch_size for protocol in found.report.protocols} == {8}


def test_nobody_needs_help(home: Path, mlflow_uri: str, processes: list[Process]) -> None:
    idle = begun(processes, "-m", "stockpot", "help", "--json")
    said, _ = idle.communicate(timeout=60)
    assert idle.returncode == 0, said
    assert json.loads(said) == {"evaluations": 0}
