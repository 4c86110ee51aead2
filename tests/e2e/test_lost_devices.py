"""A device that is lost in the middle of a sweep loses nothing that was scored."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stockpot.entities import SoupOutcome, SoupRequest
from stockpot.errors import DeviceLost
from stockpot.ports import Watcher
from stockpot.testing.listener import Listener
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

pytestmark = pytest.mark.slow
TASK = """
import os
from pathlib import Path
from threading import Event

import torch
from stockpot.testing.tiny import TinyTask

lost = Event()
tasks = []

class Mortal(TinyTask):
    # On the first device nothing works after so many batches, ten to a pass, while `alive` is missing.

    def __init__(self, **args):
        super().__init__(**args)
        self.left = {batches}
        self.first = not tasks
        tasks.append(self)

    def require_device(self):
        if Path("alive").exists():
            return
        if self.first and self.left < 0:
            lost.set()
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        if not self.first:
            lost.wait(2)  # the first one may have nothing to do yet

    def model(self):
        if self.first:
            self.require_device()
        return super().model()

    def collate(self, examples):
        if self.first:
            self.require_device()
        return super().collate(examples)

    def predict(self, model, batch):
        self.left -= 1
        self.require_device()
        return super().predict(model, batch)

    def score(self, outputs, batch):
        self.require_device()
        return super().score(outputs, batch)
"""


@pytest.fixture
def mortal(
    tiny_sweep: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, int], SoupRequest]:
    """The tiny sweep, with a task whose first device is lost while the candidates are ranked."""
    monkeypatch.chdir(tmp_path)

    def made(name: str, batches: int) -> SoupRequest:
        (tmp_path / f"{name}.py").write_text(TASK.format(batches=batches))
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


def test_the_walk_ends_on_the_devices_that_are_left(
    mortal: Callable[[str, int], SoupRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_DEVICE", "cpu,cpu")
    request = mortal("first_of_two", 5)
    told = Listener()
    found = walked(request, told)
    assert sum("a device is gone" in line for line in told.said) == 1
    monkeypatch.delenv("STOCKPOT_DEVICE")
    require_that_of_one_device(found, request)


def test_after_the_only_device_is_lost_the_same_command_goes_on_from_there(
    mortal: Callable[[str, int], SoupRequest], tmp_path: Path
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
