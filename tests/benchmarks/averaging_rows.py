"""Rows of averaging: against the limits, the naive way, the imports' memory, and in the large."""

import shutil
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import Scale, measured
from tests.benchmarks.table import Goal, Row, ratios

COUNT = 8
MOVED = "to read the bytes, then to write them: two threads, fsync"
HASHED = f"{MOVED}; and to hash them"
AT_ONCE = "to read and write them at once: two threads, fsync"
COPIED = "a plain copy with its hash: one thread, fsync"
AT_MOST_MEMORY = Goal("<=", 64, "MiB")
LINEAR = Goal("<=", 1.25)  # linear within what the processor's and the system's caches do at other sizes
GROUPED = Goal("<=", 1.3)  # both with the digest known: nothing is hashed
SHARDED = 4  # checkpoints in shards
SPARE = 3  # files beside the inputs: one while it is logged, the soup, and one more to be sure


def averaging(scratch: Path, scale: Scale) -> Iterable[Row]:
    """Eight checkpoints to one, page-cached, in fp32 and bf16; then many and large ones."""
    folder = scratch / "averaging"
    work = f"average {COUNT} x {scale.megabytes} MB"
    measured("averaging", "prepare", folder, scale.megabytes)
    yield from _limits(f"{work} fp32", folder, scale, Goal("<=", 1.15))
    turns = [
        {way: measured("averaging", way, folder) for way in ("naive", "known", "hashed")}
        for _ in range(scale.repeats + 1)
    ][1:]  # the first turn warms up
    shutil.rmtree(folder)
    naive, known, ours = ([turn[way] for turn in turns] for way in ("naive", "known", "hashed"))
    plainly = "load, add, save_file: no hash, no check, no fsync"
    for name, figures, goal in (("digest known", known, Goal(">=", 2)), ("hashed", ours, "")):
        times = ratios(_each(naive, "s"), _each(figures, "s"))
        yield Row(f"{work} fp32, {name}", plainly, goal, times, "x faster")
    yield _memory(f"{work} fp32, hashed", ours)
    measured("averaging", "prepare", folder, scale.megabytes, COUNT, "bfloat16")
    yield from _limits(f"{work} bf16", folder, scale, Goal("<=", 1.25))
    shutil.rmtree(folder)
    per_byte = statistics.median(_per_byte(ours))
    for count, megabytes in scale.large:
        yield from _large(scratch / "large", count, megabytes, scale, per_byte)


def imports(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """What the averaging core adds to torch's import."""
    figures = [measured("averaging", "imports")["beyond_torch"] for _ in range(scale.repeats + 1)][1:]
    yield Row("import the averaging core", "the import of torch", Goal("<=", 0.2, "s"), (*figures,), "s more")


def reading(scratch: Path, scale: Scale) -> Iterable[Row]:
    """A checkpoint by torch.save, brought into the cache without running its pickle."""
    measured("reading", "prepare", scratch / "reading", scale.checkpoint)
    figures = measured("reading", "sides", scratch / "reading", scale.repeats)
    work = f"read a .ckpt of {scale.checkpoint} MB safely into canonical form"
    yield Row(work, COPIED, Goal("<=", 1.5), (*figures["ratio"],), "x")
    yield Row(work, "the imports' memory", AT_MOST_MEMORY, (figures["mib"],), "MiB more")


def shards(scratch: Path, scale: Scale) -> Iterable[Row]:
    """Checkpoints in bf16 that were logged in shards: one into the cache, and then the average of several."""
    megabytes = scale.sharded
    needed = (SHARDED + SPARE) * megabytes * 1_000_000
    if shutil.disk_usage(scratch).free < needed:
        work = f"{SHARDED} sharded checkpoints of {megabytes} MB bf16"
        yield Row(work, COPIED, "", (), "x", f"not measured: needs {needed / 1e9:.0f} GB of disk")
        return
    folder = scratch / "shards"
    measured("reading", "prepare_shards", folder, megabytes)
    figures = measured("reading", "sides", folder, scale.few)
    shutil.rmtree(folder)
    work = f"bring a checkpoint of {megabytes} MB bf16 in shards into canonical form"
    yield Row(work, COPIED, "", (*figures["ratio"],), "x")
    yield Row(work, "the imports' memory", AT_MOST_MEMORY, (figures["mib"],), "MiB more")
    measured("averaging", "prepare", folder, megabytes, SHARDED, "bfloat16")
    work = f"average {SHARDED} x {megabytes} MB bf16"
    yield from _limits(work, folder, scale, Goal("<=", 1.25))
    turns = [measured("averaging", "hashed", folder) for _ in range(scale.few)]
    shutil.rmtree(folder)
    yield _memory(f"{work}, hashed", turns)


def _limits(work: str, folder: Path, scale: Scale, goal: Goal) -> Iterable[Row]:
    sides = measured("averaging", "sides", folder, scale.repeats)
    yield Row(f"{work}, digest known", MOVED, goal, (*sides["known"],), "x")
    yield Row(f"{work}, digest known", AT_ONCE, "", (*sides["tight"],), "x")
    yield Row(f"{work}, in pairs by grouped/1", "all at once by mean/1", GROUPED, (*sides["grouped"],), "x")
    yield Row(f"{work}, hashed", HASHED, goal, (*sides["hashed"],), "x")


def _large(folder: Path, count: int, megabytes: int, scale: Scale, per_byte: float) -> Iterable[Row]:
    work = f"average {count} x {megabytes} MB fp32, hashed"
    against = f"time per byte of {COUNT} x {scale.megabytes} MB"
    needed = (count + SPARE) * megabytes * 1_000_000
    if shutil.disk_usage(folder.parent).free < needed:
        why = f"not measured: needs {needed / 1e9:.0f} GB of disk"
        yield Row(work, against, LINEAR, (), "x", why)
        return
    measured("averaging", "prepare", folder, megabytes, count)
    turns = [measured("averaging", "hashed", folder) for _ in range(scale.few + 1)][1:]
    shutil.rmtree(folder)
    yield Row(work, against, LINEAR, tuple(each / per_byte for each in _per_byte(turns)), "x")
    yield _memory(work, turns)


def _memory(work: str, turns: list[dict[str, Any]]) -> Row:
    return Row(work, "the imports' memory", AT_MOST_MEMORY, _each(turns, "mib"), "MiB more")


def _per_byte(turns: list[dict[str, Any]]) -> tuple[float, ...]:
    return ratios(_each(turns, "s"), _each(turns, "bytes"))


def _each(turns: list[dict[str, Any]], name: str) -> tuple[float, ...]:
    return tuple(turn[name] for turn in turns)
