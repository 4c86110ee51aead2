from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import Tensor

from stockpot.entities import Checkpoint, WeightsFormat
from stockpot.soup import CheckpointCache

Ingest = Callable[[dict[str, Tensor]], Checkpoint]
Kept = Callable[[], list[str]]


@pytest.fixture
def kept(cache: CheckpointCache) -> Kept:
    """What the cache holds, its stamps aside."""
    return lambda: sorted(path.name for path in cache.folder.iterdir() if path.suffix != ".stamp")


@pytest.fixture
def cache(tmp_path: Path) -> CheckpointCache:
    return CheckpointCache(tmp_path / "cache")


@pytest.fixture
def ingest(cache: CheckpointCache, tmp_path: Path) -> Ingest:
    def save_and_ingest(tensors: dict[str, Tensor]) -> Checkpoint:
        file = tmp_path / "logged.safetensors"
        save_file(tensors, file)
        checkpoint, _ = cache.ingest(file, WeightsFormat.SAFETENSORS)
        return checkpoint

    return save_and_ingest
