"""Which device evaluates, and the settings under which it gives the same answer every time."""

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from registry.errors import BadRequest

_Switch = tuple[Any, str, object]
"""An object, its attribute, and the value that makes float32 exact or a kernel deterministic."""


def choose_device(name: str | None = None) -> torch.device:
    """The named device; else CUDA where there is one, else the CPU.

    Raises BadRequest for a name that torch does not know, or a device that this machine lacks.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's ways to lack a device
        raise BadRequest(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}", mend="name cpu, or leave it out"
        ) from error
    return device


def device_model(device: torch.device) -> str:
    """What the protocol calls the device: "NVIDIA H100 80GB HBM3", or "cpu x86_64"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}"


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Full float32 precision, deterministic convolutions and a fixed seed; afterwards all is as before."""
    with ExitStack() as stack:
        # The older switches drag the newer ones along: they are set first, and restored first.
        switches = [s for s in (*_newer_switches(), *_older_switches()) if _restore_later(s, stack)]
        for owner, attribute, value in reversed(switches):
            if getattr(owner, attribute) not in (value, "none"):
                setattr(owner, attribute, value)
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        torch.manual_seed(0)
        yield


class _MatmulPrecision:
    """Makes an attribute of a pair of functions."""

    @property
    def value(self) -> str:
        return torch.get_float32_matmul_precision()

    @value.setter
    def value(self, precision: str) -> None:
        torch.set_float32_matmul_precision(precision)


def _older_switches() -> list[_Switch]:
    cudnn = torch.backends.cudnn
    return [
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
        (cudnn, "allow_tf32", False),
        (_MatmulPrecision(), "value", "highest"),
    ]


def _newer_switches() -> list[_Switch]:
    """Those that torch 2.9 brought. A program that uses them may rule out reading the older ones."""
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):
        return []
    owners = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    owners += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    return [(owner, "fp32_precision", "ieee") for owner in owners]


def _restore_later(switch: _Switch, stack: ExitStack) -> bool:
    """False where torch refuses to read it, because the program uses the newer switches."""
    owner, attribute, _ = switch
    try:
        stack.callback(setattr, owner, attribute, getattr(owner, attribute))
    except RuntimeError:
        return False
    return True
