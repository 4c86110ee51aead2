"""A folder below its limit: the least recently used files go first, and none that is in use."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from stockpot.entities import Checkpoint, Digest, Recipe, WeightsFormat
from stockpot.errors import BadCheckpoint, NotCached
from stockpot.soup import CheckpointCache, build, stamp
from stockpot.soup.checkpoint_cache import files_of
from stockpot.soup.eviction import LeastRecentlyUsed

Ingest = Callable[[dict[str, Tensor]], Checkpoint]


def use_in_order(cache: CheckpointCache, digests: list[Digest]) -> None:
    """Use them one after another, at times that a coarse clock tells apart."""
    for second, digest in enumerate(digests):
        clock = cache.path(digest).with_suffix(".stamp")
        os.utime(clock, (second, second))


def limited(cache: CheckpointCache, ingest: Ingest, files: float) -> tuple[CheckpointCache, list[Digest]]:
    """The cache with room for so many files, and four of them in it."""
    digests = [ingest({"w": torch.full((100,), float(i))}).digest for i in range(4)]
    use_in_order(cache, digests)
    size = cache.checkpoint(digests[0]).size
    use_in_order(cache, digests)
    return CheckpointCache(cache.folder, limit=int(files * size)), digests


def add(cache: CheckpointCache, folder: Path) -> Digest:
    save_file({"w": torch.randn(100)}, folder / "new.safetensors")
    return cache.ingest(folder / "new.safetensors", WeightsFormat.SAFETENSORS)[0].digest


def test_what_was_used_least_recently_goes_first(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path
) -> None:
    cache, digests = limited(cache, ingest, 3)
    cache.path(digests[0])  # a use
    new = add(cache, tmp_path)
    assert [cache.has(digest) for digest in (*digests, new)] == [True, False, False, True, True]
    assert len(list(cache.folder.iterdir())) == 6  # their stamps went with them


@pytest.mark.parametrize("links", [True, False], ids=["linked", "copied"])
def test_a_second_name_outlives_the_first(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    digest = ingest({"w": torch.ones(3)}).digest
    cache.link(digest, tmp_path / "second")
    cache.path(digest).unlink()
    assert load_file(tmp_path / "second")["w"].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(NotCached):
        cache.link(digest, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_what_is_not_ours_is_not_evicted(cache: CheckpointCache, ingest: Ingest, tmp_path: Path) -> None:
    small, digests = limited(cache, ingest, 1)
    base, folder = cache.folder / "my-base.safetensors", cache.folder / f"{'0' * 64}.safetensors"
    save_file({"w": torch.ones(3)}, base)
    folder.mkdir()
    new = add(small, tmp_path)
    assert [cache.has(digest) for digest in (*digests, new)] == [False] * 4 + [True]
    assert base.exists()
    assert folder.exists()


def test_what_cannot_be_removed_is_passed_over(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, digests = limited(cache, ingest, 3)
    theirs, unlink = cache.path(digests[0]), Path.unlink
    use_in_order(cache, digests)

    def refused(path: Path, *, missing_ok: bool = False) -> None:  # as in a folder of several users
        if path == theirs:
            raise PermissionError(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    new = add(small, tmp_path)
    assert [cache.has(digest) for digest in (*digests, new)] == [True, False, False, True, True]


def test_to_look_whether_it_is_there_is_no_use(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path
) -> None:
    cache, digests = limited(cache, ingest, 4)
    assert cache.has(digests[0])
    add(cache, tmp_path)
    assert [cache.has(digest) for digest in digests] == [False, True, True, True]


def test_without_a_limit_everything_stays(cache: CheckpointCache, ingest: Ingest, tmp_path: Path) -> None:
    digests = [add(cache, tmp_path) for _ in range(5)]
    assert all(map(cache.has, digests))


def test_what_is_open_or_pinned_or_just_written_stays(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path
) -> None:
    cache, digests = limited(cache, ingest, 1)
    elsewhere = CheckpointCache(cache.folder)  # another view of the same folder, in the same process
    with elsewhere.open(digests[0]), elsewhere.open(digests[0]), cache.pinned([digests[1]]):
        new = add(cache, tmp_path)
        assert [cache.has(digest) for digest in (*digests, new)] == [True, True, False, False, True]
    last = add(cache, tmp_path)
    assert [cache.has(digest) for digest in (*digests, new, last)] == [False] * 5 + [True]


def test_a_soup_never_evicts_its_own_ingredients(cache: CheckpointCache, ingest: Ingest) -> None:
    cache, digests = limited(cache, ingest, 2)
    soup = build(Recipe.mean(digests), cache)
    assert all(map(cache.has, (*digests, soup.digest)))


def test_room_is_made_before_it_is_needed(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, digests = limited(cache, ingest, 4)
    seen = []
    keep = CheckpointCache.keep

    def look(*arguments: object) -> Checkpoint:
        seen.append([cache.has(digest) for digest in digests])
        return keep(*arguments)  # type: ignore[arg-type] # passed on as they are

    monkeypatch.setattr(CheckpointCache, "keep", look)
    add(cache, tmp_path)
    assert seen == [[False, True, True, True]]


def test_what_was_evicted_is_absent_as_if_it_had_never_been_there(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path
) -> None:
    cache, digests = limited(cache, ingest, 1)
    assert cache.has(digests[0])
    add(cache, tmp_path)
    with pytest.raises(BadCheckpoint, match="not in the cache") as caught, cache.open(digests[0]):
        pass
    assert "downloads" in caught.value.mend


def test_a_file_that_is_open_elsewhere_is_read_to_its_end(cache: CheckpointCache, ingest: Ingest) -> None:
    tensor = torch.randn(1000)
    digest = ingest({"w": tensor}).digest
    with cache.open(digest) as weights:
        (cache.folder / f"{digest.removeprefix('sha256:')}.safetensors").unlink()
        assert torch.equal(weights.read("w"), tensor)


def test_a_file_that_another_process_evicts_while_it_is_opened_is_read_all_the_same(
    cache: CheckpointCache, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = torch.randn(1000)
    digest = ingest({"w": tensor}).digest

    def evicted(file: Path, _: os.stat_result) -> bool:
        for path in (file, file.with_suffix(stamp.SUFFIX)):
            path.unlink()
        return True

    monkeypatch.setattr(stamp, "is_stamped", evicted)
    with cache.open(digest) as weights:
        assert torch.equal(weights.read("w"), tensor)


@given(
    uses=st.lists(st.integers(0, 9), max_size=30),
    sizes=st.lists(st.integers(0, 50), min_size=10, max_size=10),
    limit=st.integers(0, 300),
    room=st.integers(0, 100),
)
def test_no_more_is_removed_than_must_be(
    tmp_path_factory: pytest.TempPathFactory, uses: list[int], sizes: list[int], limit: int, room: int
) -> None:
    folder = tmp_path_factory.mktemp("outputs")
    order = sorted(range(10), key=lambda i: max((n for n, used in enumerate(uses) if used == i), default=-1))
    for second, i in enumerate(order):
        file = folder / f"{i:064x}.outputs"
        file.write_bytes(bytes(sizes[i]))
        os.utime(file, (second, second))
    (folder / "unrelated").write_bytes(bytes(1000))
    LeastRecentlyUsed(folder, ".outputs", limit).evict(room=room)
    left = {int(file.stem, 16) for file in folder.glob("*.outputs")}
    cut = len(order) - len(left)
    gone = [i for i in order if i not in left]
    assert gone == order[:cut]
    assert sum(sizes[i] for i in left) + room <= limit or not left
    if gone:
        assert sum(sizes[i] for i in order[cut - 1 :]) + room > limit
    assert (folder / "unrelated").exists()


CROWD = """
import random, sys
from pathlib import Path
from stockpot.entities import WeightsFormat
from stockpot.errors import NotCached
from stockpot.soup import CheckpointCache
import stockpot.soup.arithmetic

