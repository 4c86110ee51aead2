import errno
import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stockpot.entities import Checkpoint, Digest, WeightsFormat
from stockpot.errors import BadCheckpoint, NotCached, NotFinite, Pickled, StockpotError
from stockpot.soup import CheckpointCache, checkpoint_cache, open_safetensors
from stockpot.soup.weights_file import WeightsFile

Ingest = Callable[[dict[str, Tensor]], Checkpoint]
Kept = Callable[[], list[str]]
TENSORS = {
    "model.fc.weight": torch.arange(600_000.0).reshape(600, 1000),  # more than one piece
    "model.fc.bias": torch.randn(3).half(),
    "model.brain": torch.randn(2, 2).bfloat16(),
    "model.count": torch.tensor(7),
    "model.mask": torch.tensor([True, False, True]),
    "model.unsigned": torch.arange(3).to(torch.uint16),
    "model.none": torch.empty(0, 3),
}


def test_the_canonical_file_is_the_librarys_to_the_byte(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path
) -> None:
    checkpoint = ingest(TENSORS)
    stripped = {name.removeprefix("model."): tensor for name, tensor in TENSORS.items()}
    save_file(stripped, tmp_path / "library.safetensors", metadata={"format": "pt"})
    content = (tmp_path / "library.safetensors").read_bytes()
    assert cache.path(checkpoint.digest).read_bytes() == content
    assert checkpoint.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert checkpoint.size == len(content)
    assert [spec.name for spec in checkpoint.tensors] == sorted(stripped)
    assert cache.checkpoint(checkpoint.digest) == checkpoint


def test_wrapping_metadata_and_order_do_not_change_the_digest(
    cache: CheckpointCache, kept: Kept, ingest: Ingest, tmp_path: Path
) -> None:
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in reversed(TENSORS.items())}
    save_file(wrapped, tmp_path / "w.safetensors", metadata={"epoch": "3"})
    checkpoint, sha256 = cache.ingest(tmp_path / "w.safetensors", WeightsFormat.SAFETENSORS)
    assert checkpoint == ingest(TENSORS)
    assert sha256 == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert len(kept()) == 1


def test_exact_names_the_integer_and_boolean_tensors_alone(ingest: Ingest) -> None:
    reference = ingest(TENSORS)
    assert ingest(TENSORS | {"model.fc.bias": torch.randn(3).half()}).exact == reference.exact
    assert ingest(TENSORS | {"model.count": torch.tensor(8)}).exact != reference.exact
    assert ingest(TENSORS | {"model.mask": torch.tensor([True] * 3)}).exact != reference.exact


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_tensor_that_is_not_finite_is_named(
    cache: CheckpointCache, kept: Kept, ingest: Ingest, bad: float, dtype: torch.dtype
) -> None:
    good, spoilt = torch.ones(300_000, dtype=dtype), torch.ones(300_000, dtype=dtype)
    spoilt[-1] = bad
    tensors = {"a": good, "b": spoilt, "c": good.clone(), "d": spoilt.clone(), "n": torch.tensor(1)}
    with pytest.raises(NotFinite) as caught:
        ingest(tensors)
    assert caught.value.faults == ("b", "d")
    assert "logged.safetensors" in caught.value.what
    assert kept() == []


def test_finite_weights_whose_sum_overflows_are_welcome(cache: CheckpointCache, ingest: Ingest) -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        checkpoint = ingest({"a": torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)})
        assert cache.has(checkpoint.digest)


def test_pickles_are_refused_unopened_with_advice(cache: CheckpointCache, tmp_path: Path) -> None:
    with pytest.raises(Pickled, match="never run") as caught:
        cache.ingest(tmp_path / "does-not-exist.pth", WeightsFormat.PICKLE)
    assert "from safetensors.torch import save_file" in caught.value.mend


