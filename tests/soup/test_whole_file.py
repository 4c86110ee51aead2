"""Whatever happens to the process that writes a file, it appears whole or not at all."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stockpot.entities import Checkpoint, Recipe
from stockpot.errors import StockpotError
from stockpot.soup import CheckpointCache, build
from stockpot.soup.one_pass import OnePass
from stockpot.soup.weights_file import Place
from stockpot.soup.whole_file import UnfinishedFile, writing

Ingest = Callable[[dict[str, Tensor]], Checkpoint]
Kept = Callable[[], list[str]]

BUILDS_UNTIL_KILLED = """
import sys, threading
from pathlib import Path
from stockpot.entities import Recipe
from stockpot.soup import CheckpointCache, build
from stockpot.soup.one_pass import OnePass

put = OnePass._put
def told(average, number, part, content):
    put(average, number, part, content)
    if number == 3:
        print("in the middle", flush=True)
        threading.Event().wait()

OnePass._put = told
build(Recipe.mean(sys.argv[2:]), CheckpointCache(Path(sys.argv[1])))
"""


def test_what_a_killed_build_left_is_removed_by_the_next_process_and_not_before(
    cache: CheckpointCache, ingest: Ingest, kept: Kept
) -> None:
    digests = [ingest({"w": torch.randn(2_000_000)}).digest for _ in range(2)]
    command = [sys.executable, "-c", BUILDS_UNTIL_KILLED, str(cache.folder), *digests]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "in the middle\n"
        CheckpointCache(cache.folder)
        assert len(kept()) == 3  # its writer lives
        builder.kill()
        builder.wait()
        assert len(kept()) == 3
    CheckpointCache(cache.folder)
    assert len(kept()) == 2
    soup = build(Recipe.mean(digests), cache)
    assert len(kept()) == 3
    assert cache.has(soup.digest)


def test_a_long_lived_process_cleans_up_when_it_writes(
    cache: CheckpointCache, ingest: Ingest, kept: Kept
) -> None:
    (cache.folder / ".writing-of-a-process-that-is-gone").write_bytes(b"half")
    ingest({"w": torch.ones(3)})
    assert len(kept()) == 1


def test_what_is_being_written_here_is_no_leftover(cache: CheckpointCache, kept: Kept) -> None:
    with writing(cache.folder) as file:
        CheckpointCache(cache.folder)
        assert kept() == [file.path.name]
    assert kept() == []


def test_an_interrupt_stops_all_workers_and_leaves_nothing_behind(
    cache: CheckpointCache,
    ingest: Ingest,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
    press_control_c: Callable[[], None],
) -> None:
    digests = [ingest({"w": torch.randn(8_000_000)}).digest for _ in range(2)]
    put = OnePass._put
    begun = []

    def interrupted(average: OnePass, number: int, part: Place, content: memoryview) -> None:
        begun.append(number)
        if number == 2:
            press_control_c()
        while number >= 2 and not average._stopped:
            time.sleep(0.001)
        put(average, number, part, content)

    monkeypatch.setattr(OnePass, "_put", interrupted)
    threads = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        build(Recipe.mean(digests), cache)
    assert len(begun) <= 2 + (os.cpu_count() or 1)  # of 31 parts
    assert set(threading.enumerate()) <= threads
    assert len(kept()) == 2


@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "Input/output error"), RuntimeError("no flush")])
def test_the_disk_takes_what_is_there_while_the_rest_is_averaged(
    cache: CheckpointCache,
    ingest: Ingest,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
) -> None:
    digests = [ingest({"w": torch.randn(6_000_000)}).digest for _ in range(2)]
    put, flush, flushed = OnePass._put, UnfinishedFile.flush, threading.Event()

    def late(average: OnePass, number: int, part: Place, content: memoryview) -> None:
        assert number < 20 or flushed.wait(60)  # of 22 parts
        put(average, number, part, content)

    def watched(file: UnfinishedFile) -> None:
        assert os.fstat(file.descriptor).st_size > 1 << 23
        flush(file)
        flushed.set()
        if error:
            raise error

    monkeypatch.setattr(OnePass, "_put", late)
    monkeypatch.setattr(UnfinishedFile, "flush", watched)
    threads = set(threading.enumerate())
    if error is None:
        assert cache.has(build(Recipe.mean(digests), cache).digest)
    else:  # what the disk tells then, it would not tell again at the end
        expected = StockpotError if isinstance(error, OSError) else RuntimeError
        with pytest.raises(expected, match=f"{error.args[-1]}"):
            build(Recipe.mean(digests), cache)
        assert len(kept()) == 2
    assert set(threading.enumerate()) <= threads


def test_a_file_gets_its_name_only_when_the_disk_has_it(
    cache: CheckpointCache, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        calls.append("folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        calls.append("name")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    ingest({"w": torch.ones(3)})
    assert calls == ["file", "name", "folder"]
