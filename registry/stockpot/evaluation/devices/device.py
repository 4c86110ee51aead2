"""Which device evaluates, and the settings under which it gives the same answer every time."""

import ctypes
import os
import platform
import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stockpot.errors import BadRequest
from stockpot.evaluation.devices.host_memory import available_memory

_Switch = tuple[Callable[[], object], Callable[[Any], object], object]
"""Reads it, writes it, and the value that makes float32 exact or a kernel deterministic."""
_CHOOSES_KERNELS = "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"
"""Variables of the libraries below torch."""


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The named device; else CUDA where there is one, else the CPU.

    Raises BadRequest for a name that torch does not know, or a device that this machine lacks.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        device = torch.empty(0, device=device).device  # "cuda" is told its index: torch compares it, too
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
        ImportError,
    ) as error:  # torch's ways to lack one
        raise BadRequest(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}", mend="name cpu, or leave it out"
        ) from error
    return device


def free_memory(device: torch.device) -> int:
    """Bytes of memory that may be taken there; on CUDA with what torch has kept for later use."""
    if device.type != "cuda":
        return available_memory()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def device_names(names: str = "") -> tuple[str, ...]:
    """Those that are named, separated by commas, such as "cuda:0,cuda:1"; none of them is opened.

    "cpu" may be named several times, to try things out. Raises BadRequest for any other that is named twice.
    """
    found = tuple("cuda:0" if name.strip() == "cuda" else name.strip() for name in names.split(","))
    if len(found) > 1 and "" in found:
        raise BadRequest(f"{names!r} names nothing between two commas", mend="leave out the comma")
    twice = sorted({name for name in found if name != "cpu" and found.count(name) > 1})
    if twice:
        raise BadRequest(f"{names!r} names {', '.join(twice)} twice", mend="name each device once")
    return found


def device_model(device: torch.device, threads: int) -> str:
    """What the protocol calls the device: "NVIDIA H100 80GB HBM3", "cpu x86_64 AuthenticAMD AVX2 8 threads".

    A CPU is named with what decides in which order sums are taken: its maker, the vector instructions of
    torch's kernels, the threads that share a kernel's work, and variables that choose other kernels.
    With nothing else: processors of many names compute the same bits, and would share no score any more.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    machine = f"{device.type} {platform.machine()}"
    if device.type != "cpu":
        return machine
    set_by_hand = [f"{name}={os.environ[name]}" for name in _CHOOSES_KERNELS if name in os.environ]
    capability = f"{torch.backends.cpu.get_cpu_capability()} {threads} thread{'s' * (threads > 1)}"
    return " ".join([machine, *_vendor(), capability, *set_by_hand])


def software(device: torch.device) -> tuple[tuple[str, str], ...]:
    """Names and versions of what computes below torch on a CUDA device: others bring other kernels."""
    if device.type != "cuda":
        return ()
    versions = {
        "CUDA": torch.version.cuda or torch.version.hip,
        "cuDNN": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch leaves it so
        "driver": _driver(),
    }
    return tuple((name, str(found or "unknown")) for name, found in versions.items())


def _driver() -> str | None:
    """The version of NVIDIA's driver, as its management library tells; None where there is none."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    text = ctypes.create_string_buffer(96)
    if nvml.nvmlInit_v2():
        return None
    try:
        return text.value.decode() if nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0 else None
    finally:
        nvml.nvmlShutdown()


def _vendor() -> list[str]:
    """Whose processor it is, where the system tells: MKL takes other ways on one than on another."""
    try:
        found = re.search(r"^vendor_id\s*:\s*(\S+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return [found[1]] if found else []


def random_state(device: torch.device) -> torch.Tensor:
    """Of the CPU's generator, and of the device's."""
    state = torch.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else state


def compute_with(threads: int) -> None:
    """Let torch use so many threads for what this thread asks of it.

    One that torch has not met computes with a number of its own choice: sums would be taken in another order.
    """
    if torch.get_num_threads() != threads:  # setting it is for all threads that start after that
        torch.set_num_threads(threads)


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Full float32 precision, deterministic convolutions, torch's own choice of kernels and a fixed seed,
    whatever the program around has switched; afterwards all is as before. For one thread at a time: torch's
    switches are the process's, and so is the CPU's random generator.
    """
    with ExitStack() as stack:
        _switch(stack)
        stack.callback(torch.set_rng_state, torch.get_rng_state())
        torch.default_generator.manual_seed(0)
        if device.type == "cuda":
            stack.callback(torch.cuda.set_rng_state, torch.cuda.get_rng_state(device), device)
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))  # this thread's
        yield


@contextmanager
def seeded() -> Iterator[None]:
    """The CPU's generator seeded for something else than a pass, and afterwards as it was."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(0)
        yield


@contextmanager
def all_seeded() -> Iterator[None]:
    """Python's and numpy's generators as well: for what a task draws once, and not with each pass."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that all share
    try:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        with seeded():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


def _switch(restore: ExitStack) -> None:
    # The older switches drag the newer ones along: they are set first, and restored first.
    switches = [switch for switch in (*_newer_switches(), *_older_switches()) if _kept(switch, restore)]
    for read, write, value in reversed(switches):
        if read() not in (value, "none"):
            write(value)


def _kept(switch: _Switch, restore: ExitStack) -> bool:
    """False where torch refuses to read it, because the program uses the newer switches."""
    read, write, _ = switch
    try:
        restore.callback(write, read())
    except RuntimeError:
        return False
    return True


def _attribute(owner: Any, name: str, *, to: object) -> _Switch:
    return partial(getattr, owner, name), partial(setattr, owner, name), to


def _older_switches() -> list[_Switch]:
    cudnn, cuda, mha = torch.backends.cudnn, torch.backends.cuda, torch.backends.mha
    return [
        _attribute(cudnn, "enabled", to=True),
        _attribute(cudnn, "deterministic", to=True),
        _attribute(cudnn, "benchmark", to=False),
        _attribute(cudnn, "allow_tf32", to=False),
        _attribute(cuda.matmul, "allow_fp16_reduced_precision_reduction", to=False),
        _attribute(cuda.matmul, "allow_bf16_reduced_precision_reduction", to=False),
        _attribute(torch.backends.mkldnn, "enabled", to=True),
        (cuda.flash_sdp_enabled, cuda.enable_flash_sdp, True),
        (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp, True),
        (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp, True),
        (cuda.math_sdp_enabled, cuda.enable_math_sdp, True),
        (mha.get_fastpath_enabled, mha.set_fastpath_enabled, True),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    ]


def _newer_switches() -> list[_Switch]:
    """Those that torch 2.9 brought. A program that uses them may rule out reading the older ones."""
    backends: Any = torch.backends
    owners = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    owners += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    return [_attribute(owner, "fp32_precision", to="ieee") for owner in owners]
