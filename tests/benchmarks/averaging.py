"""Average checkpoints in this process, or move and hash the same bytes; one JSON line of figures per call.

    prepare FOLDER MEGABYTES [COUNT] [DTYPE]
    naive | known | hashed | grouped | read | write | move | sha256 FOLDER
        {"s": seconds, "mib": peak MiB beyond the imports, "bytes": of inputs and output}
    sides FOLDER REPEATS
        {"known": [ratios to their limit], "hashed": [the same], "tight": [known to move],
         "grouped": [in pairs, to known], "read_s": [seconds], "known_s": ...}
    imports
        {"beyond_torch": seconds that the averaging core takes to import after torch}

`known`: the soup's digest is known, nothing is hashed. `grouped`: nor is it there, but pairs of inputs are
averaged first, by `grouped/1`. `hashed`: inputs and output are, in the same pass.
The limit of the first is to read all inputs, and then to write as many bytes as the output has, each by two
threads; the disk takes what is there meanwhile, and is waited for at the end (fsync), on both sides. The
limit of the second is this and to hash as many bytes as inputs and output have by two threads. `move` is a
limit that is tighter: each thread reads a piece of every input into one buffer that stays in its core's
cache, and writes it to the output, so that the disk writes beneath the reading.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import torch
from safetensors.torch import load_file, save_file

import stockpot.soup.one_pass  # noqa: F401 - its memory is that of the imports
from stockpot.entities import Digest, Recipe, WeightsFormat
from stockpot.soup import CheckpointCache, build

TENSORS, PIECE, FLUSHED = 100, 1 << 20, 1 << 24


def prepare(folder: Path, megabytes: int, count: int = 8, dtype: str = "float32") -> None:
    """Random weights, in a hundred tensors each; their names, and then that of their soup."""
    folder.mkdir()
    cache = CheckpointCache(folder)
    kind = getattr(torch, dtype)
    width = megabytes * 1_000_000 // kind.itemsize // TENSORS
    # Each tensor is a window of its own of one random pool: no two are alike, and making them costs a copy.
    pool = (
        torch.randn(width + count * TENSORS, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(kind)
    )
    names = []
    for begin in range(0, count * TENSORS, TENSORS):
        tensors = {f"layer{i}.weight": pool[begin + i :][:width].clone() for i in range(TENSORS)}
        logged = folder / "logged.safetensors"
        save_file(tensors, logged)
        names.append(cache.ingest(logged, WeightsFormat.SAFETENSORS)[0].digest)
        logged.unlink()
    assert len(set(names)) == count
    soup = build(Recipe.mean(names), cache).digest
    cache.path(soup).unlink()
    (folder / "names.json").write_text(json.dumps([*names, soup]))


def inputs(folder: Path) -> tuple[list[Digest], Digest]:
    """The ingredients, and the soup."""
    *names, soup = json.loads((folder / "names.json").read_text())
    return names, soup


def naive(folder: Path) -> None:
    """Load one, add the others in place, divide, save."""
    names, _ = inputs(folder)
    cache = CheckpointCache(folder)
    first, *others = map(cache.path, names)
    total = load_file(first)
    for other in others:
        for name, tensor in load_file(other).items():
            total[name] += tensor
    for tensor in total.values():
        tensor.div_(len(names))
    save_file(total, folder / "naive.safetensors", metadata={"format": "pt"})


def known(folder: Path) -> None:
    """The same, by recipe; with the non-finite check and fsync that belong to it."""
    names, soup = inputs(folder)
    build(Recipe.mean(names), CheckpointCache(folder), known=soup)


def hashed(folder: Path) -> None:
    """And with the SHA-256 of every input and of the output."""
    names, soup = inputs(folder)
    assert build(Recipe.mean(names), CheckpointCache(folder)).digest == soup


def grouped(folder: Path) -> None:
    """As `known`, of pairs that count the same."""
    names, soup = inputs(folder)
    pairs = [names[begin : begin + 2] for begin in range(0, len(names), 2)]
    build(Recipe.grouped(pairs), CheckpointCache(folder), known=soup)


def read(folder: Path) -> None:
    """All inputs, by two threads."""
    _move(folder, reads=True, writes=False)


def write(folder: Path) -> None:
    """As many bytes as the output has, by two threads; fsync at the end."""
    _move(folder, reads=False, writes=True)


def move(folder: Path) -> None:
    """Both at once."""
    _move(folder, reads=True, writes=True)


def _move(folder: Path, *, reads: bool, writes: bool) -> None:
    names = inputs(folder)[0] if reads else []
    files = [os.open(CheckpointCache(folder).path(name), os.O_RDONLY) for name in names]
    target = os.open(folder / "written", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    size, lock = _size(folder), Lock()
    pieces = iter(range(0, size, PIECE))

    def work() -> None:
        buffer = memoryview(bytearray(PIECE))
        while True:
            with lock:
                at = next(pieces, None)
            if at is None:
                return
            for file in files:
                os.preadv(file, [buffer], at)
            if not writes:
                continue
            os.pwrite(target, buffer[: size - at], at)
            if at and at % FLUSHED == 0 and flushes[-1].done():
                flushes.append(disk.submit(os.fdatasync, target))

    with ThreadPoolExecutor(1) as disk:
        flushes = [disk.submit(os.fdatasync, target)]
        _twice(work)
    os.fsync(target)
    for file in [*files, target]:
        os.close(file)


def sha256(folder: Path) -> None:
    """As many bytes as inputs and output have, by two threads."""
    pieces = _size(folder) * (len(inputs(folder)[0]) + 1) // PIECE

    def work() -> None:
        digest, buffer = hashlib.sha256(), bytes(PIECE)
        for _ in range(pieces // 2):
            digest.update(buffer)

    _twice(work)


def _size(folder: Path) -> int:
    return CheckpointCache(folder).path(inputs(folder)[0][0]).stat().st_size


def _twice(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work) for _ in range(2)]:
            done.result()


WAYS = {way.__name__: way for way in (naive, known, hashed, grouped, read, write, move, sha256)}


def seconds(way: str, folder: Path) -> float:
    """How long it takes; what it wrote is removed afterwards."""
    kept = {f"{name.removeprefix('sha256:')}.safetensors" for name in inputs(folder)[0]}
    start = time.perf_counter()
    WAYS[way](folder)
    taken = time.perf_counter() - start
    for made in [*folder.glob("*.safetensors"), folder / "written"]:
        if made.name not in kept:
            made.unlink(missing_ok=True)
    return taken


def sides(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Ours and the limits in turn; the first turn warms up."""
    turns = [
        {
            way: seconds(way, folder)
            for way in ("read", "write", "move", "known", "grouped", "sha256", "hashed")
        }
        for _ in range(repeats + 1)
    ][1:]
    return {
        "known": [turn["known"] / (turn["read"] + turn["write"]) for turn in turns],
        "hashed": [turn["hashed"] / (turn["read"] + turn["write"] + turn["sha256"]) for turn in turns],
        "tight": [turn["known"] / turn["move"] for turn in turns],
        "grouped": [turn["grouped"] / turn["known"] for turn in turns],
    } | {f"{way}_s": [turn[way] for turn in turns] for way in turns[0]}


def imports() -> dict[str, float]:
    """Seconds from torch imported to the averaging core imported, in a fresh process."""
    program = (
        "import time, torch; start = time.perf_counter(); import stockpot.soup, stockpot.soup.one_pass; "
        "print(time.perf_counter() - start)"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, text=True)
    return {"beyond_torch": float(done.stdout)}


def peak() -> float:
    """Most MiB that this process ever held. Linux only; ru_maxrss would start at the parent's size."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def main() -> None:
    """Run the named way."""
    way, *rest = sys.argv[1:]
    folder = Path(rest[0]) if rest else Path()
    figures: dict[str, float] | dict[str, list[float]] = {}
    if way == "prepare":
        prepare(folder, int(rest[1]), int((rest[2:3] or ["8"])[0]), (rest[3:4] or ["float32"])[0])
    elif way == "sides":
        figures = sides(folder, int(rest[1]))
    elif way == "imports":
        figures = imports()
    else:
        before = peak()
        figures = {"s": seconds(way, folder), "mib": peak() - before}
        figures["bytes"] = _size(folder) * (len(inputs(folder)[0]) + 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
