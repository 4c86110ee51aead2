"""The software, the machine and the variables under which an answer was found."""

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from stockpot.entities import Digest, digest_of_document
from stockpot.variables import variables

CHOOSES = (
    *("ATEN_", "CUBLAS_", "CUDA_", "DNNL_", "MKL_", "NVIDIA_", "OMP_", "ONEDNN_", "PYTHONPATH", "PYTORCH_"),
    *("HF_", "HOME", "STOCKPOT_DEVICE", "TORCH"),
)
"""Beginnings of variables that choose devices, kernels, modules and folders of downloaded data."""
SET_BY_LIBRARIES = {"CUDA_MODULE_LOADING", "PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR"}
"""torch and accelerate set these themselves as they work; the next process has none. They choose nothing."""
_METADATA = {".dist-info", ".egg-info"}


def surroundings() -> Digest:
    """Names what is installed, the machine, the working directory, and what chooses devices and modules."""
    return digest_of_document(
        {
            "installed": sorted(_distributions()),
            "python": sys.version,
            "folder": str(Path.cwd()),
            "variables": sorted(f"{name}={text}" for name, text in variables().items() if _chooses(name)),
            "machine": [platform.machine(), *_processors()],
            "graphics": sorted(_graphics()),
        }
    )


def _chooses(variable: str) -> bool:
    return variable.startswith(CHOOSES) and variable not in SET_BY_LIBRARIES


def _distributions() -> Iterator[str]:
    """Names and versions, as folders in the path of modules tell them: reading each would take a second."""
    for place in map(Path, sys.path):
        if place.is_dir():
            yield from (entry.name for entry in place.iterdir() if entry.suffix in _METADATA)


def _processors() -> list[str]:
    """How many this process may use, and what they are called, where Linux tells."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    return [str(number), *sorted({line for line in lines if line.startswith("model name")})]


def _graphics() -> Iterator[str]:
    """The driver, and each card, as NVIDIA's driver for Linux tells them."""
    driver = Path("/proc/driver/nvidia")
    for file in (driver / "version", *driver.glob("gpus/*/information")):
        if file.is_file():
            yield file.read_text()
