"""How files look, which others they lead to, and whose they are."""

import ast
import os
import re
import sysconfig
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

from stockpot.entities import FileStamp

MOST_FILES = 10_000
"""In a folder that an argument names, or opened by a task: to look at more takes longer than it saves."""
NOT_THERE = -1
"""The size of a file that is not there."""
UNSETTLED = -2
"""In place of the size of a file of which nobody knows how it was read: no file looks so."""
LOOKED_AT = 1 << 16
"""Bytes of a text: a list of files names some in its first lines."""
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_SITES = {"site-packages", "dist-packages"}
_BETWEEN = re.compile(r"[\s,;|\"'`<>(){}\[\]=]+")


def look(path: str) -> FileStamp:
    """How a file or folder looks now."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return FileStamp(path, NOT_THERE, 0, 0, 0)
    return FileStamp(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def settled(path: str, by: float, *, there: bool = False) -> FileStamp:
    """How it looks, where it did not change after `by` (seconds since the epoch). Who reads it may otherwise
    have read it before, or read what comes next within the same tick of the file system's clock. `there`:
    it was read already, so that it must have been there.
    """
    stamp = look(path)
    late = max(stamp.modified_ns, stamp.changed_ns) > by * 1e9
    return replace(stamp, size=UNSETTLED) if late or (there and stamp.size == NOT_THERE) else stamp


def is_installed(path: str) -> bool:
    """Whether it belongs to Python or to an installed distribution, whose version tells."""
    return path.startswith(_INSTALLED) or not _SITES.isdisjoint(path.split(os.sep))


def below(path: str) -> list[str] | None:
    """The file, or the folder with all that is in it; None where that is too much, or leads elsewhere."""
    found = [path]
    for folder, folders, files in os.walk(path):
        found += [os.path.join(folder, name) for name in (*folders, *files)]
        if len(found) > MOST_FILES or any(Path(folder, name).is_symlink() for name in folders):
            return None
    return found


def named_in_code(path: str) -> list[str]:
    """The files and folders that a Python module's strings name, beside it or in the working directory.

    Not the folders that those lie in, or that temporary files do.
    """
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    nodes = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    texts = dict.fromkeys(text for text in nodes if isinstance(text, str) and re.search(r"\w", text))
    places = (os.path.join(folder, text) for text in texts for folder in (os.path.dirname(path), ""))
    around = [os.path.join(folder, "") for folder in (os.path.dirname(path), os.getcwd(), gettempdir())]
    found = [place for place in map(os.path.abspath, places) if os.path.exists(place)]
    return [place for place in found if not any(f.startswith(os.path.join(place, "")) for f in around)]


def leads_to(path: str, known: Container[str]) -> str:
    """The first file or address that a text names and that is not known; empty for a file that is no text.

    A name counts where such a file lies beside the text, or in the working directory.
    """
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        begin = file.read(LOOKED_AT)
    if b"\0" in begin:
        return ""
    text = begin.decode(errors="replace")
    for word in dict.fromkeys([*text.splitlines(), *_BETWEEN.split(text)]):
        if "://" in word:
            return word.strip()
        if re.search(r"\w", word) and ("." in word or "/" in word):
            places = [os.path.join(os.path.dirname(path), word), word]
            for place in map(os.path.abspath, places):
                if place not in known and os.path.exists(place):
                    return place
    return ""
