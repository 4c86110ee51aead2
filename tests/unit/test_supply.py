"""Weights by digest: downloaded once, whoever asks, and again where the cache let them go."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Digest,
    OverlayRule,
    Recipe,
    SweepSelector,
    WeightsFormat,
    WeightsSource,
    digest_of_bytes,
)
from stockpot.errors import Altered, BadCheckpoint, StockpotError, TrackingError
from stockpot.soup import CheckpointCache, stamp
from stockpot.soup.overlay import Overlay
from stockpot.soup.weights_file import WeightsFile
from stockpot.store import MemoryStore
from stockpot.testing.crashes import Crash
from stockpot.testing.tiny import weights
from stockpot.tracking import MemoryTracker
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.gathering.workrooms import workroom

SECONDS = 20
"""After which a thread that waits is taken to hang."""


class SlowTracker(MemoryTracker):
    """Tells when a download begins, and ends it when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.began, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()
        self.before_the_end: Callable[[], None] = lambda: None

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        self.fetched.append(source.run_id)
        self.began.set()
        assert self.may_end.wait(SECONDS)
        self.before_the_end()
        return super().fetch(source, into)


class Kitchen:
    """A supply over a tracker, a store and a cache that can be emptied."""

    def __init__(
        self, folder: Path, cache: type[CheckpointCache] = CheckpointCache, limit: int | None = None
    ) -> None:
        self.tracker, self.store, self.cache = SlowTracker(), MemoryStore(), cache(folder, limit)
        self.said: list[str] = []
        self.supply = Supply(self.tracker, self.store, self.cache, self.said.append)
        self._experiment = self.tracker.add_experiment("e")

    def known(self, seed: int = 0) -> Digest:
        """A checkpoint that was read before, and is no longer in the cache."""
        run_id = self.tracker.add_run(self._experiment, f"tune-{seed}")
        self.tracker.add_file(run_id, "model.safetensors", save(weights("dense", seed=seed)))
        (run,) = (r for r in self.tracker.runs(SweepSelector(experiment="e")) if r.run_id == run_id)
        (source,) = self.tracker.weights(run)
        found = self.supply.ingest(source)
        assert found is not None
        assert found.checkpoint is not None
        self.supply.offer([Candidate(run, source, found.sha256, found.checkpoint)])
        self.cache.path(found.checkpoint.digest).unlink()
        self.tracker.fetched.clear()
        return found.checkpoint.digest


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def test_what_is_missing_is_downloaded_when_it_is_opened(kitchen: Kitchen) -> None:
    digest = kitchen.known()
    for _ in range(2):
        with kitchen.supply.open(digest) as file:
            assert {spec.name for spec in file.tensors} == set(weights("dense"))
    assert len(kitchen.tracker.fetched) == 1


def test_coefficients_that_were_evicted_are_made_again_of_weights_that_are_fetched(kitchen: Kitchen) -> None:
    *models, base = (kitchen.known(seed) for seed in range(3))
    digest = kitchen.supply.model_stock(models, base)
    with kitchen.supply.open(digest) as file:
        assert {(spec.name, spec.dtype, spec.shape) for spec in file.tensors} == {
            (name, "F64", (3,)) for name in weights("dense")
        }
    for held in (digest, *models):
        kitchen.cache.path(held).unlink()
    kitchen.tracker.fetched.clear()
    recipe = Recipe.by_tensor([*models, base], digest)
    built = kitchen.supply.build(recipe)
    assert len(kitchen.tracker.fetched) == 2, "the models: the base was here"
    kitchen.cache.path(digest).unlink()
    assert kitchen.supply.build(recipe) == built


def test_coefficients_that_lie_beside_a_version_are_asked_for_once(kitchen: Kitchen) -> None:
    *models, base = (kitchen.known(seed) for seed in range(3))
    digest = kitchen.supply.model_stock(models, base)
    content, asked = kitchen.supply.content(digest), []
    other = Supply(kitchen.tracker, kitchen.store, CheckpointCache(kitchen.cache.folder / "other"))

    def read() -> bytes:
        asked.append(digest)
        return content

    other.offer_content(digest, read)
    assert [other.content(digest) for _ in range(2)] == [content] * 2
    assert len(asked) == 1
    another = Recipe.mean([base]).digest
    other.offer_content(another, read)
    with pytest.raises(BadCheckpoint, match=f"{another} is wanted, and made again it is {digest}"):
        other.content(another)