def test_a_damaged_file_leaves_nothing_behind(cache: CheckpointCache, kept: Kept, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(TENSORS, file)
    os.truncate(file, 100_000)
    with pytest.raises(BadCheckpoint, match="truncated"):
        cache.ingest(file, WeightsFormat.SAFETENSORS)
    assert kept() == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_crash_in_the_middle_leaves_nothing_behind(
    cache: CheckpointCache,
    kept: Kept,
    ingest: Ingest,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    pieces = WeightsFile.pieces

    def crash_after_some(weights: WeightsFile, name: str) -> Iterator[memoryview]:
        yield next(pieces(weights, name))
        assert len(kept()) == 1  # it is being written
        raise error

    monkeypatch.setattr(WeightsFile, "pieces", crash_after_some)
    with pytest.raises(error):
        ingest(TENSORS)
    assert kept() == []


def test_a_full_disk_is_no_fault_of_the_checkpoint(
    cache: CheckpointCache, kept: Kept, tmp_path: Path
) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from stockpot.soup import CheckpointCache; from stockpot.entities import WeightsFormat\n"
        "import stockpot.soup.arithmetic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))\n"
        "CheckpointCache(Path(sys.argv[1])).ingest(Path(sys.argv[2]), WeightsFormat.SAFETENSORS)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, cache.folder, tmp_path / "a.safetensors"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"stockpot.errors.{StockpotError.__name__}: {cache.folder}: cannot write" in done.stderr
    assert kept() == []


def test_two_processes_may_ingest_the_same_file_at_once(
    cache: CheckpointCache, kept: Kept, tmp_path: Path
) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    program = (
        "import sys; from pathlib import Path\n"
        "from stockpot.soup import CheckpointCache; from stockpot.entities import WeightsFormat\n"
        "import stockpot.soup.arithmetic\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "cache, file = CheckpointCache(Path(sys.argv[1])), Path(sys.argv[2])\n"
        "for _ in range(10): found, _ = cache.ingest(file, WeightsFormat.SAFETENSORS)\n"
        "print(found.digest)\n"
    )
    command = [sys.executable, "-c", program, str(cache.folder), str(tmp_path / "a.safetensors")]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    found = {worker.communicate("\n")[0].strip() for worker in reversed(workers)}
    assert len(found) == 1
    digest = Digest(found.pop())
    assert kept() == [cache.path(digest).name]
    assert hashlib.sha256(cache.path(digest).read_bytes()).hexdigest() == digest.removeprefix("sha256:")


def test_an_absent_checkpoint_is_refused_with_a_mend(cache: CheckpointCache) -> None:
    digest = Digest(f"sha256:{'0' * 64}")
    assert not cache.has(digest)
    with pytest.raises(BadCheckpoint, match="not in the cache") as caught:
        cache.path(digest)
    assert caught.value.mend


@pytest.mark.parametrize("found", [b"", b"damaged"], ids=["absent", "damaged"])
def test_what_another_process_changes_while_it_is_opened_is_not_here_now(
    cache: CheckpointCache, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, found: bytes
) -> None:
    """Brought back after it was absent, removed after it was damaged: who asks is to look again."""
    digest = ingest(TENSORS).digest
    path = cache.path(digest)
    path.write_bytes(found)
    if not found:
        path.unlink()

    @contextmanager
    def meanwhile(path: Path) -> Iterator[WeightsFile]:
        try:
            with open_safetensors(path) as weights:
                yield weights
        finally:
            path.unlink() if found else path.touch()

    monkeypatch.setattr(checkpoint_cache, "open_safetensors", meanwhile)
    with pytest.raises(NotCached, match="not in the cache"), cache.open(digest):
        pass


def test_a_file_that_the_system_cannot_open_is_kept(
    cache: CheckpointCache, ingest: Ingest, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = ingest(TENSORS).digest
    held = kept()

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as crowded:
        crowded.setattr(os, "open", fail)
        with pytest.raises(StockpotError, match="Too many open files"):
            cache.path(digest)
    assert kept() == held
    assert cache.path(digest).is_file()


@pytest.mark.parametrize("digest", ["", "sha256:../../etc/passwd", f"sha256:{'0' * 64}\n", "0" * 64])
def test_what_is_no_digest_never_becomes_a_path(cache: CheckpointCache, digest: str) -> None:
    with pytest.raises(BadCheckpoint, match="no digest"):
        cache.path(Digest(digest))


def test_what_is_ingested_is_read_back_bit_for_bit(cache: CheckpointCache, ingest: Ingest) -> None:
    loaded = load_file(cache.path(ingest(TENSORS).digest))
    assert all(torch.equal(loaded[name.removeprefix("model.")], tensor) for name, tensor in TENSORS.items())


def test_reading_headers_needs_no_torch() -> None:
    program = (
        "import sys, stockpot.soup; assert not {'torch', 'numpy', 'mlflow', 'prefect'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