folder, limit, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache, files = CheckpointCache(folder / "cache", limit), sorted(folder.glob("*.logged"))
print("ready", flush=True)
sys.stdin.readline()
for file in random.Random(seed).choices(files, k=20):
    checkpoint = cache.ingest(file, WeightsFormat.SAFETENSORS)[0]
    assert [spec.name for spec in checkpoint.tensors] == ["w"]
    try:
        with cache.open(checkpoint.digest) as weights:
            assert weights.read("w").tolist() == [float(file.stem)] * 100
    except NotCached:
        pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 3])
def test_processes_that_evict_at_once_disturb_nobody(
    cache: CheckpointCache, tmp_path: Path, limit: int
) -> None:
    for i in range(8):
        save_file({"w": torch.full((100,), float(i))}, tmp_path / f"{i}.logged")
    size = cache.ingest(tmp_path / "0.logged", WeightsFormat.SAFETENSORS)[0].size
    pipe = subprocess.PIPE
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, tmp_path, str(limit * size), str(seed)],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for seed in range(3)
    ]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    assert [process.communicate()[1] for process in crowd] == [""] * 3
    last = add(CheckpointCache(cache.folder, limit * size), tmp_path)
    left = list(cache.folder.glob("*.safetensors"))
    assert sum(file.stat().st_size for file in left) <= limit * size
    for file in left:
        cache.path(Digest(f"sha256:{file.stem}"))
    assert cache.has(last)


def test_what_nobody_used_since_goes_on_request_unless_it_is_pinned(
    cache: CheckpointCache, ingest: Ingest
) -> None:
    digests = [ingest({"w": torch.full((100,), float(i))}).digest for i in range(3)]
    use_in_order(cache, digests)
    (cache.folder / "theirs.safetensors").write_bytes(b"theirs")
    size = cache.folder.joinpath(f"{digests[0].removeprefix('sha256:')}.safetensors").stat().st_size
    files = files_of(cache.folder)
    assert files.remove_unused(1.5, really=False) == [size, size]
    assert files.held() == (3, 3 * size)
    with cache.pinned([digests[0]]):
        assert files.remove_unused(1.5, really=True) == [size]
    assert [cache.has(digest) for digest in digests] == [True, False, True]
    assert files.remove_unused(1.5, really=True) == [size]
    left = sorted(path.suffix for path in cache.folder.iterdir())
    assert left == [".safetensors", ".safetensors", ".stamp"], "theirs, and one of ours with its stamp"