def test_what_several_want_at_once_is_downloaded_once(kitchen: Kitchen) -> None:
    digest = kitchen.known()
    kitchen.tracker.may_end.clear()
    waiting = threading.Barrier(5)

    def size() -> int:
        waiting.wait(SECONDS)
        with kitchen.supply.open(digest) as file:
            return file.file.size

    with ThreadPoolExecutor(4) as pool:
        sizes = [pool.submit(size) for _ in range(4)]
        waiting.wait(SECONDS)
        assert kitchen.tracker.began.wait(SECONDS)
        kitchen.tracker.may_end.set()
        assert len({told.result(SECONDS) for told in sizes}) == 1
    assert len(kitchen.tracker.fetched) == 1


def test_who_opens_a_checkpoint_waits_for_its_prefetch(kitchen: Kitchen) -> None:
    digest = kitchen.known()
    kitchen.tracker.may_end.clear()
    kitchen.supply.prefetch(digest)
    assert kitchen.tracker.began.wait(SECONDS)
    threading.Timer(0.05, kitchen.tracker.may_end.set).start()
    with kitchen.supply.open(digest) as file:
        assert file.tensors
    assert len(kitchen.tracker.fetched) == 1


def test_prefetching_is_bounded_and_never_raises(kitchen: Kitchen) -> None:
    digests = [kitchen.known(seed) for seed in range(6)]
    kitchen.tracker.may_end.clear()
    for digest in digests:
        kitchen.supply.prefetch(digest)
    kitchen.supply.prefetch(Digest("sha256:" + "0" * 64))
    assert kitchen.tracker.began.wait(SECONDS)
    kitchen.tracker.may_end.set()
    with kitchen.supply.open(digests[0]), kitchen.supply.open(digests[1]):
        assert len(kitchen.tracker.fetched) == 2


def test_a_prefetch_that_fails_is_tried_again_by_who_needs_it(kitchen: Kitchen) -> None:
    digest = kitchen.known()
    failed = threading.Event()

    def fail() -> None:
        kitchen.tracker.before_the_end = lambda: None
        failed.set()
        raise TrackingError("down")

    kitchen.tracker.before_the_end = fail
    kitchen.supply.prefetch(digest)
    assert failed.wait(SECONDS)
    try:
        with kitchen.supply.open(digest):
            pass
    except TrackingError:  # it still waited for the one that failed
        pass
    with kitchen.supply.open(digest) as file:
        assert file.tensors


class ForgetfulCache(CheckpointCache):
    """Lets a checkpoint go just before it is opened, as another process may, so many times."""

    times = 0

    @contextmanager
    def open(self, digest: Digest) -> Iterator[WeightsFile]:
        if self.times:
            self.times -= 1
            self._path(digest).unlink()
        with super().open(digest) as file:
            yield file

    def checkpoint(self, digest: Digest) -> Checkpoint:
        times, self.times = self.times, 0  # not while it is being written
        try:
            return super().checkpoint(digest)
        finally:
            self.times = times


def test_what_the_cache_evicts_before_it_is_opened_is_downloaded_again(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path, ForgetfulCache)
    digest = kitchen.known()
    kitchen.cache.times = 2  # type: ignore[attr-defined]  # a ForgetfulCache
    with kitchen.supply.open(digest) as file:
        assert file.tensors
    assert len(kitchen.tracker.fetched) == 3


class CrowdedCache(CheckpointCache):
    """Just before a checkpoint is opened, another thread of this process brings one of its own."""

    other: Path | None = None

    @contextmanager
    def open(self, digest: Digest) -> Iterator[WeightsFile]:
        if self.other:
            self.ingest(self.other, WeightsFormat.SAFETENSORS)
        with super().open(digest) as file:
            yield file


