"""Rows of evaluation and selection: weights into the live module, early rejection, speculation, the whole."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.benchmarks.hot_swap import GROUPS
from tests.benchmarks.measuring import CUDA_SELECTION, Scale, measured
from tests.benchmarks.table import Goal, Row, ratios

FIRST_REQUEST = "the first request's passes"
LEAST_PASSES = "A + 1.3 e R full passes"


def hot_swap(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """One trial's weights into the live module."""
    took = measured("hot_swap", "--width", scale.width, "--repeats", scale.swaps)
    work = f"a trial's weights into a module of {_size(took['bytes'] / 4)} parameters, fp32"
    copied, added, plain = (ratios(took["trial"], took[way]) for way in ("copy", "add", "plain"))
    yield Row(work, "a copy of as many bytes", "", copied, "x")
    yield Row(work, "a sum of two in memory, the least that it can be", Goal("<=", 1.5), added, "x")
    yield Row(work, "a new state dict, loaded", "", tuple(1 / each for each in plain), "x faster")
    grouped = ratios(took["grouped"], took["ungrouped"])
    yield Row(f"{work}, in one of {GROUPS} groups", "the same without groups, by mean/1", "", grouped, "x")


def interval(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """The paired interval of half points, whose kinds are counted."""
    took = measured("interval", "--examples", scale.drawn, "--repeats", scale.few)
    work = f"a paired interval over {scale.drawn:,} examples, half points"
    drawn = ratios(took["drawn"], took["counted"])
    yield Row(work, "the bootstrap that draws every example", Goal(">=", 100), drawn, "x faster")


def comparisons(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """All the statistics of a report."""
    took = measured("comparisons", "--examples", scale.drawn, "--repeats", scale.repeats)
    for kind, seconds in took.items():
        work = f"3 recipes compared on 6 splits of {scale.drawn:,} and on the mean of 5, {kind}"
        yield Row(work, "the clock", Goal("<=", 0.2, "s"), tuple(seconds), "s")


def by_domain(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """What scores by domain add to the passes that they are read off."""
    domains = 8
    sizes = ("--width", scale.width, "--examples", scale.examples, "--domains", domains)
    took = measured("by_domain", *sizes, "--repeats", scale.repeats)
    parameters = _size(took["parameters"])
    of = f"{took['passes']:.0f} passes of {parameters} parameters over {scale.examples:,} examples"
    share = tuple(100 * each for each in ratios(took["added"], took["without"]))
    yield Row(f"scores by {domains} domains, {of}", "these passes without", Goal("<=", 1, "%"), share, "%")
    both = ratios(took["together"], took["without"])
    yield Row(f"{of}, with scores by {domains} domains", "these passes without", "", both, "x")


def early_rejection(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """Passes over many sweeps. They are counts, so two processes share the sweeps."""
    half = scale.sweeps // 2
    shape = ("--candidates", scale.candidates, "--examples", scale.examples)
    parts = ((0, half), (half, scale.sweeps - half))
    with ThreadPoolExecutor(len(parts)) as pool:
        found = pool.map(
            lambda part: measured("early_rejection", "--first-seed", part[0], "--sweeps", part[1], *shape),
            parts,
        )
        summaries = list(found)
    ratio = tuple(sorted(each for summary in summaries for each in summary["ratios"]))
    passes, goal, plain = (sum(s[name] for s in summaries) for name in ("passes", "goal", "plain"))
    work = f"greedy passes over {len(ratio)} sweeps of {scale.candidates} candidates"
    over = sum(each > 1 for each in ratio)
    yield Row(f"{work}, in sum", LEAST_PASSES, Goal("<=", 1), (passes / goal,), "x")
    yield Row(f"{work}, each", LEAST_PASSES, "", ratio, "x")
    yield Row(f"{work}, the greatest", LEAST_PASSES, Goal("<=", 1), (ratio[-1],), "x")
    yield Row(f"{work}, how many are over", LEAST_PASSES, Goal("<=", 0, "of them"), (over,), "of them")
    yield Row(f"{work}, in sum", "the plain loop's passes", "", (plain / passes,), "x fewer")


def recalling(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """What a search costs anew without one of its candidates."""
    sweeps, candidates = scale.recalled
    sizes = ("--sweeps", sweeps, "--candidates", candidates, "--examples", scale.examples // 2)
    rows = measured("recalling", *sizes)["rows"]
    groups = {
        "any candidate": rows,
        "an ingredient of the greedy soup": [row for row in rows if row["ingredient"]],
        "the first or second of these": [row for row in rows if 0 < row["ingredient"] <= 2],
    }
    for whose, some in groups.items():
        work = f"recall of {whose}, of {candidates}, {sweeps} sweeps"
        shares, least = (tuple(row[name] for row in some) for name in ("share", "least"))
        yield Row(work, FIRST_REQUEST, Goal("<=", 0.25), shares, "x")
        yield Row(f"{work}: what has to be scored in full", FIRST_REQUEST, "", least, "x")
    over = sum(row["share"] > 0.25 for row in rows)
    yield Row("such recalls that cost more", "0.25 x", Goal("<=", 0, "of them"), (over,), "of them")


def speculation(_scratch: Path, _scale: Scale) -> Iterable[Row]:
    """Rounds on the published acceptance pattern."""
    found = measured("speculation", "--processes", 8)
    work = "greedy by 8 processes, ranks 1, 10, 16, 17 of 71 accepted"
    plain = f"{found['plain']} rounds, one after the other"
    yield Row(work, plain, Goal("<=", 12, "rounds"), (found["rounds"],), "rounds")
    yield Row(work, f"{found['plain']} evaluations", "", (found["wasted"],), "wasted")


def sharing(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """A ranking and a measuring that several processes share, and what that costs one."""
    sizes = ("--candidates", scale.shared, "--points", scale.shared // 4)

    def runs(*options: str | float) -> list[dict[str, Any]]:
        return [measured("sharing", *sizes, *map(str, options)) for _ in range(scale.few)]

    alone = runs("--processes", 1, "--seconds", scale.sleep)
    for processes in (2, 4):
        shared = runs("--processes", processes, "--seconds", scale.sleep)
        work = f"{processes} processes rank {scale.shared} candidates, and measure a quarter on 2 more splits"
        linear = ratios([run["seconds"] for run in alone], [run["seconds"] for run in shared])
        yield Row(work, f"one process, over {processes}", Goal(">=", 0.92), linear, "x")
    for database, limit in (("sqlite", 20), ("postgresql", 30)):
        costs = [
            1000 * (run["seconds"] - run["passes"]) / run["units"]
            for run in runs("--processes", 1, "--seconds", 0, "--database", database)
        ]
        work = f"an evaluation of 10,000 examples beyond its forward passes, {database}"
        yield Row(work, "the clock", Goal("<=", limit, "ms"), tuple(costs), "ms")


def whole_command(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """The whole command against the passes that it did."""
    took = measured("whole_command", *scale.command)
    work = f"`stockpot soup`, {took['passes']:.1f} passes of {_size(took['parameters'])} parameters"
    over = took["command"] / took["passes"] / took["bare"]
    yield Row(work, f"its bare forward passes, {took['bare']:.1f} s each", Goal("<=", 1.15), (over,), "x")


def trainer_sweep(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """From a sweep by the Hugging Face Trainer to the registered soup, against the least that it needs."""
    took = measured("huggingface_sweep", *scale.trainer)
    work = f"`stockpot soup`, {took['runs']} runs by the Trainer, {took['passes']:.1f} passes"
    least = took["passes"] * took["bare"] + took["average"] + took["upload"]
    against = f"bare passes of {took['bare']:.1f} s each, the average, one upload"
    yield Row(work, against, Goal("<=", 1.3), (took["command"] / least,), "x")


def selection(_scratch: Path, scale: Scale) -> Iterable[Row]:
    """A selection of really fine-tuned variants on the CPU; on CUDA too, at the published size."""
    import torch

    found = measured("selection", "--device", "cpu", "--repeats", scale.few, *scale.selection)
    yield from _selected(found, "<= 0.25 x on CUDA", "")
    if torch.cuda.is_available():
        found = measured("selection", "--repeats", 1, *CUDA_SELECTION)
        yield from _selected(found, Goal("<=", 0.25), Goal("<=", 120, "s"))


def _selected(found: dict[str, Any], passes: Goal | str, whole: Goal | str) -> Iterable[Row]:
    work = f"{found['variants']} variants of {_size(found['parameters'])} parameters, {found['device']}"
    if found["dtype"] != "float32":
        work += f", {found['dtype']}"
    closest = min(found["margins"], default=0)
    note = (
        f"accepted at ranks {found['accepted_ranks']}; rejected by at least {closest} examples; "
        f"{found['greedy_passes']:.1f} passes, A + 1.3 e R = {found['goal_passes']:.1f}"
    )
    greedy = ratios(found["greedy_s"], found["plain_greedy_s"])
    seconds = tuple(map(sum, zip(found["ranking_s"], found["greedy_s"], strict=True)))
    yield Row(f"greedy pass, {work}", "the plain style", passes, greedy, "x", note)
    share = tuple(found["forward_share"])
    yield Row(f"evaluation, {work}", "its forward passes alone", Goal(">=", 0.9, "of it"), share, "of it")
    yield Row(f"ranking and greedy pass, {work}", "the clock", whole, seconds, "s")


def _size(parameters: float) -> str:
    return f"{parameters / 1e6:.0f}M" if parameters >= 1e6 else f"{parameters / 1e3:.0f}k"
