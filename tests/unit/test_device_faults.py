"""What is the device's fault, and what is the task's."""

import weakref
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from stockpot.errors import BadTask, DeviceLost, OutOfDeviceMemory
from stockpot.evaluation.devices.device_faults import device_blamed, no_way_around

CPU = torch.device("cpu")
GONE = torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be ...")
ASSERTION = torch.AcceleratorError("CUDA error: device-side assert triggered")
LIBRARIES = [
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
]


def failing(error: Exception) -> Callable[[], None]:
    def probe() -> None:
        raise error

    return probe


def answering() -> None:
    """As torch.cuda.synchronize on a device that works."""


def blamed(cause: Exception) -> BadTask:
    error = BadTask("predict() fails")
    error.__cause__ = cause  # as `raise ... from` does
    return error


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: invalid configuration argument"),
        torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device"),
        *map(RuntimeError, LIBRARIES),
    ],
)
def test_a_call_that_fails_on_a_device_that_answers_is_the_tasks_fault(error: Exception) -> None:
    for told in (error, blamed(error)):
        with pytest.raises(type(told)) as raised, device_blamed(CPU, "split 'test'", answering):
            raise told
        assert raised.value is told


def test_a_device_is_not_asked_about_what_has_nothing_to_do_with_it() -> None:
    with pytest.raises(ValueError, match="mine"), device_blamed(CPU, "split 'test'", failing(GONE)):
        raise ValueError("mine")


def test_where_a_device_cannot_be_asked_it_is_lost_when_its_driver_says_so() -> None:
    with pytest.raises(DeviceLost), device_blamed(CPU, "split 'test'"):
        raise blamed(GONE)
    with pytest.raises(RuntimeError, match="CUBLAS"), device_blamed(CPU, "split 'test'"):
        raise RuntimeError(LIBRARIES[0])


@pytest.mark.parametrize("error", [ASSERTION, RuntimeError(LIBRARIES[0])])
def test_an_assertion_that_failed_on_the_device_is_the_programs_and_would_end_the_next_device(
    error: Exception,
) -> None:
    message = r"an assertion failed on cpu: predict\(\) fails, split 'test'"
    with (
        pytest.raises(BadTask, match=message) as raised,
        device_blamed(CPU, "split 'test'", failing(ASSERTION)),
    ):
        raise blamed(error)
    assert "STOCKPOT_DEVICE=cpu" in raised.value.mend


@pytest.mark.parametrize("refused", [0, 1])
def test_work_that_went_on_after_it_was_refused_memory_does_not_count(refused: int) -> None:
    counts = iter([3, 3 + refused])
    expected = (
        pytest.raises(OutOfDeviceMemory, match=r"other kernels .*split 'test'") if refused else nullcontext()
    )
    with expected, no_way_around(CPU, "split 'test'", lambda: next(counts)):
        pass


@pytest.mark.parametrize("error", [GONE, RuntimeError(LIBRARIES[0])])
def test_a_lost_device_is_told_with_its_place_and_how_to_go_on(error: Exception) -> None:
    with pytest.raises(DeviceLost, match=r"cpu is gone: CUDA error: [^\n]*, split 'test'") as raised:  # noqa: SIM117 - who raises is inside
        with device_blamed(CPU, "split 'test'", failing(GONE)):
            raise BadTask("predict() fails") from error
    assert "is committed: the same command again" in raised.value.mend


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_too_little_memory_is_told_whoever_lacks_it_and_what_was_held_is_freed(error: Exception) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise error

    with pytest.raises(OutOfDeviceMemory, match=r"cpu ran out of memory: .*, split 'test'") as raised:  # noqa: SIM117 - who raises is inside
        with device_blamed(CPU, "split 'test'", failing(GONE)):
            work()
    assert "batch_size" in raised.value.mend
    assert [tensor() for tensor in held] == [None]


def test_an_error_without_a_message_is_told_by_its_name() -> None:
    with pytest.raises(OutOfDeviceMemory, match="ran out of memory: OutOfMemoryError, split 'test'"):  # noqa: SIM117 - who raises is inside
        with device_blamed(CPU, "split 'test'"):
            raise torch.OutOfMemoryError


@pytest.mark.parametrize("error", [OutOfDeviceMemory("predict() has no room"), DeviceLost("cpu is gone")])
def test_what_is_told_already_passes_and_what_was_held_is_freed(error: BadTask | DeviceLost) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise error

    with pytest.raises(type(error)) as raised, device_blamed(CPU, "split 'test'", failing(GONE)):
        work()
    assert raised.value is error
    assert [tensor() for tensor in held] == [None]


@pytest.mark.parametrize("error", [RuntimeError("shapes"), BadTask("score() fails"), KeyboardInterrupt()])
def test_what_is_not_the_devices_fault_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, device_blamed(CPU, "split 'test'", answering):
        raise error
    assert raised.value is error
