"""Where completed passes lie, by name: in a folder, or at an fsspec address that machines share."""

import math
import re
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Protocol, TypeVar

from stockpot.errors import BadRequest
from stockpot.secrets import keep_secret
from stockpot.soup.eviction import LeastRecentlyUsed
from stockpot.soup.whole_file import remove_leftovers, writing

T = TypeVar("T")

LIMIT = 10 * 10**9
"""Bytes kept, where no other limit is set."""
SECONDS = 60.0
"""For one question to an address. What takes longer saves no time."""
_SUFFIX = ".safetensors"
_OURS = re.compile(r"(?:.*/)?[0-9a-f]{64}\.safetensors")
_WHEN = ("LastModified", "mtime", "updated", "last_modified", "created")
"""What filesystems call the time of the last change; each gives one kind of value."""


def remove_unused(place: str, before: float, *, really: bool) -> list[int]:
    """Remove what nobody used since then, in seconds since the epoch, from the shelf there; at an address
    what was written before. Returns the bytes of each. Where not `really`, all stays.

    Raises OSError where an address does not answer, and BadRequest for one that nobody can be asked for.
    """
    if (folder := folder_at(place)) is not None:
        return files_of(folder).remove_unused(before, really=really)
    _require_known(place)
    return AddressShelf(place, LIMIT).remove_older(before, really=really)


class Shelf(Protocol):
    """Bytes by name, 64 hexadecimal digits. Any number of threads, processes and machines may share one."""

    place: str
    """For messages."""
    limit: int
    """Bytes; what is oldest goes first. The newest one stays even where it is larger."""

    def read(self, name: str) -> bytes | None:
        """What was written under this name, perhaps torn; None where nothing is. Raises OSError."""

    def write(self, name: str, content: bytes) -> bool:
        """Keep it, and tell whether something else had to go. Raises OSError."""


def shelf_at(place: str | Path, limit: int | None = None) -> Shelf:
    """The shelf in this folder, or at this address (``s3://bucket/prefix``); a limit of None is LIMIT.

    Asks an address for nothing yet. Raises BadRequest for one that nobody can be asked for.
    """
    limit = LIMIT if limit is None else limit
    if (folder := folder_at(place)) is not None:
        return FolderShelf(folder, limit)
    _require_known(str(place))
    return AddressShelf(str(place), limit)


def folder_at(place: str | Path) -> Path | None:
    """The folder that a place is; None for an address."""
    if ":/" not in str(place) or Path(place).is_absolute():  # s3:/bucket is a mistyped address
        return Path(place)
    scheme, _, path = str(place).partition("://")
    return Path(path) if scheme == "file" else None


def files_of(folder: Path, limit: int | None = None) -> LeastRecentlyUsed:
    """The files of the shelf in this folder, which need not be there."""
    return LeastRecentlyUsed(folder, _SUFFIX, limit)


class FolderShelf:
    """Files in a folder, made when it is first needed. Those that were used least recently go first."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.place, self.limit = str(folder), limit
        self._folder = folder
        self._used = files_of(folder, limit)
        remove_leftovers(folder)

    def read(self, name: str) -> bytes | None:
        """As a Shelf. A file that cannot be read is absent: it may be another user's."""
        file = self._folder / f"{name}{_SUFFIX}"
        try:
            content = file.read_bytes()
        except OSError:
            return None
        self._used.touch(file)
        return content

    def write(self, name: str, content: bytes) -> bool:
        """As a Shelf."""
        file = self._folder / f"{name}{_SUFFIX}"
        self._folder.mkdir(parents=True, exist_ok=True)
        with writing(self._folder) as unfinished:
            unfinished.put(content, 0)
            unfinished.path.replace(file)  # not waiting for the disk: what is torn is noticed, and absent
        return self._used.evict(keep=file)


