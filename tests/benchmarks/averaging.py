"""Average eight checkpoints in this process; print seconds, and MiB of memory beyond the imports."""

import json
import re
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from registry.entities import Recipe, WeightsFormat
from registry.soup import CheckpointCache, build

COUNT, TENSORS = 8, 100


def prepare(folder: Path, megabytes: int) -> None:
    """Random weights, in a hundred tensors each."""
    folder.mkdir()
    cache = CheckpointCache(folder)
    names = []
    for seed in range(COUNT):
        generator = torch.Generator().manual_seed(seed)
        width = megabytes * 250_000 // TENSORS
        tensors = {f"layer{i}.weight": torch.randn(width, generator=generator) for i in range(TENSORS)}
        logged = folder / "logged.safetensors"
        save_file(tensors, logged)
        names.append(cache.ingest(logged, WeightsFormat.SAFETENSORS)[0].digest)
        logged.unlink()
    (folder / "names.json").write_text(json.dumps(names))


def naive(folder: Path) -> None:
    """Load one, add the others in place, divide, save."""
    cache = CheckpointCache(folder)
    first, *others = (cache.path(name) for name in json.loads((folder / "names.json").read_text()))
    total = load_file(first)
    for other in others:
        for name, tensor in load_file(other).items():
            total[name] += tensor
    for tensor in total.values():
        tensor.div_(COUNT)
    save_file(total, folder / "naive.safetensors", metadata={"format": "pt"})


def stockpot(folder: Path) -> None:
    """The same, by recipe; with the non-finite check, the digest and fsync that belong to it."""
    cache = CheckpointCache(folder)
    build(Recipe.mean(json.loads((folder / "names.json").read_text())), cache)


def peak() -> float:
    """Most MiB that this process ever held. Linux only; ru_maxrss would start at the parent's size."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def main() -> None:
    """Run the named way."""
    way, folder = sys.argv[1], Path(sys.argv[2])
    if way == "prepare":
        prepare(folder, int(sys.argv[3]))
        print("{}")
        return
    before = peak()
    start = time.perf_counter()
    (naive if way == "naive" else stockpot)(folder)
    seconds = time.perf_counter() - start
    more = peak() - before
    for made in folder.glob("*.safetensors"):
        if f"sha256:{made.stem}" not in (folder / "names.json").read_text():
            made.unlink()
    print(json.dumps({"s": seconds, "mib": more}))


if __name__ == "__main__":
    main()
