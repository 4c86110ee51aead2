"""Batches that do not fit the device are halved, and that is another protocol."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from stockpot.entities import SoupRequest
from stockpot.errors import NoRoomForWeights, OutOfDeviceMemory
from stockpot.evaluation.passes import forward
from stockpot.evaluation.passes.forward import gaps
from stockpot.evaluation.weights import group_sums
from stockpot.testing.listener import Listener
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import answer
from stockpot.workflow.walk import in_turn, walk

T = TypeVar("T")
TASK = """
import torch
from stockpot.testing.tiny import TinyTask

class SmallDevice(TinyTask):
    batch_size = 8

    def predict(self, model, batch):
        if len(batch[0]) > {most}:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().predict(model, batch)
"""


@pytest.fixture
def small_device(
    tiny_sweep: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], SoupRequest]:
    """The tiny sweep with a task whose device holds so many examples."""
    monkeypatch.chdir(tmp_path)

    def made(most: int) -> SoupRequest:
        (tmp_path / f"device_of_{most}.py").write_text(TASK.format(most=most))
        return replace(tiny_sweep, task=f"device_of_{most}:SmallDevice")

    return made


@pytest.mark.slow
def test_the_batch_is_halved_until_it_fits_and_the_sweep_is_the_same(
    tiny_sweep: SoupRequest, small_device: Callable[[int], SoupRequest]
) -> None:
    told = Listener()
    request = small_device(3)
    outcome = walk(request, Workplace(), in_turn, told)
    assert {protocol.conditions.batch_size for protocol in outcome.report.protocols} == {2}
    said = [line for line in told.said if "another protocol" in line]
    assert len(said) == 2
    assert "batches of 8 examples" in said[0]
    assert "batches of 4" in said[0]
    assert "batches of 2" in said[1]
    plain = walk(replace(tiny_sweep, model="plain"), Workplace(), in_turn, Silent())
    assert [s.recipe for s in outcome.report.selections] == [s.recipe for s in plain.report.selections]
    assert [row.scores for row in outcome.report.rows] == [row.scores for row in plain.report.rows]
    again = walk(request, Workplace(), in_turn, Silent())
    assert again.evaluations == 0
    assert again.report == outcome.report
    assert all(soup.adopted for soup in again.soups)


@pytest.mark.slow
def test_a_job_that_halved_its_batches_begins_with_those_when_it_is_worked_on_again(
    small_device: Callable[[int], SoupRequest],
) -> None:
    def stops(name: str, work: Callable[[], T], /) -> T:
        if name == "measure":
            raise RuntimeError("killed")
        return work()

    request, told = small_device(3), Listener()
    with pytest.raises(RuntimeError, match="killed"):
        answer(request, Workplace(), stops, Silent())
    outcome = answer(request, Workplace(), in_turn, told)
    assert not [line for line in told.said if "another protocol" in line]
    assert {protocol.conditions.batch_size for protocol in outcome.report.protocols} == {2}


@pytest.mark.slow
def test_what_does_not_fit_outside_the_tasks_methods_halves_the_batch_as_well(
    tiny_sweep: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_small_device(outputs: Tensor) -> Tensor:
        if len(outputs) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return gaps(outputs)

    monkeypatch.setattr(forward, "gaps", on_small_device)
    outcome = walk(tiny_sweep, Workplace(), in_turn, Silent())
    assert {protocol.conditions.batch_size for protocol in outcome.report.protocols} == {2}
    assert len(outcome.soups) > 0


def test_a_sum_of_weights_that_does_not_fit_halves_nothing(
    tiny_sweep: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(_content: Tensor, **_: float) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    told = Listener()
    monkeypatch.setattr(group_sums, "RunningSum", too_large)
    with pytest.raises(NoRoomForWeights, match="into the model") as caught:
        walk(tiny_sweep, Workplace(), in_turn, told)
    assert "more memory" in caught.value.mend
    assert not [line for line in told.said if "another protocol" in line]


def test_where_not_even_one_example_fits_that_is_said(small_device: Callable[[int], SoupRequest]) -> None:
    with pytest.raises(OutOfDeviceMemory, match="Tried to allocate") as caught:
        walk(small_device(0), Workplace(), in_turn, Silent())
    assert "batch_size" in caught.value.mend
