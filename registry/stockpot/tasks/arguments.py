"""A task's arguments as a question names them: files and folders by what they hold, not by where they lie."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path

from stockpot.entities import Digest, digest_of_document, digest_of_file


def how_to_mend() -> str:
    """Of arguments that name what is not there: where they are looked for."""
    return (
        f"correct each; relative paths and modules are looked for in {Path.cwd()}, modules also in PYTHONPATH"
    )


READ_AT_MOST = 1 << 30
"""Bytes of a folder's files that are read to name it, the smallest file first: a second or two. Labels, word
lists and settings, of which a task makes more than its examples, are small."""
_OPENING = 1 << 16
"""Bytes that could be read in the time that it takes to open a file."""


class NamedByContent(Mapping[str, str]):
    """These arguments of a task, with a digest in place of each value that is a path: the same data elsewhere
    is no other question. Nothing is read before the first value is asked for.

    - The path of a file becomes the SHA-256 of the file's content.
    - A word without a separator or suffix stays before the digest: it may be a switch as well.
    - The path of a folder becomes a digest of the relative names and sizes of all files below it, and of the
      content of the smallest of them, up to `READ_AT_MOST`. Examples in larger files count all the same:
      they are in the dataset's digest. Folders below it that are links count by where they lead.
    - Everything else stays as it was given. That is: what names nothing that is there; a number, even where
      a file or folder has that name; a file or folder without content, which nothing tells from another; a
      folder that holds the working directory, where files change that are no data; and what cannot be read.

    A path is relative to the working directory, and may begin with ``~``.
    """

    def __init__(self, args: Mapping[str, str]) -> None:
        self._given = args

    def __getitem__(self, name: str) -> str:
        """The value's digest, or the value."""
        return self._named[name]

    def __iter__(self) -> Iterator[str]:
        """The arguments' names."""
        return iter(self._given)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._given)

    @cached_property
    def _named(self) -> dict[str, str]:
        return {name: _named(value) for name, value in self._given.items()}


def _named(value: str) -> str:
    content = _content_of(value)
    if content is None:
        return value
    return f"{value} {content}" if re.fullmatch(r"\w[\w-]*", value) else content


def _content_of(value: str) -> Digest | None:
    if not value or _is_number(value):
        return None
    try:
        path = Path(value).expanduser().absolute()
        if path.is_file():
            return _digest_of_file(path) if path.stat().st_size else None
        if path.is_dir() and not Path.cwd().resolve().is_relative_to(path.resolve()):
            return _digest_of_folder(path)
    except (OSError, RuntimeError):  # unreadable, which the task will say itself; somebody without a home
        pass
    return None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _digest_of_file(path: Path) -> Digest:
    status = path.stat()
    return _read_digest(path, (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))


@cache
def _read_digest(path: Path, _looks: tuple[int, ...]) -> Digest:
    """Read once per process as long as the file looks the same."""
    return digest_of_file(path)


def _digest_of_folder(path: Path) -> Digest | None:
    found, left = [], READ_AT_MOST
    for size, name, content in sorted(_below(path)):
        left -= size + _OPENING
        is_read = not content and left >= 0
        found.append([name, size, _digest_of_file(path / name) if is_read else content])
    return digest_of_document(found) if any(size for _, size, _ in found) else None


def _below(path: Path) -> Iterator[tuple[int, str, str]]:
    """Size and relative name of each file, and in place of its content what else it is, if it is no file."""
    for folder, folders, files in os.walk(path, onerror=_raise):
        for place in (Path(folder, name) for name in files):
            kind = "" if place.is_file() else "no regular file"  # a pipe would be waited for
            yield place.stat().st_size, str(place.relative_to(path)), kind
        for place in (Path(folder, name) for name in folders):
            if place.is_symlink():
                yield 0, str(place.relative_to(path)), f"leads to {place.resolve()}"


def _raise(error: OSError) -> None:
    raise error
