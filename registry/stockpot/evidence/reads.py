"""What a task reads, as far as one can see."""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any

from stockpot.entities import Evidence, FileStamp
from stockpot.evidence.files import MOST_FILES, below, is_installed, leads_to, named_in_code, settled
from stockpot.evidence.surroundings import surroundings

STARTED = time.time()
"""When this process began, nearly: a module that changed later may have been imported before."""
SLACK = 0.05
"""Seconds: file systems tell the time in ticks."""
OPENING = frozenset({"open", "os.listdir", "os.scandir"})
BLIND = {
    "socket.connect": "connects to a server",
    "sqlite3.connect": "opens a database",
    "subprocess.Popen": "starts a program",
    "os.system": "starts a program",
    "os.posix_spawn": "starts a program",
    "os.fork": "starts a process",
}
"""What Python tells of, and cannot see behind."""
_WRITING = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_PSEUDO = ("/proc/", "/sys/", "/dev/")
"""Not files, but what the machine tells of itself."""


class Reads:
    """The files that a task's arguments name, and those that are opened in its ``with`` blocks.

    Each counts as it looked before it was read. `ours`: folders of which nothing is the task's. Files that
    are opened by libraries without Python's knowledge are not seen, unless an argument names them, a text
    that an argument names, or a string in the task's modules. Threads that were there before the block are
    others' work. What this process has seen the same task open before still counts: it need not read again
    what it has kept.
    """

    def __init__(
        self,
        task: str = "",
        task_args: Mapping[str, str] | None = None,
        ours: Sequence[os.PathLike[str]] = (),
    ) -> None:
        self._task = task
        self._skipped = (*_PSEUDO, *(os.path.join(os.path.abspath(folder), "") for folder in ours))
        self._files: dict[str, FileStamp] = {}
        self._doubts: dict[str, None] = {}
        self._blind: dict[str, None] = {}
        self._others: set[threading.Thread] = set()
        self._named = [name for item in (task_args or {}).items() for name in self._naming(*item)]
        if not self._named:
            self.doubt("the task names no file among its arguments, so that what it read is not known")
        if task.partition(":")[0] in sys.modules and task not in _before:
            self.doubt("the task's module was imported before, and what it read then is not known")

    def __enter__(self) -> None:
        # Not their idents: a thread of the task's may get that of one that has ended.
        self._others = {*threading.enumerate()} - {threading.current_thread()}
        _watch(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _watching.remove(self)
        files, blind = _before.setdefault(self._task, ({}, {}))
        files.update(self._files)
        blind.update(self._blind)

    def doubt(self, clause: str) -> None:
        """Know of something that may have been read besides."""
        self._doubts.setdefault(clause)

    def take(self, path: os.PathLike[str]) -> None:
        """Keep a file, or a folder with all that is in it, which the answer depends on besides."""
        self._keep_all(os.path.abspath(path))

    def take_code(self, modules: Iterable[str]) -> None:
        """Keep what the task's loaded modules name in their strings: libraries may read it unseen, and so
        may scoring, which nobody watches.
        """
        for name in modules:
            for path in named_in_code(getattr(sys.modules.get(name), "__file__", None) or ""):
                if not os.path.join(path, "").startswith(self._skipped):
                    self._keep_all(path)

    def evidence(self) -> Evidence:
        """All that the answer depended on."""
        modules = (settled(file, STARTED - SLACK, there=True) for file in _modules())
        before, blind = _before.get(self._task, ({}, {}))
        files = before | self._files
        for file in self._named:
            if other := leads_to(file, files):
                self.doubt(f"{file} names {other}, which may have been read, too")
        stamps = tuple(dict.fromkeys([*modules, *files.values()]))
        return Evidence(surroundings(), stamps, next(iter([*self._doubts, *blind]), ""))

    def note(self, event: str, args: tuple[Any, ...], frame: FrameType) -> None:
        """Take in what Python tells of what is done in this frame."""
        if threading.current_thread() in self._others or _finds_modules(frame.f_code.co_filename):
            return
        if event in BLIND:
            self._blind.setdefault(f"the task {BLIND[event]} when it reads its data")
        elif event != "open" or not args[2] & _WRITING:
            self._opened(args[0])

    def _naming(self, key: str, value: str) -> Iterator[str]:
        """The file or folder that an argument names, if it does."""
        if "://" in value:
            self.doubt(f"what lies at the address in the task's argument {key} may have changed")
        # Not Path.exists, which raises for a text that is too long, and takes no text for this folder.
        path = os.path.expanduser(value)
        if os.path.exists(path):
            path = os.path.abspath(path)
            self._keep_all(path)
            yield path

    def _opened(self, name: object) -> None:
        if name is None:  # as os.listdir says it
            name = os.curdir
        if not isinstance(name, str | bytes):  # a file that is open already
            return
        path = os.path.abspath(os.fsdecode(name))
        if path in self._files or os.path.join(path, "").startswith(self._skipped) or is_installed(path):
            return
        if len(self._files) > MOST_FILES:
            self._blind.setdefault(f"the task opens more than {MOST_FILES:,} files")
        else:
            self._keep(path)

    def _keep_all(self, path: str) -> None:
        """The file, or the folder with all that is in it."""
        files = below(path)
        if files is None:
            self.doubt(f"{path} holds more than {MOST_FILES:,} files, or links to other folders")
        for file in files or ():
            self._keep(file)

    def _keep(self, path: str) -> None:
        self._files.setdefault(path, settled(path, time.time() - SLACK))


_before: dict[str, tuple[dict[str, FileStamp], dict[str, None]]] = {}
"""By task, what this process saw it open, and doubts about that."""
_watching: list[Reads] = []
_hooked = threading.Lock()


def _watch(reads: Reads) -> None:
    _watching.append(reads)
    if _hooked.acquire(blocking=False):
        sys.addaudithook(_told)  # for the rest of the process: none is ever taken off again


def _told(event: str, args: tuple[Any, ...]) -> None:
    if _watching and (event in OPENING or event in BLIND):
        frame = sys._getframe(1)  # noqa: SLF001 - of whoever did it
        for reads in tuple(_watching):
            try:
                reads.note(event, args, frame)
            except (OSError, ValueError):  # the working directory is gone, for example: not the task's fault
                reads.doubt("the task opens a file whose place cannot be told")


def _finds_modules(code: str) -> bool:
    """Whether this file's code looks for modules and distributions: what it opens is known by them."""
    inside = is_installed(code) and any(name in code for name in ("importlib", "pkgutil", "pkg_resources"))
    return inside or code.startswith("<frozen importlib")


def _modules() -> Iterator[str]:
    """Files of the modules that belong to no installed distribution."""
    for module in tuple(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        # A relative one is no file but a name: torch has such modules, made at run time.
        if os.path.isabs(file) and not is_installed(file):
            yield file
