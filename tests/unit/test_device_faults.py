"""What is the device's fault, and what is the task's."""

import weakref
from collections.abc import Callable

import pytest
import torch

from registry.errors import BadTask, DeviceLost, OutOfDeviceMemory
from registry.evaluation.devices.device_faults import device_blamed, is_lost

CPU = torch.device("cpu")
GONE = torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be ...")
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


def test_a_device_is_lost_when_its_driver_says_so_whoever_passes_it_on() -> None:
    def raised(cause: Exception) -> BadTask:
        blamed = BadTask("predict() fails")
        blamed.__cause__ = cause  # as `raise ... from` does
        return blamed

    gone = torch.AcceleratorError("CUDA error: unspecified launch failure")
    assert is_lost(gone)
    assert is_lost(raised(gone)), "the task only stood beside it"
    assert not is_lost(raised(torch.AcceleratorError("CUDA error: device-side assert triggered")))
    assert not is_lost(raised(torch.OutOfMemoryError("CUDA out of memory")))
    assert not is_lost(raised(ValueError("mine")))
    assert not is_lost(RuntimeError("mine"))
    assert not is_lost(raised(torch.AcceleratorError("CUDA error: out of memory")))


@pytest.mark.parametrize("message", LIBRARIES)
def test_a_library_that_fails_on_a_device_that_does_not_answer_means_it_is_lost(message: str) -> None:
    blamed = BadTask("predict() fails")
    blamed.__cause__ = RuntimeError(message)
    for error in (blamed, blamed.__cause__):
        assert is_lost(error, failing(GONE))
        assert not is_lost(error, answering), "the device is well"
        assert not is_lost(error, failing(torch.AcceleratorError("CUDA error: device-side assert triggered")))
        assert not is_lost(error), "nobody asked the device"


@pytest.mark.parametrize(
    "error", [ValueError("mine"), torch.AcceleratorError("CUDA error: device-side assert triggered")]
)
def test_a_device_is_not_asked_about_what_tells_enough(error: Exception) -> None:
    assert not is_lost(error, failing(GONE))


@pytest.mark.parametrize("error", [GONE, RuntimeError(LIBRARIES[0])])
def test_a_lost_device_is_told_with_its_place_and_how_to_go_on(error: Exception) -> None:
    with pytest.raises(DeviceLost, match=r"cpu is gone: CUDA error: [^\n]*, split 'test'") as raised:  # noqa: SIM117 - who raises is inside
        with device_blamed(CPU, "split 'test'", failing(GONE)):
            raise BadTask("predict() fails") from error
    assert "is committed: the same command again" in raised.value.mend
    assert is_lost(raised.value), "whoever spreads the work hears of it"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
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
    assert not is_lost(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes"), BadTask("score() fails"), KeyboardInterrupt()])
def test_what_is_not_the_devices_fault_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, device_blamed(CPU, "split 'test'", answering):
        raise error
    assert raised.value is error