def test_what_one_thread_is_about_to_open_no_other_evicts(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(save(weights("dense", seed=1)))
    kitchen = Kitchen(tmp_path / "cache", CrowdedCache, limit=other.stat().st_size)
    digest = kitchen.known()
    kitchen.cache.other = other  # type: ignore[attr-defined]  # a CrowdedCache
    with kitchen.supply.open(digest) as file:
        assert file.tensors
    assert len(kitchen.tracker.fetched) == 1


def test_a_cache_that_keeps_nothing_is_told_and_not_fed_for_ever(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path, ForgetfulCache)
    digest = kitchen.known()
    kitchen.cache.times = 99  # type: ignore[attr-defined]  # a ForgetfulCache
    with pytest.raises(BadCheckpoint, match="not in the cache"), kitchen.supply.open(digest):
        pass


def test_an_artifact_that_was_replaced_is_told_by_who_opens_it(kitchen: Kitchen) -> None:
    digest = kitchen.known()
    kitchen.tracker.add_file("run-0", "model.safetensors", save(weights("dense", seed=9)))
    with pytest.raises(BadCheckpoint, match="is not what it was"), kitchen.supply.open(digest):
        pass


def test_after_that_it_is_read_as_it_is_now(kitchen: Kitchen) -> None:
    digest = kitchen.known()
    (run,) = kitchen.tracker.runs(SweepSelector(experiment="e"))
    kitchen.tracker.add_file("run-0", "model.safetensors", save(weights("dense", seed=9)))
    (source,) = kitchen.tracker.weights(run)
    with pytest.raises(BadCheckpoint, match="is not what it was"), kitchen.supply.open(digest):
        pass
    now = kitchen.supply.ingest(source)
    assert now is not None
    assert now.checkpoint is not None
    assert now.checkpoint.digest != digest


def test_an_artifact_of_another_size_is_read_anew(kitchen: Kitchen) -> None:
    digest = kitchen.known()
    (run,) = kitchen.tracker.runs(SweepSelector(experiment="e"))
    kitchen.tracker.add_file("run-0", "model.safetensors", save(weights("conv")))
    (source,) = kitchen.tracker.weights(run)
    now = kitchen.supply.ingest(source)
    assert now is not None
    assert now.checkpoint is not None
    assert now.checkpoint.digest != digest
    assert len(kitchen.tracker.fetched) == 1


def test_an_ingredient_that_was_altered_is_downloaded_again_before_a_build(kitchen: Kitchen) -> None:
    digests = [kitchen.known(seed) for seed in range(2)]
    expected = kitchen.supply.build(Recipe.mean(digests))
    with kitchen.supply.open(digests[1]) as file:
        path, content = file.file.path, file.file.path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert kitchen.supply.build(Recipe.mean(digests)) == expected
    (said,) = kitchen.said
    assert "altered on disk" in said


@pytest.mark.parametrize("interruption", [TrackingError("down"), Crash("killed")])
def test_an_interrupted_download_leaves_nothing_and_is_begun_again(
    kitchen: Kitchen, tmp_path: Path, interruption: BaseException
) -> None:
    digest = kitchen.known()

    def interrupt() -> None:
        kitchen.tracker.before_the_end = lambda: None
        raise interruption

    kitchen.tracker.before_the_end = interrupt
    with pytest.raises(type(interruption)), kitchen.supply.open(digest):
        pass
    assert [path for path in tmp_path.iterdir() if path.suffix != ".stamp"] == []
    with kitchen.supply.open(digest) as file:
        assert file.tensors


@pytest.mark.parametrize("prefix", [".fetch-", ".package-"])
def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path: Path, prefix: str) -> None:
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from stockpot.workflow.gathering.workrooms import workroom
        with workroom(Path(sys.argv[1]), sys.argv[2]) as folder:
            (folder / "model.safetensors").write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)"""
    subprocess.run([sys.executable, "-c", code, tmp_path, prefix], check=False)
    assert [folder.name.startswith(prefix) for folder in tmp_path.iterdir()] == [True]
    Kitchen(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("age", [0, 2 * 24 * 3600])
def test_where_there_are_no_locks_a_folder_is_removed_when_it_is_a_day_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int
) -> None:
    folder = tmp_path / ".fetch-x"
    folder.mkdir()
    os.utime(folder, (time.time() - age,) * 2)

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("stockpot.workflow.gathering.workrooms.fcntl.flock", none)
    Kitchen(tmp_path)
    assert folder.exists() == (age == 0)


def test_a_folder_that_another_process_removes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    seen: list[Path] = []

    def late(descriptor: int, how: int) -> None:
        if not seen:
            seen.extend(tmp_path.iterdir())
            seen[0].rmdir()
        lock(descriptor, how)

    monkeypatch.setattr("stockpot.workflow.gathering.workrooms.fcntl.flock", late)
    with workroom(tmp_path, ".fetch-") as folder:
        assert folder.is_dir()
        assert folder not in seen


@pytest.mark.parametrize(
    ("code", "mend"),
    [(errno.ENOSPC, "STOCKPOT_CACHE"), (errno.EROFS, "STOCKPOT_CACHE"), (errno.EMFILE, "ulimit -n")],
)
def test_a_disk_that_refuses_is_told_with_the_folder_and_its_variable(
    kitchen: Kitchen, code: int, mend: str
) -> None:
    digest = kitchen.known()

    def refuse() -> None:
        raise OSError(code, os.strerror(code))

    kitchen.tracker.before_the_end = refuse
    with pytest.raises(StockpotError, match=os.strerror(code)) as caught, kitchen.supply.open(digest):
        pass
    assert str(kitchen.cache.folder) in caught.value.what
    assert mend in caught.value.mend


@pytest.mark.parametrize("files", [0.5, 2.5, 3.5])
def test_a_soup_is_built_in_a_cache_that_is_smaller_than_its_ingredients(
    tmp_path: Path, files: float
) -> None:
    kitchen = Kitchen(tmp_path)
    digests = [kitchen.known(seed) for seed in range(4)]
    with kitchen.supply.open(digests[0]) as file:
        size = file.file.size
    small = Kitchen(tmp_path / "small", limit=int(files * size))
    digests = [small.known(seed) for seed in range(4)]
    built = small.supply.build(Recipe.mean(digests))
    assert built == kitchen.supply.build(Recipe.mean(digests))
    assert len(small.tracker.fetched) == len(digests), "each once"


def test_a_file_that_was_altered_is_said_and_downloaded_again(kitchen: Kitchen) -> None:
    digest = kitchen.known()
    with kitchen.supply.open(digest) as file:
        path, content = file.file.path, file.file.path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with kitchen.supply.open(digest) as file:
        assert file.file.path.read_bytes() == content
    (said,) = kitchen.said
    assert "altered on disk" in said
    assert digest in said


def test_nothing_is_made_of_what_rotted_unnoticed_until_it_was_built(kitchen: Kitchen) -> None:
    digests = [kitchen.known(seed) for seed in range(2)]
    for digest in digests:
        with kitchen.supply.open(digest) as file:
            path = file.file.path
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    stamp.stamp(path, path.stat())  # as it would be, had nothing but the disk changed it
    with pytest.raises(Altered, match="perhaps before it was measured") as caught:
        kitchen.supply.build(Recipe.mean(digests))
    assert digests[1] in caught.value.faults[0]
    assert "--verify-exact" in caught.value.mend
    assert not path.exists()
    assert kitchen.supply.build(Recipe.mean(digests)).tensors  # of what was downloaded again


@pytest.mark.parametrize("used", [True, False])
def test_a_folder_is_removed_unless_somebody_still_uploads_from_it(kitchen: Kitchen, *, used: bool) -> None:
    digests = [kitchen.known(seed) for seed in range(2)]
    with kitchen.supply.building(Recipe.mean(digests)) as (_, file):
        folder = file.parent
        if not used:  # as whoever was killed leaves it
            folder = shutil.copytree(folder, folder.with_name(".package-of-a-killed-process"))
        Supply(kitchen.tracker, kitchen.store, kitchen.cache)
        assert folder.exists() == used


def test_another_users_folder_in_a_shared_cache_is_left_alone(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = kitchen.cache.folder / ".package-of-another-user"
    theirs.mkdir(mode=0)
    os.utime(theirs, (0, 0))

    def refused(path: Path, *_: object) -> int:  # as to anybody but root
        raise PermissionError(path)

    monkeypatch.setattr("stockpot.workflow.gathering.workrooms.os.open", refused)
    Supply(kitchen.tracker, kitchen.store, kitchen.cache)
    assert theirs.exists()


def test_what_is_laid_over_a_soup_is_what_is_handed_in_and_else_the_stores(tmp_path: Path) -> None:
    kitchen = Kitchen(tmp_path)
    rule = OverlayRule("train", 4, "bn/1", digest_of_bytes(b"data"))
    soup = replace(Recipe.mean([kitchen.known(1), kitchen.known(2)]), overlay=rule)
    name, tensor = next((n, t) for n, t in weights("dense").items() if t.is_floating_point())
    ours, theirs = (Overlay.of({name: tensor + by}) for by in (1, 2))
    kitchen.store.resolve_overlay(soup, ours.content)
    assert kitchen.supply.build(soup) == kitchen.supply.build(soup, overlay=ours)
    with kitchen.supply.building(soup, theirs) as (built, file):
        assert load_file(file)[name].equal(tensor + 2), "as a version of another store has it"
    assert built != kitchen.supply.build(soup)
