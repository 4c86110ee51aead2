"""What an answer depended on beside the sweep, told without torch: so that a request which is answered
already need not be worked on again.

The user's modules are those that the process has imported for the walk. What a task reads is known where
its arguments name files or folders; a task whose arguments name none may read anything.
"""

import os
import platform
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from stockpot.entities import Digest, Evidence, FileStamp, digest_of_document

STARTED = time.time()
"""When this process began, nearly: a module that changed later may have been imported before."""
SLACK = 0.05
"""Seconds: file systems tell the time in ticks."""
MOST_FILES = 10_000
"""In a folder that an argument names: looking at more takes longer than it saves."""
CHOOSES = (
    *("ATEN_", "CUBLAS_", "CUDA_", "DNNL_", "MKL_", "NVIDIA_", "OMP_", "ONEDNN_", "PYTHONPATH", "PYTORCH_"),
    *("STOCKPOT_DEVICE", "TORCH"),
)
"""Beginnings of variables that choose devices, kernels and modules."""
SET_BY_TORCH = {"CUDA_MODULE_LOADING", "TORCHINDUCTOR_CACHE_DIR"}
"""It sets these itself while it exports or uses a GPU; the next process has none. They choose nothing."""
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_METADATA = {".dist-info", ".egg-info"}
_SITES = {"site-packages", "dist-packages"}


def evidence_of(task_args: Mapping[str, str], *, since: float) -> Evidence | None:
    """What a walk that began at `since` (seconds since the epoch) depended on.

    None where a file changed meanwhile: nobody knows whether the walk saw it before or after.
    """
    # Not Path.exists, which raises for a text that is too long, and takes no text for this folder.
    named = [Path(value) for value in task_args.values() if os.path.exists(value)]  # noqa: PTH110
    found = [(file, min(since, STARTED)) for file in _modules()]
    whole = bool(named)
    for path in named:
        files = _below(path.absolute())
        whole = whole and files is not None
        found += [(file, since) for file in files or ()]
    stamps = []
    for file, limit in found:
        stamp = _stamp(file)
        if stamp is None or max(stamp.modified_ns, stamp.changed_ns) > (limit - SLACK) * 1e9:
            return None
        stamps.append(stamp)
    return Evidence(_surroundings(), tuple(stamps), whole)


def still_holds(evidence: Evidence) -> bool:
    """Whether all that it tells of looks as it did."""
    if evidence.surroundings != _surroundings():
        return False
    return all(_stamp(Path(stamp.path)) == stamp for stamp in evidence.files)


def _modules() -> Iterator[Path]:
    """Files of the modules that belong to no installed distribution."""
    for module in tuple(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "")
        # A relative one is no file but a name: torch has such modules, made at run time.
        if file.is_absolute() and not str(file).startswith(_INSTALLED) and not _SITES & set(file.parts):
            yield file


def _below(path: Path) -> list[Path] | None:
    """The file, or the folder with all that is in it; None where that is too much, or leads elsewhere."""
    found = [path]
    for folder, folders, files in os.walk(path):
        found += [Path(folder, name) for name in (*folders, *files)]
        if len(found) > MOST_FILES or any(Path(folder, name).is_symlink() for name in folders):
            return None
    return found


def _stamp(file: Path) -> FileStamp | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return FileStamp(str(file), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _surroundings() -> Digest:
    """Names what is installed, the machine, the working directory, and what chooses devices and modules."""
    return digest_of_document(
        {
            "installed": sorted(_distributions()),
            "python": sys.version,
            "folder": str(Path.cwd()),
            "variables": sorted(f"{name}={text}" for name, text in os.environ.items() if _chooses(name)),
            "machine": [platform.machine(), *_processors()],
            "graphics": sorted(_graphics()),
        }
    )


def _chooses(variable: str) -> bool:
    return variable.startswith(CHOOSES) and variable not in SET_BY_TORCH


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
