"""What torch raises when the device fails, and not the task: too little memory, or no device any more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from traceback import clear_frames

import torch

from stockpot.errors import BadTask, DeviceLost, OutOfDeviceMemory

_NO_MEMORY = (
    "_STATUS_ALLOC_FAILED",
    "_DEVICE_ALLOCATION_FAILED",
    "unable to find an engine",
    "Unable to find a valid cuDNN algorithm",
)
"""As cuBLAS, and cuDNN 8 and 9, call it; then torch, where none of cuDNN's ways has room to work in."""
_ASSERTION = "device-side assert"
Probe = Callable[[], object]
"""Waits for the device, and raises AcceleratorError where it does not answer."""


@contextmanager
def device_blamed(device: torch.device, where: str, probe: Probe | None = None) -> Iterator[None]:
    """Everything that runs on a device runs in here: what fails because of the device is named so.

    Raises OutOfDeviceMemory where its memory does not suffice, with the tensors freed that the frames
    which failed held; DeviceLost where it cannot be used any more; BadTask where the program made an
    assertion fail there, which would end the next device as well. All other errors pass. `probe`: on CUDA
    `torch.cuda.synchronize`, unless another is given.
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
        answer = _answer(error, probe or _probe(device))
        if answer is None:
            raise
        if _ASSERTION in str(answer):
            raise BadTask(
                f"an assertion failed on {device}: {_first_line(error)}, {where}",
                mend="run it again with STOCKPOT_DEVICE=cpu, where the error names the line: most often an "
                "index, such as a label, is out of range",
            ) from error
        raise DeviceLost(f"{device} is gone: {_first_line(_causes(error)[-1])}, {where}") from error


@contextmanager
def no_way_around(
    device: torch.device, where: str, refusals: Callable[[], int] | None = None
) -> Iterator[None]:
    """Raises OutOfDeviceMemory where memory was refused inside and the work went on all the same.

    cuDNN's convolutions do that: with no room for one kernel's workspace they take another, which sums in
    another order. `refusals`: how often the device has refused so far, as torch counts unless told otherwise.
    """
    count = refusals or partial(_refusals, device)
    before = count()
    yield
    if count() > before:
        raise OutOfDeviceMemory(
            f"{device} had too little memory, so that other kernels computed than usual, {where}",
            mend="make the task's batch_size smaller, or end what else uses the device",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, or a library below it, says that the device has too little memory."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    # The driver's own refusal, of pinned memory for example, and that of cuBLAS and cuDNN have no class.
    driver = isinstance(error, torch.AcceleratorError) and "out of memory" in str(error)
    return driver or (isinstance(error, RuntimeError) and any(status in str(error) for status in _NO_MEMORY))


def _answer(error: BaseException, probe: Probe | None) -> torch.AcceleratorError | None:
    """What a device answers that cannot be used any more, where it may have caused this error.

    The error itself does not tell: cuBLAS and cuDNN fail with a plain RuntimeError whatever the reason, and a
    kernel that could not be launched leaves its device in order. It is believed where there is no probe.
    """
    causes = [cause for cause in _causes(error) if isinstance(cause, RuntimeError)]
    if probe is None:
        return next((cause for cause in causes if isinstance(cause, torch.AcceleratorError)), None)
    try:
        if causes:
            probe()
    except torch.AcceleratorError as answer:
        return answer
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error, and what it was raised from, the first cause last."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return causes


def _probe(device: torch.device) -> Probe | None:
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else None


def _first_line(error: BaseException) -> str:
    return next(filter(None, str(error).splitlines()), type(error).__name__)


def _refusals(device: torch.device) -> int:
    return int(torch.cuda.memory_stats(device).get("num_ooms", 0)) if device.type == "cuda" else 0
