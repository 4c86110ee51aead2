"""A device that is lost in the middle of a sweep loses nothing that was scored."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stockpot import soup
from stockpot.entities import SoupOutcome, SoupRequest
from stockpot.errors import DeviceLost
from stockpot.ports import Watcher
from stockpot.testing.listener import Listener
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

pytestmark = pytest.mark.slow
TASK = """
import sys
import time
from pathlib import Path

import torch
from stockpot.testing.tiny import TinyTask

HELPS = sys.argv[1:2] == ["help"]

class Mortal(TinyTask):
    # On the device that dies nothing works after so many batches, ten to a pass, while `alive` is missing.

    def __init__(self, **args):
        super().__init__(**args)
        self.left = {batches}

    def require_device(self):
        if {dies} and self.left < 0 and not Path("alive").exists():
            Path("lost").touch()
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    def model(self):
        self.require_device()
        return super().model()

    def collate(self, examples):
        self.require_device()
        return super().collate(examples)

    def predict(self, model, batch):
        self.left -= 1
        self.require_device()
        end = time.monotonic() + 120
        while {waits} and not Path("lost").exists() and time.monotonic() < end:
            time.sleep(0.02)  # the other one may have nothing to do yet
        return super().predict(model, batch)

    def score(self, outputs, batch):
        self.require_device()
        return super().score(outputs, batch)
"""


@pytest.fixture
def mortal(
    tiny_sweep: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SoupRequest]:
    """The tiny sweep, with a task whose device is lost while the candidates are ranked."""
    monkeypatch.chdir(tmp_path)

    def made(name: str, batches: int, *, dies: str = "True", waits: str = "False") -> SoupRequest:
        (tmp_path / f"{name}.py").write_text(TASK.format(batches=batches, dies=dies, waits=waits))
        return replace(tiny_sweep, task=f"{name}:Mortal")

    return made


def walked(request: SoupRequest, watch: Watcher | None = None) -> SoupOutcome:
    watch = watch or Silent()
    with Workplace(watch=watch) as place:
        return walk(request, place, in_turn, watch)


def require_that_of_one_device(found: SoupOutcome, request: SoupRequest) -> None:
    plain = walked(replace(request, task="stockpot.testing.tiny:TinyTask", model="plain"))
    assert [s.recipe for s in found.report.selections] == [s.recipe for s in plain.report.selections]
    assert [row.scores for row in found.report.table] == [row.scores for row in plain.report.table]
    assert len(found.report.ensembles) == len(plain.report.ensembles) > 0
    assert len(found.soups) == len(plain.soups) > 0


def test_what_a_lost_device_was_evaluating_is_taken_over_by_the_others(
    mortal: Callable[..., SoupRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_DEVICE", "cpu,cpu")
    request = mortal("second_of_two", 5, dies="HELPS", waits="not HELPS")
    told = Listener()
    found = soup(request, flow=False, watch=told)
    assert any("helper on cpu: " in line and "cpu is gone: CUDA error" in line for line in told.said)
    monkeypatch.delenv("STOCKPOT_DEVICE")
    require_that_of_one_device(found, request)


def test_after_the_only_device_is_lost_the_same_command_goes_on_from_there(
    mortal: Callable[..., SoupRequest], tmp_path: Path
) -> None:
    request = mortal("only_one", 20 + 5)  # a few batches prove the hot swap
    with pytest.raises(DeviceLost, match="cpu is gone: CUDA error: unspecified launch failure") as raised:
        walked(request)
    assert "the same command again goes on from there" in raised.value.mend
    (tmp_path / "alive").touch()
    found = walked(request)
    whole = walked(replace(request, task=mortal("whole", 20 + 5).task, model="whole"))
    assert found.evaluations == whole.evaluations - 2, "two candidates had been scored"
    require_that_of_one_device(found, request)
