"""How much memory this process may still take."""

import os
from collections.abc import Iterator
from pathlib import Path

_NAMES = "memory.max", "memory.current", "inactive_file"
"""What a control group's limit is called, what it uses, and what of that it would give up."""
_NAMES_BEFORE = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
"""In the first version of control groups."""


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be had without swapping, or being killed.

    The least of what the system has, by its own estimate (which counts what it would give up, and leaves out
    what it could not: shared memory), and of what each control group around this process has left: a
    container's limit is far below its host's memory. `root` is where ``proc`` and ``sys`` are. Where the
    system tells nothing, half of the memory that it has.
    """
    system = _number(_fields(root / "proc/meminfo").get("MemAvailable:"))
    if system is None:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return min([1024 * system, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> Iterator[int]:
    for folder, limit, used, reclaimable in _groups(root):
        most, taken = _number(_text(folder / limit)), _number(_text(folder / used))
        if most is not None and taken is not None:  # else "max", or not a group that counts memory
            spare = _number(_fields(folder / "memory.stat").get(reclaimable)) or 0
            yield max(0, most - taken + spare)


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """The folders of the control groups that this process is in, and those around them, with `_NAMES`.

    Inside a container its own group may be mounted where the host's first one is: the outermost folder is
    looked at whatever the path says.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        inner = mounted / path.lstrip("/")
        around = [folder for folder in inner.parents if folder.is_relative_to(mounted)]
        for folder in (inner, *around):
            yield folder, *(_NAMES_BEFORE if controllers else _NAMES)


def _text(file: Path) -> str:
    """Empty where there is none: not every system has these files."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _fields(file: Path) -> dict[str, str]:
    """The first word of each line, and the second."""
    lines = (line.split() for line in _text(file).splitlines())
    return {words[0]: words[1] for words in lines if len(words) > 1}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None
