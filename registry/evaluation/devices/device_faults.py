"""What torch raises when the device fails, and not the task: too little memory, or no device any more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from traceback import clear_frames

import torch

from registry.errors import DeviceLost, OutOfDeviceMemory

_NO_MEMORY = "_STATUS_ALLOC_FAILED", "_DEVICE_ALLOCATION_FAILED"
"""As cuBLAS, and cuDNN 8 and 9, call it."""
Probe = Callable[[], object]
"""Waits for the device, and raises AcceleratorError where it does not answer."""


@contextmanager
def device_blamed(device: torch.device, where: str, probe: Probe | None = None) -> Iterator[None]:
    """Everything that runs on a device runs in here: what fails because of the device is named so.

    Raises OutOfDeviceMemory where its memory does not suffice, with the tensors freed that the frames
    which failed held; DeviceLost where it cannot be used any more. `probe`: `torch.cuda.synchronize` unless
    another is given. All other errors pass.
    """
    try:
        yield
    except (OutOfDeviceMemory, DeviceLost) as error:
        clear_frames(error.__traceback__)
        raise
    except Exception as error:  # among them, what a task raised because the device failed
        if is_out_of_memory(error):
            clear_frames(error.__traceback__)  # the error outlives the tensors that did not fit
            raise OutOfDeviceMemory(
                f"{device} ran out of memory: {_first_line(error)}, {where}",
                mend="make the task's batch_size smaller, or end what else uses the device",
            ) from error
        if is_lost(error, probe or partial(_wait_for, device)):
            raise DeviceLost(f"{device} is gone: {_first_line(_causes(error)[-1])}, {where}") from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, or a library below it, says that the device has too little memory."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    # The driver's own refusal, of pinned memory for example, and that of cuBLAS and cuDNN have no class.
    driver = isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)
    return driver or (isinstance(error, RuntimeError) and any(status in str(error) for status in _NO_MEMORY))


def is_lost(error: BaseException, probe: Probe = lambda: None) -> bool:
    """Whether this error, or what it was raised from, means that the device cannot be used any more.

    A failed assertion on the device does not: it is the program's fault, and would end the next device as
    well. cuBLAS and cuDNN fail with a plain RuntimeError, whatever the reason: then the probe tells.
    """
    causes = _causes(error)
    told = [cause for cause in causes if isinstance(cause, DeviceLost | torch.AcceleratorError)]
    if told or not any(isinstance(cause, RuntimeError) for cause in causes):
        return any(_means_lost(cause) for cause in told)
    try:
        probe()
    except torch.AcceleratorError as answer:
        return _means_lost(answer)
    return False


def _means_lost(error: BaseException) -> bool:
    return "device-side assert" not in str(error) and not is_out_of_memory(error)


def _causes(error: BaseException) -> list[BaseException]:
    """The error, and what it was raised from, the first cause last."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return causes


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
