"""A cached file that was altered on disk is noticed, removed, and downloaded again."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stockpot.entities import Checkpoint, Digest, Recipe
from stockpot.errors import BadCheckpoint
from stockpot.soup import CheckpointCache, averaged_tensors, build, one_pass, stamp
from stockpot.soup.weights_file import RegularFile

Ingest = Callable[[dict[str, Tensor]], Checkpoint]
Kept = Callable[[], list[str]]


def alter(file: Path, offset: int = -1) -> None:
    """Another byte, the same size, and the time of modification put back."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def vouch_for(file: Path) -> None:
    """As if the bytes had rotted under the file system."""
    stamp.stamp(file, file.stat())


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read in full for their digest, as it happens."""
    names: list[str] = []
    sha256 = RegularFile.sha256

    def noted(file: RegularFile) -> str:
        names.append(file.path.name)
        return sha256(file)

    monkeypatch.setattr(RegularFile, "sha256", noted)
    return names


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def replace(file: Path) -> None:
    other = file.with_suffix(".other")
    other.write_bytes(file.read_bytes())
    alter(other)
    other.replace(file)


@pytest.mark.parametrize(
    "spoil", [alter, lambda file: alter(file, 0), lambda file: alter(file, 20), truncate, replace]
)
@pytest.mark.parametrize("use", ["open", "path", "checkpoint", "average"])
def test_an_altered_file_is_refused_and_removed(
    cache: CheckpointCache, ingest: Ingest, kept: Kept, spoil: Callable[[Path], None], use: str
) -> None:
    tensors = {"w": torch.randn(100)}
    digest = ingest(tensors).digest
    spoil(cache.folder / f"{digest.removeprefix('sha256:')}.safetensors")
    ways: dict[str, Callable[[], object]] = {
        "open": cache.open(digest).__enter__,
        "path": lambda: cache.path(digest),
        "checkpoint": lambda: cache.checkpoint(digest),
        "average": lambda: list(averaged_tensors(Recipe.mean([digest]), cache)),
    }
    with pytest.raises(BadCheckpoint, match="altered on disk") as caught:
        ways[use]()
    assert digest in str(caught.value)
    assert str(cache.folder) in str(caught.value)
    assert "downloads" in caught.value.mend
    assert not cache.has(digest)
    assert kept() == []
    assert ingest(tensors).digest == digest
    cache.path(digest)


def test_an_unaltered_file_is_never_hashed_again(
    cache: CheckpointCache, ingest: Ingest, hashed: list[str]
) -> None:
    digests = [ingest({"w": torch.randn(100)}).digest for _ in range(2)]
    soup = build(Recipe.mean(digests), cache).digest
    hashed.clear()
    for _ in range(2):
        for digest in (*digests, soup):
            cache.path(digest)
    assert hashed == []


def test_a_file_that_only_looks_different_is_hashed_once_and_then_trusted(
    cache: CheckpointCache, ingest: Ingest, hashed: list[str]
) -> None:
    path = cache.path(ingest({"w": torch.randn(100)}).digest)
    digest = Digest(f"sha256:{path.stem}")
    for look_different in (
        lambda: os.utime(path),
        lambda: path.chmod(0o600),
        lambda: path.with_suffix(stamp.SUFFIX).unlink(),
        lambda: path.with_suffix(stamp.SUFFIX).write_bytes(b"\xff torn"),
    ):
        look_different()
        hashed.clear()
        assert cache.path(digest) == cache.path(digest) == path
        assert hashed == [path.name]


def test_a_second_name_and_its_end_cost_no_hash(
    cache: CheckpointCache, ingest: Ingest, hashed: list[str], tmp_path: Path
) -> None:
    digests = [ingest({"w": torch.randn(100)}).digest for _ in range(2)]
    soup = build(Recipe.mean(digests), cache).digest
    hashed.clear()
    for digest in (soup, digests[0]):
        cache.link(digest, tmp_path / "second")
        cache.path(digest)
        cache.unlink(digest, tmp_path / "second")
        cache.path(digest)
    assert hashed == []
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("spoil", [alter, truncate])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_altered_by_its_second_name_is_noticed(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path, spoil: Callable[[Path], None], when: str
) -> None:
    digest = ingest({"w": torch.randn(100)}).digest
    cache.link(digest, tmp_path / "second")
    if when == "before":
        spoil(tmp_path / "second")
    cache.unlink(digest, tmp_path / "second")
    if when == "after":
        spoil(cache.folder / f"{digest.removeprefix('sha256:')}.safetensors")
    with pytest.raises(BadCheckpoint, match="altered on disk"):
        cache.path(digest)


def test_the_end_of_a_second_name_brings_no_first_one_back(
    cache: CheckpointCache, ingest: Ingest, kept: Kept, tmp_path: Path
) -> None:
    digest = ingest({"w": torch.ones(3)}).digest
    cache.link(digest, tmp_path / "second")
    cache.path(digest).unlink()
    cache.unlink(digest, tmp_path / "second")
    assert not cache.has(digest)


def test_where_no_stamp_can_be_written_a_file_is_hashed_each_time_and_used(
    cache: CheckpointCache, ingest: Ingest, hashed: list[str]
) -> None:
    path = cache.path(ingest({"w": torch.randn(100)}).digest)
    path.with_suffix(stamp.SUFFIX).unlink()
    path.with_suffix(stamp.SUFFIX).mkdir()  # as good as a folder that is read-only, for root too
    hashed.clear()
    for _ in range(2):
        assert cache.path(Digest(f"sha256:{path.stem}")) == path
    assert hashed == [path.name] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_build_notices_what_no_stamp_can_tell(
    cache: CheckpointCache, ingest: Ingest, kept: Kept, dtype: torch.dtype
) -> None:
    made = [{"w": torch.randn(300_000).to(dtype), "n": torch.tensor(3)} for _ in range(4)]
    digests = [ingest(tensors).digest for tensors in made]
    spoilt = [digests[1], digests[3]]
    for digest in spoilt:
        alter(cache.path(digest), 300_000)
        vouch_for(cache.folder / f"{digest.removeprefix('sha256:')}.safetensors")
    with pytest.raises(BadCheckpoint, match="altered on disk") as caught:
        build(Recipe.mean(digests), cache)
    assert [digest in fault for digest, fault in zip(spoilt, caught.value.faults, strict=True)] == [True] * 2
    assert caught.value.mend
    assert kept() == sorted(f"{digest.removeprefix('sha256:')}.safetensors" for digest in digests[::2])


def test_an_altered_header_is_noticed_by_a_build(cache: CheckpointCache, ingest: Ingest) -> None:
    digests = [ingest({"w": torch.randn(100)}).digest for _ in range(2)]
    path = cache.path(digests[1])
    path.write_bytes(path.read_bytes().replace(b'"pt"', b'"pu"'))  # nothing but metadata
    vouch_for(path)
    with pytest.raises(BadCheckpoint, match="altered on disk"):
        build(Recipe.mean(digests), cache)
    assert not cache.has(digests[1])


def test_a_known_soup_is_the_same_file_and_no_weights_are_hashed_for_it(
    cache: CheckpointCache, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, hashed: list[str]
) -> None:
    made = [{"w": torch.randn(300_000), "h": torch.randn(3).half()} for _ in range(3)]
    recipe = Recipe.mean([ingest(tensors).digest for tensors in made])
    soup = build(recipe, cache)
    content = cache.path(soup.digest).read_bytes()
    cache.path(soup.digest).unlink()
    hashed.clear()
    monkeypatch.delattr(one_pass, "hashlib")
    assert build(recipe, cache, known=soup.digest) == soup
    assert cache.path(soup.digest).read_bytes() == content
    assert hashed == []
