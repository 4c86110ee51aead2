"""What completed passes leave behind."""

import contextlib
import errno
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from torch import Tensor

from stockpot import shelves
from stockpot.entities import SoupRequest, digest_of_bytes
from stockpot.errors import BadRequest
from stockpot.evaluation.outputs import Remembered, RememberedOutputs
from stockpot.settings import Settings
from stockpot.shelves import AddressShelf, FolderShelf, shelf_at
from stockpot.soup.whole_file import UnfinishedFile, writing
from stockpot.wiring import Workplace

RECIPE, OTHER, PROTOCOL = (digest_of_bytes(name) for name in (b"recipe", b"other", b"protocol"))


def passed(outputs: Tensor | None = None, n: int = 6) -> Remembered:
    return Remembered(np.linspace(0.0, 1.0, n), np.linspace(1.0, 2.0, n), outputs)


@pytest.fixture(params=["folder", "address"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Somewhere that processes may share, empty."""
    if request.param == "folder":
        yield str(tmp_path / "shared" / "outputs")
        return
    yield (address := f"memory://{uuid4().hex}/outputs")
    with contextlib.suppress(FileNotFoundError):
        MemoryFileSystem().rm(address, recursive=True)


def at(place: str | Path, limit: int | None = None, **more: Any) -> RememberedOutputs:
    return RememberedOutputs(shelf_at(place, limit), **more)


def files_of(place: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(place)
    return sorted(files.find(root))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_is_shared_brings_a_pass_back_bit_for_bit(place: str, dtype: torch.dtype) -> None:
    outputs = torch.randn(6, 3, 2).to(dtype)
    at(place).keep(RECIPE, PROTOCOL, passed(outputs))
    found = at(place).get(RECIPE, PROTOCOL, outputs=True)
    assert found is not None
    assert found.outputs is not None
    assert found.outputs.dtype == dtype
    assert torch.equal(found.outputs, outputs)
    assert (found.scores.tolist(), found.gaps.tolist()) == (passed().scores.tolist(), passed().gaps.tolist())
    assert [Path(file).suffix for file in files_of(place)] == [".safetensors"]


def test_other_recipes_and_protocols_are_absent(place: str) -> None:
    known = at(place)
    known.keep(RECIPE, PROTOCOL, passed())
    assert known.get(OTHER, PROTOCOL) is None
    assert known.get(RECIPE, OTHER) is None
    assert RememberedOutputs().get(RECIPE, PROTOCOL) is None


def test_outputs_that_are_large_or_no_floats_are_left_out() -> None:
    known = RememberedOutputs(bytes_per_example=16)
    for outputs in (torch.zeros(6, 5), torch.zeros(6, 4, dtype=torch.int32)):
        known.keep(RECIPE, PROTOCOL, passed(outputs))
        assert known.get(RECIPE, PROTOCOL) is not None
        assert known.get(RECIPE, PROTOCOL, outputs=True) is None
    known.keep(RECIPE, PROTOCOL, passed(torch.zeros(6, 4)))
    assert known.get(RECIPE, PROTOCOL, outputs=True) is not None


@pytest.mark.parametrize("byte", [0, 9, 60, -1])
def test_what_is_damaged_is_absent(place: str, byte: int) -> None:
    at(place).keep(RECIPE, PROTOCOL, passed(torch.ones(6, 3)))
    files, root = fsspec.core.url_to_fs(place)
    (file,) = files.find(root)
    content = bytearray(files.cat_file(file))
    content[byte] ^= 1
    files.pipe_file(file, bytes(content))
    assert at(place).get(RECIPE, PROTOCOL) is None
    for size in (0, 7, len(content) - 1):
        files.pipe_file(file, bytes(content[:size]))
        assert at(place).get(RECIPE, PROTOCOL) is None


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        '{"__metadata__":null,"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        '{"__metadata__":{"sha256":"x"}}',
        '{"w":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}',
    ],
)
def test_what_somebody_else_wrote_is_absent(place: str, header: str) -> None:
    at(place).keep(RECIPE, PROTOCOL, passed())
    files, root = fsspec.core.url_to_fs(place)
    (file,) = files.find(root)
    files.pipe_file(file, len(header).to_bytes(8, "little") + header.encode() + b"x")
    assert at(place).get(RECIPE, PROTOCOL) is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "file").touch()
    known = at(tmp_path / "file" / "below", say=said.append)
    for name in (RECIPE, OTHER):
        known.keep(name, PROTOCOL, passed())
        assert known.get(name, PROTOCOL) is not None
    (told,) = said
    assert str(tmp_path / "file" / "below") in told
    assert "STOCKPOT_OUTPUTS" in told


def test_memory_is_bounded_outputs_give_way_first_and_the_least_recently_used() -> None:
    names = [digest_of_bytes(b"%d" % place) for place in range(4)]
    known = RememberedOutputs(memory=2 * 96 + 2 * 400 + 96)
    for name in names[:2]:
        known.keep(name, PROTOCOL, passed(torch.zeros(6, 16, dtype=torch.float32)))
    known.get(names[0], PROTOCOL)
    for name in names[2:]:
        known.keep(name, PROTOCOL, passed(torch.zeros(6, 16, dtype=torch.float32)))
    assert [known.get(n, PROTOCOL, outputs=True) is not None for n in names] == [False, False, False, True]
    assert all(known.get(name, PROTOCOL) is not None for name in names)
    for place in range(20):
        known.keep(digest_of_bytes(b"more %d" % place), PROTOCOL, passed())
    assert known.get(names[0], PROTOCOL) is None


def test_the_outputs_that_were_used_last_stay() -> None:
    first, second, third = (digest_of_bytes(b"%d" % place) for place in range(3))
    known = RememberedOutputs(memory=3 * 96 + 2 * 384)
    for name in (first, second):
        known.keep(name, PROTOCOL, passed(torch.zeros(6, 16)))
    known.get(first, PROTOCOL)
    known.keep(third, PROTOCOL, passed(torch.zeros(6, 16)))
    kept = [known.get(n, PROTOCOL, outputs=True) is not None for n in (first, second, third)]
    assert kept == [True, False, True]


def test_the_folder_keeps_its_limit_and_what_was_used_last(tmp_path: Path) -> None:
    at(tmp_path / "one").keep(RECIPE, PROTOCOL, passed())
    (file,) = (tmp_path / "one").iterdir()
    names = [digest_of_bytes(b"%d" % place) for place in range(4)]
    folder = tmp_path / "limited"
    for place, name in enumerate(names):
        at(folder, limit=2 * file.stat().st_size).keep(name, PROTOCOL, passed())
        for age, old in enumerate(reversed(list(folder.iterdir()))):
            assert age < 2, f"{old} is one too many"
        for each in folder.iterdir():  # all of them are of yesterday now: only a use makes one younger
            os.utime(each, (each.stat().st_mtime - 86400 + place,) * 2)
        assert at(folder).get(names[0], PROTOCOL) is not None, "used each time"
    assert at(folder).get(names[3], PROTOCOL) is not None
    assert len(list(folder.iterdir())) == 2


def test_outputs_that_left_memory_come_back_from_the_folder(tmp_path: Path) -> None:
    known = at(tmp_path, memory=500)
    for name in (RECIPE, OTHER):
        known.keep(name, PROTOCOL, passed(torch.ones(6, 16)))
    assert known.get(RECIPE, PROTOCOL, outputs=True) is not None


def test_several_threads_may_share_it(tmp_path: Path) -> None:
    known = at(tmp_path, memory=5000)
    names = [digest_of_bytes(b"%d" % place) for place in range(40)]

    def work(place: int) -> bool:
        known.keep(names[place], PROTOCOL, passed(torch.full((6, 8), float(place))))
        found = known.get(names[place], PROTOCOL, outputs=True)
        return found is not None and found.outputs is not None and bool((found.outputs == place).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".writing-dead").write_bytes(b"half of it")
    with writing(tmp_path) as alive:
        at(tmp_path)
        assert list(tmp_path.iterdir()) == [alive.path]


def test_outputs_have_a_limit_on_disk_although_nobody_set_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(tmp_path / "one").keep(RECIPE, PROTOCOL, passed())
    (file,) = (tmp_path / "one").iterdir()
    monkeypatch.setattr(shelves, "LIMIT", 2 * file.stat().st_size)
    said: list[str] = []
    known = at(tmp_path / "many", say=said.append)
    for number in range(5):
        known.keep(digest_of_bytes(b"%d" % number), PROTOCOL, passed())
        assert len(said) == (number >= 2), "once, when the limit is reached"
    assert len(list((tmp_path / "many").iterdir())) == 2
    assert str(tmp_path / "many") in said[0]
    assert f"{2 * file.stat().st_size / 1e9:.3g} GB" in said[0]
    assert "STOCKPOT_CACHE_LIMIT" in said[0]


def test_an_address_keeps_its_limit_and_what_was_written_last(monkeypatch: pytest.MonkeyPatch) -> None:
    place, listed = f"memory://{uuid4().hex}", []
    at(f"{place}/one").keep(RECIPE, PROTOCOL, passed())
    size = MemoryFileSystem().size(files_of(f"{place}/one")[0])
    ls = MemoryFileSystem.ls
    MemoryFileSystem().pipe_file(f"{place}/many/theirs.safetensors", bytes(1000 * size))

    def counted(files: MemoryFileSystem, path: str, **more: Any) -> Any:
        listed.append(path)
        return ls(files, path, **more)

    monkeypatch.setattr(MemoryFileSystem, "ls", counted)
    said: list[str] = []
    known = at(f"{place}/many", limit=20 * size, say=said.append)
    names = [digest_of_bytes(b"%d" % number) for number in range(60)]
    for name in names:
        known.keep(name, PROTOCOL, passed())
    asked = len(listed)
    assert asked <= len(names) / 2, "not at each write"
    left = [name for name in names if at(f"{place}/many").get(name, PROTOCOL)]
    assert left == names[-len(left) :]
    assert 18 <= len(left) <= 20
    assert f"{place}/many/theirs.safetensors".removeprefix("memory:/") in files_of(f"{place}/many")
    (told,) = said
    assert "STOCKPOT_CACHE_LIMIT" in told
    MemoryFileSystem().rm(place, recursive=True)


def test_an_address_keeps_its_limit_where_several_write_but_for_a_tenth_each() -> None:
    place = f"memory://{uuid4().hex}"
    writers = [shelf_at(place, limit=2000) for _ in range(3)]
    for number in range(90):
        writers[number % 3].write(f"{number:064x}", bytes(100))
        assert len(files_of(place)) <= 20 + 3 * 2, number
    MemoryFileSystem().rm(place, recursive=True)


def test_a_limit_below_one_pass_keeps_the_newest(place: str) -> None:
    for name in (RECIPE, OTHER):
        at(place, limit=10).keep(name, PROTOCOL, passed())
    assert at(place).get(RECIPE, PROTOCOL) is None
    assert at(place).get(OTHER, PROTOCOL) is not None


def test_what_nobody_used_since_goes_on_request_and_nothing_of_others(place: str) -> None:
    at(place).keep(RECIPE, PROTOCOL, passed())
    files, root = fsspec.core.url_to_fs(place)
    files.pipe_file(f"{root}/theirs.safetensors", b"theirs")
    now = time.time()
    assert shelves.remove_unused(place, now - 1000, really=True) == []
    (size,) = shelves.remove_unused(place, now + 1000, really=False)
    assert at(place).get(RECIPE, PROTOCOL) is not None
    assert shelves.remove_unused(place, now + 1000, really=True) == [size]
    assert at(place).get(RECIPE, PROTOCOL) is None
    assert [Path(file).name for file in files_of(place)] == ["theirs.safetensors"]
    assert shelves.remove_unused(place, now + 1000, really=True) == []


@pytest.mark.parametrize(
    ("when", "seconds"),
    [
        (5.5, 5.5),
        (datetime(1970, 1, 1, 0, 1, tzinfo=UTC), 60.0),
        (datetime(1970, 1, 1, 0, 1), 60.0),  # noqa: DTZ001 - as some filesystems tell it
        ("1970-01-01T00:01:00Z", 60.0),
        ("yesterday", math.inf),
        (None, math.inf),
    ],
)
def test_times_are_read_as_filesystems_tell_them_and_what_cannot_be_read_is_young(
    when: object, seconds: float
) -> None:
    assert shelves._seconds(when) == seconds


class Refusing(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A store that fails as each test says."""

    protocol = "refusing"
    store: dict[str, Any] = {}  # noqa: RUF012 - as fsspec's own
    asked: list[str] = []  # noqa: RUF012 - of all instances
    reading: BaseException | None = None
    writing: BaseException | None = None
    answered = Event()

    def cat_file(self, path: str, **more: Any) -> Any:
        self._refuse("read", Refusing.reading)
        return super().cat_file(path, **more)

    def pipe_file(self, path: str, value: bytes, **more: Any) -> Any:
        self._refuse("write", Refusing.writing)
        return super().pipe_file(path, value, **more)

    def _refuse(self, what: str, why: BaseException | None) -> None:
        Refusing.asked.append(what)
        Refusing.answered.wait()
        if why is not None:
            raise why


class Foreign(Exception):
    """Of a client that has its own errors."""


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> str:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    for name in ("store", "asked", "reading", "writing", "answered"):
        monkeypatch.setattr(Refusing, name, {"store": {}, "asked": [], "answered": Event()}.get(name))
    Refusing.answered.set()
    return "refusing://user:hush@bucket"


@pytest.mark.parametrize(
    "why", [PermissionError("AccessDenied"), OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota")]
)
def test_a_store_that_takes_nothing_is_told_once_and_still_read(refusing: str, why: OSError) -> None:
    at(refusing).keep(RECIPE, PROTOCOL, passed())
    Refusing.asked.clear()
    said: list[str] = []
    Refusing.writing = why
    known = at(refusing, say=said.append)
    for name in (OTHER, PROTOCOL):
        known.keep(name, PROTOCOL, passed())
        assert known.get(name, PROTOCOL) is not None
    assert known.get(RECIPE, PROTOCOL) is not None
    assert Refusing.asked == ["write", "read"]
    (told,) = said
    assert str(why) in told
    assert "bucket" in told
    assert "hush" not in told


@pytest.mark.parametrize(
    "why", [Foreign("hush is no password"), OSError("no route"), FileNotFoundError("gone")]
)
def test_a_store_that_is_away_is_told_once_and_not_asked_again(refusing: str, why: Exception) -> None:
    said: list[str] = []
    known = at(refusing, say=said.append)
    Refusing.reading = Refusing.writing = why
    for name in (RECIPE, OTHER):
        known.keep(name, PROTOCOL, passed())
        assert known.get(name, PROTOCOL) is not None
    assert known.get(PROTOCOL, PROTOCOL) is None
    assert Refusing.asked == ["write"]
    (told,) = said
    assert "STOCKPOT_OUTPUTS" in told
    assert "hush" not in told


def test_a_store_that_goes_away_while_it_is_read_is_not_asked_again(refusing: str) -> None:
    said: list[str] = []
    known = at(refusing, say=said.append)
    Refusing.reading = Foreign("reset by peer")
    for _ in range(2):
        assert known.get(RECIPE, PROTOCOL) is None
    known.keep(RECIPE, PROTOCOL, passed())
    assert Refusing.asked == ["read"]
    assert len(said) == 1


def test_a_store_that_does_not_answer_is_waited_for_once(refusing: str) -> None:
    Refusing.answered.clear()
    said: list[str] = []
    known = RememberedOutputs(AddressShelf(refusing, 1000, seconds=0.01), say=said.append)
    before = time.monotonic()
    for _ in range(2):
        assert known.get(RECIPE, PROTOCOL) is None
    assert time.monotonic() - before < 10
    assert Refusing.asked == ["read"]
    assert len(said) == 1
    assert "no answer" in said[0]
    Refusing.answered.set()


def test_a_disk_that_is_full_is_told_once_and_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(tmp_path).keep(RECIPE, PROTOCOL, passed())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(UnfinishedFile, "put", full)
    said: list[str] = []
    known = at(tmp_path, say=said.append)
    for name in (OTHER, PROTOCOL):
        known.keep(name, PROTOCOL, passed())
    assert known.get(RECIPE, PROTOCOL) is not None
    assert len(list(tmp_path.iterdir())) == 1
    (told,) = said
    assert "No space left" in told


SHARES = """
import sys
import numpy as np
import torch
from stockpot.entities import digest_of_bytes
from stockpot.evaluation.outputs import Remembered, RememberedOutputs
from stockpot.shelves import shelf_at

known, protocol = RememberedOutputs(shelf_at(sys.argv[1], int(sys.argv[2])), say=print), digest_of_bytes(b"p")
print("ready", flush=True)
sys.stdin.readline()
for turn in range(3):
    for number in range(20):
        name = digest_of_bytes(b"%d" % number)
        known.keep(name, protocol, Remembered(np.ones(6), np.ones(6), torch.full((6, 64), float(number))))
        found = RememberedOutputs(shelf_at(sys.argv[1])).get(name, protocol, outputs=True)
        assert found is None or (found.outputs == number).all()
print("done")
"""


@pytest.mark.slow
def test_two_processes_share_a_folder_at_once(tmp_path: Path) -> None:
    pipe, limit = subprocess.PIPE, 10_000
    command = [sys.executable, "-c", SHARES, str(tmp_path / "shared"), str(limit)]
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ends = [process.communicate("\n")[0].splitlines()[-1] for process in both]
    assert ends == ["done", "done"]
    files = list((tmp_path / "shared").iterdir())
    assert 0 < sum(file.stat().st_size for file in files) <= limit


@pytest.mark.parametrize(
    "address", ["nosuch://bucket/prefix", "simplecache::nosuch://bucket", "://x", "s3:/bucket"]
)
def test_an_unknown_protocol_is_refused_at_the_start(
    address: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_OUTPUTS", address)
    request = SoupRequest(model="tiny", sweep="1", task="stockpot.testing.tiny:TinyTask")
    with pytest.raises(BadRequest, match="knows no protocol") as refused:
        Workplace().bench(request)
    assert "export STOCKPOT_OUTPUTS" in refused.value.mend


@pytest.mark.parametrize(
    ("address", "mend"),
    [("s3://key:hush@bucket", "pip install nosuch_s3"), ("sftp://u:hush@host", "pip install 'fsspec[sftp]'")],
)
def test_where_a_protocols_package_is_missing_the_error_says_what_to_install(
    address: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {
        "s3": {"class": "nosuch_s3.S3FileSystem", "err": "Install it"},
        "sftp": {"class": "fsspec.nosuch.SFTPFileSystem", "err": "paramiko is missing"},
    }
    for protocol, implementation in known.items():
        monkeypatch.setitem(known_implementations, protocol, implementation)
    with pytest.raises(BadRequest) as refused:
        shelf_at(address)
    assert refused.value.mend == mend
    assert "hush" not in str(refused.value)


def test_the_setting_names_a_folder_or_an_address(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert Settings().outputs_place == str(home / "cache" / "outputs")
    for told, place in (
        ("~/o", str(Path.home() / "o")),
        ("o", str(Path.cwd() / "o")),
        ("s3://b/p", "s3://b/p"),
    ):
        monkeypatch.setenv("STOCKPOT_OUTPUTS", told)
        assert Settings().outputs_place == place


def test_a_folder_may_be_given_as_an_address(tmp_path: Path) -> None:
    shelf = shelf_at(f"file://{tmp_path}/o")
    assert isinstance(shelf, FolderShelf)
    assert shelf.place == f"{tmp_path}/o"


def test_fsspec_is_imported_for_an_address_alone() -> None:
    code = """if True:
        import sys
        from stockpot.shelves import shelf_at
        shelf_at(sys.argv[1])
        print("fsspec" in sys.modules)"""
    for place, imported in (("/nowhere", "False"), ("memory://x", "True")):
        command = [sys.executable, "-c", code, place]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == imported
