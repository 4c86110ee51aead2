"""Read a checkpoint into canonical form, against a plain copy of its files; one JSON line of figures.

    prepare FOLDER MEGABYTES          one by torch.save, as Lightning lays it out
    prepare_shards FOLDER MEGABYTES   one in bfloat16, in safetensors shards with their index
    sides FOLDER REPEATS
        {"ratio": [ours to the copy], "read_s": [seconds], "copy_s": [seconds], "mib": peak MiB of ours}

The copy reads the file in pieces, hashes and writes each, and waits for the disk at the end, in one thread.
Ours besides looks for numbers that are not finite, holds tensors against their checksums, and hashes what it
writes.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.benchmarks.averaging import PIECE, TENSORS, peak

from stockpot.entities import WeightsFormat
from stockpot.soup import CheckpointCache

NAME, INDEX, SHARDS = "last.ckpt", "model.safetensors.index.json", 8


def prepare(folder: Path, megabytes: int) -> dict[str, list[float] | float]:
    """A checkpoint as Lightning lays it out, without an optimizer's state."""
    folder.mkdir()
    width = megabytes * 1_000_000 // 4 // TENSORS
    state = {f"model.layer{i}.weight": torch.randn(width) for i in range(TENSORS)}
    torch.save({"epoch": 3, "state_dict": state, "hyper_parameters": {"lr": 0.1}}, folder / NAME)
    return {}


def prepare_shards(folder: Path, megabytes: int) -> dict[str, list[float] | float]:
    """A checkpoint as ``save_pretrained`` cuts it."""
    folder.mkdir()
    width = megabytes * 1_000_000 // 2 // TENSORS
    weight_map: dict[str, str] = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        tensors = {
            f"model.layer{i}.weight": torch.randn(width).to(torch.bfloat16)
            for i in range(shard, TENSORS, SHARDS)
        }
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return {}


def copied(files: Sequence[Path], folder: Path) -> float:
    """Seconds that a copy takes, with the hash of what was read."""
    start = time.perf_counter()
    sha256, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    with (folder / "copy").open("wb", buffering=0) as target:
        for path in files:
            with path.open("rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    sha256.update(buffer[:count])
                    target.write(buffer[:count])
        os.fsync(target.fileno())
    taken = time.perf_counter() - start
    (folder / "copy").unlink()
    return taken


def read(path: Path, folder: Path) -> float:
    """Seconds until the checkpoint is in the cache."""
    cache = CheckpointCache(folder / "cache")
    start = time.perf_counter()
    checkpoint, _ = cache.ingest(
        path, WeightsFormat.TORCH if path.name == NAME else WeightsFormat.SAFETENSORS
    )
    taken = time.perf_counter() - start
    cache.path(checkpoint.digest).unlink()
    return taken


def sides(folder: Path, repeats: int) -> dict[str, list[float] | float]:
    """Both in turn; the first turn warms up."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    path = folder / INDEX if len(files) > 1 else folder / NAME
    before = peak()
    turns = [(read(path, folder), copied(files, folder)) for _ in range(repeats + 1)][1:]
    return {
        "ratio": [ours / plain for ours, plain in turns],
        "read_s": [ours for ours, _ in turns],
        "copy_s": [plain for _, plain in turns],
        "mib": peak() - before,
    }


if __name__ == "__main__":
    way = {"prepare": prepare, "prepare_shards": prepare_shards, "sides": sides}[sys.argv[1]]
    print(json.dumps(way(Path(sys.argv[2]), int(sys.argv[3]))))