class AddressShelf:
    """Objects under an fsspec address. Those that were written first go first: a read leaves no trace there.

    All are listed before the first write, and again after each tenth of the limit, since others write as
    well. A question that takes longer than `seconds` raises TimeoutError, and its thread is left behind.
    """

    def __init__(self, address: str, limit: int, *, seconds: float = SECONDS) -> None:
        keep_secret(address)
        self.place, self.limit = address, limit
        self._seconds = seconds
        self._room = 0
        """Bytes to write before all are listed again."""
        self._lock = Lock()

    def read(self, name: str) -> bytes | None:
        """As a Shelf."""
        try:
            return self._ask(lambda files, root: bytes(files.cat_file(f"{root}/{name}{_SUFFIX}")))
        except (FileNotFoundError, PermissionError):  # S3 forbids what is absent to those who may not list
            return None

    def write(self, name: str, content: bytes) -> bool:
        """As a Shelf."""
        with self._lock:
            reached = len(content) > self._room and self._make_room(len(content))
            self._room -= len(content)
        self._ask(lambda files, root: files.pipe_file(f"{root}/{name}{_SUFFIX}", content))
        return reached

    def remove_older(self, before: float, *, really: bool) -> list[int]:
        """Remove what was written before that, in seconds since the epoch, where the filesystem tells when
        that was. Returns the bytes of each. Where not `really`, all stays. Raises OSError.
        """
        found = self._ask(_listed)
        when = next((key for key in _WHEN if all(key in item for item in found)), "")
        old = [item for item in found if when and _seconds(item[when]) < before]
        if old and really:
            with suppress(FileNotFoundError):  # another process removes the same
                self._ask(lambda files, _: files.rm([item["name"] for item in old]))
        return [item["size"] or 0 for item in old]

    def _make_room(self, size: int) -> bool:
        """Remove the oldest where so many more bytes would pass the limit: a tenth more than must go, so that
        not each write lists all.
        """
        found = self._ask(_listed)
        total = size + sum(item["size"] or 0 for item in found)
        reached = total > self.limit
        if reached:
            when = next((key for key in _WHEN if all(key in item for item in found)), "name")
            old = []
            for item in sorted(found, key=lambda item: item[when]):
                if total <= 0.9 * self.limit:
                    break
                old.append(item["name"])
                total -= item["size"] or 0
            with suppress(FileNotFoundError):  # another process removes the same
                self._ask(lambda files, _: files.rm(old))
        self._room = size + max(0, min(self.limit - total, self.limit // 10))
        return reached

    def _ask(self, question: Callable[[Any, str], T]) -> T:
        """What the filesystem answers. It is opened for each question: fsspec keeps it. Raises OSError."""
        from fsspec.core import url_to_fs

        answer: Future[T] = Future()

        def ask() -> None:
            try:
                files, root = url_to_fs(self.place)
                answer.set_result(question(files, root.rstrip("/")))
            except BaseException as error:  # noqa: BLE001 - raised where the answer is waited for
                answer.set_exception(error)

        Thread(target=ask, name="outputs", daemon=True).start()  # nobody waits for it at the end
        try:
            return answer.result(self._seconds)
        except OSError:
            raise
        except Exception as error:  # of whatever client: they share no class
            raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _seconds(when: Any) -> float:
    """A time of any of these filesystems, in seconds since the epoch; what cannot be read is not old."""
    try:
        read = datetime.fromisoformat(when) if isinstance(when, str) else when
        if isinstance(read, datetime):
            return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
        return float(read)
    except (TypeError, ValueError):
        return math.inf


def _listed(files: Any, root: str) -> list[dict[str, Any]]:
    files.invalidate_cache()
    try:
        found = files.ls(root, detail=True)
    except FileNotFoundError:
        return []
    return [item for item in found if _OURS.fullmatch(item["name"])]


def _require_known(address: str) -> None:
    """Raises BadRequest where fsspec knows no such protocol, or lacks its package."""
    from fsspec import get_filesystem_class
    from fsspec.registry import known_implementations

    keep_secret(address)
    for protocol in [part.partition("://")[0] for part in address.split("::")]:
        try:
            get_filesystem_class(protocol or "none")
        except ValueError as error:
            raise BadRequest(
                f"STOCKPOT_OUTPUTS={address}: fsspec knows no protocol {protocol!r}",
                mend="export STOCKPOT_OUTPUTS=s3://BUCKET/PREFIX, another address, or a folder",
            ) from error
        except ImportError as error:
            package = known_implementations[protocol]["class"].partition(".")[0]
            wanted = f"'fsspec[{protocol}]'" if package == "fsspec" else package
            raise BadRequest(
                f"STOCKPOT_OUTPUTS={address}: the package that speaks {protocol} is missing: "
                f"{error.__cause__ or error}",
                mend=f"pip install {wanted}",
            ) from error
