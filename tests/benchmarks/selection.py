"""A whole selection, side by side with the plain style: variants really fine-tuned from one starting point.

On a CUDA device with ``--model vit-b32 --variants 72 --examples 26000`` it is the published experiment's size
(88M parameters); the defaults are small enough for two CPU cores. Prints each stage as it ends, acceptance
ranks and rejection margins beside the times, and one line of JSON at the end, with the times of every repeat:
ours and the plain style in turn, on the same variants. ``--bf16``: the task's model predicts under autocast.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from operator import truediv
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.benchmarks.pictures import SIZES, Pictures, Size, train
from torch import Tensor

from stockpot.entities import (
    Accept,
    Contender,
    Digest,
    Recipe,
    Score,
    Selection,
    Trial,
    WeightsFormat,
)
from stockpot.evaluation import TorchBench, choose_device
from stockpot.evaluation.devices.device import reproducible
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.soup import CheckpointCache
from stockpot.store import MemoryStore
from stockpot.testing.checkpoints import CachedCheckpoints
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

ALONE, ROUNDS = 3, 5
"""Candidates that are evaluated after as many passes of nothing but the model, and how often in turn."""
LOGGING = 4
"""Variants that are written, or wait for it, while the next one is trained."""


def fine_tune(
    task: Pictures, size: Size, chosen: argparse.Namespace, cache: CheckpointCache, device: torch.device
) -> list[Contender]:
    """One starting point, then variants of it with other learning rates, lengths and seeds."""
    torch.manual_seed(0)
    module = task.model().to(device)
    train(module, task.draw(chosen.pictures, seed=1), size.steps, size.rate, seed=0)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    more = task.draw(chosen.pictures, seed=2)
    draw = torch.Generator().manual_seed(3)

    def logged(variant: int, state: dict[str, Tensor]) -> Contender:
        file = cache.folder / f"logged-{variant}"
        save_file(state, file)
        checkpoint, _ = cache.ingest(file, WeightsFormat.SAFETENSORS)
        file.unlink()
        return Contender(checkpoint.digest, f"{variant:03}", variant)

    logging: list[Future[Contender]] = []
    with ThreadPoolExecutor(LOGGING) as beside:
        for variant in range(chosen.variants):
            module.load_state_dict(start)
            rate = size.rate * 10 ** (-2 + 2.5 * torch.rand(1, generator=draw).item())
            steps = int(size.steps * (0.1 + 0.2 * torch.rand(1, generator=draw).item()))
            train(module, more, steps, rate, seed=variant)
            if variant >= LOGGING:
                logging[variant - LOGGING].result()
            state = {name: tensor.to("cpu", copy=True) for name, tensor in module.state_dict().items()}
            logging.append(beside.submit(logged, variant, state))
        return [each.result() for each in logging]


class Clock:
    """Seconds of what it is put around, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """How long it took, and what came of it."""
        self._wait()
        start = time.perf_counter()
        result = work()
        self._wait()
        return time.perf_counter() - start, result

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class Plain:
    """The plain style: state dicts averaged and loaded, every trial a full pass."""

    def __init__(self, task: Pictures, cache: CheckpointCache, device: torch.device) -> None:
        self._task = task
        self._cache = cache
        self._device = device
        self._module = task.model().to(device).eval()
        examples, size = task.examples("validation"), task.batch_size
        parts = (list(islice(examples, at, at + size)) for at in range(0, len(examples), size))
        self._batches = [(x.to(device), y.to(device)) for x, y in map(task.collate, parts)]
        self._total: dict[str, Tensor] = {}
        self._added: dict[str, Tensor] = {}
        self._count = 0

    def add(self, digest: Digest) -> None:
        """Let the module hold the soup so far with this one more."""
        added = load_file(self._cache.path(digest), str(self._device))
        total = {name: self._total[name] + tensor for name, tensor in added.items()} if self._total else added
        part = 1 / (self._count + 1)  # times, not divided by: a recipe's arithmetic, or near ties differ
        self._module.load_state_dict({name: tensor * part for name, tensor in total.items()})
        self._added = total

    def score(self) -> float:
        """Of what the module holds, on the whole split."""
        with torch.inference_mode():
            scores = [self._task.score(self._task.predict(self._module, b), b) for b in self._batches]
        return float(torch.cat(scores).double().mean())

    def keep(self) -> None:
        """The last one added stays in the soup."""
        self._total, self._count = self._added, self._count + 1

    def forward(self) -> float:
        """Nothing but the forward passes over the split."""
        with torch.inference_mode():
            return float(sum(self._task.predict(self._module, batch).sum() for batch in self._batches))

    def greedy(self, ranked: Sequence[Digest], best: float) -> list[Digest]:
        """The paper's pass after the ranking, which scored the first one: `best`."""
        self._total, self._count = {}, 0
        self.add(ranked[0])
        self.keep()
        kept = [ranked[0]]
        for digest in ranked[1:]:
            self.add(digest)
            score = self.score()
            if score >= best:
                self.keep()
                kept.append(digest)
                best = score
        return kept


def margins(selection: Selection, n: int) -> tuple[list[int], list[float]]:
    """Ranks of the accepted trials, and by how many examples the others failed, at least."""
    tried = [step for step in selection.steps if len(step.tried) > 1]
    accepted = [rank for rank, step in enumerate(tried, start=1) if step.kept]
    best = max(step.score for step in selection.steps if len(step.tried) == 1 and step.score is not None)
    failed = []
    for step in tried:
        reached = step.score if step.score is not None else step.bound
        assert reached is not None
        if step.kept:
            best = reached
        else:
            failed.append(round((best - reached) * n, 1))
    return accepted, failed


@dataclass(frozen=True)
class Turn:
    """Ours and the plain style, once each."""

    selection: Selection
    scores: dict[Digest, float]
    passes: float
    same: bool
    reorders: str
    times: dict[str, float]


def turn(
    task: Pictures, cache: CheckpointCache, contenders: Sequence[Contender], device: torch.device
) -> Turn:
    """Select in both ways; nothing is remembered from another turn."""
    clock = Clock(device)
    bench = TorchBench(
        task,
        identity=("pictures", "1"),
        task_args={"dtype": str(task.dtype)},
        checkpoints=CachedCheckpoints(cache),
        device=device,
        say=told,
    )
    inner = bench.evaluator("validation")
    evaluator = SharedEvaluator(inner, MemoryStore())
    trials = [Trial(Recipe.mean([c.checkpoint])) for c in contenders]
    inner.evaluate(trials[:1])  # decodes the data, and warms up
    ranking, outcomes = clock(lambda: evaluator.evaluate(trials))
    scores = {
        c.checkpoint: o.value for c, o in zip(contenders, outcomes, strict=True) if isinstance(o, Score)
    }
    told(f"ranking took {ranking:.2f} s; scores from {min(scores.values())} to {max(scores.values())}")
    before = inner.passes
    method = Greedy(contenders, accept=Accept.NOT_WORSE)
    fast, selection = clock(lambda: run_selection(method, evaluator))
    passes = inner.passes - before
    told(f"the greedy pass took {fast:.2f} s: {passes:.2f} passes' work")
    plain = Plain(task, cache, device)
    few = trials[:ALONE]
    alone, full = [], []
    with reproducible(device):
        plain.forward()
    for _ in range(ROUNDS):
        with reproducible(device):
            alone.append(clock(lambda: [plain.forward() for _ in few])[0])
        full.append(clock(lambda: inner.evaluate(few))[0])
    share = median(map(truediv, alone, full))
    told(f"evaluation: its forward passes, {median(alone) / len(few):.3f} s each, are {share:.3f} of it")
    ranked = sorted(scores, key=lambda digest: -scores[digest])  # of equals, the first first
    with reproducible(device):
        slow, kept = clock(lambda: plain.greedy(ranked, scores[ranked[0]]))
    same = list(selection.recipe.checkpoints) == kept
    told(f"the plain style's greedy pass took {slow:.2f} s: {'the same' if same else 'ANOTHER'} recipe")
    times = {"ranking_s": ranking, "greedy_s": fast, "plain_greedy_s": slow, "forward_share": share}
    return Turn(selection, scores, passes, same, inner.reorders, times)


def told(sentence: str) -> None:
    """Say it now: whoever stops it early knows this much."""
    print(sentence, flush=True)


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fine-tune, then select in both ways, in turns."""
    device, size = choose_device(chosen.device), SIZES[chosen.model]
    size = replace(size, steps=chosen.steps or size.steps, rate=chosen.rate or size.rate)
    dtype = torch.bfloat16 if chosen.bf16 else torch.float32
    task, cache = Pictures(size, chosen.examples, chosen.batch, dtype), CheckpointCache(folder)
    training, contenders = Clock(device)(lambda: fine_tune(task, size, chosen, cache, device))
    told(f"training took {training:.1f} s")
    turns = [turn(task, cache, contenders, device) for _ in range(chosen.repeats)]
    last = turns[-1]
    accepted, failed = margins(last.selection, chosen.examples)
    error = 1 - max(last.scores.values())
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in task.model().parameters()),
        "variants": len(contenders),
        "error": error,
        "accepted_ranks": accepted,
        "margins": failed,
        "reorders": last.reorders,
        "training_s": training,
        "greedy_passes": last.passes,
        "plain_passes": len(contenders) - 1,
        "goal_passes": len(accepted) + 1.3 * error * len(failed),
        "same": all(each.same for each in turns),
    } | {name: [each.times[name] for each in turns] for name in last.times}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SIZES, default="vit-tiny")
    parser.add_argument("--variants", type=int, default=24)
    parser.add_argument("--examples", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--pictures", type=int, default=20_000, help="to train on, and as many to fine-tune on"
    )
    parser.add_argument("--steps", type=int, default=None, help="of the first training, if not the model's")
    parser.add_argument("--rate", type=float, default=None, help="of the first training, if not the model's")
    parser.add_argument("--bf16", action="store_true", help="predict in bfloat16 where autocast takes it")
    parser.add_argument("--repeats", type=int, default=1, help="of the selection; the training is done once")
    parser.add_argument("--device", default=None)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as folder:
        figures = measure(chosen, Path(folder))
    print(f"{figures['device']}, {figures['parameters'] / 1e6:.1f}M parameters, {chosen.variants} variants")
    print(
        f"accepted at ranks {figures['accepted_ranks']}; rejected by at least {figures['margins']} examples"
    )
    print(
        f"full-pass equivalents: {figures['greedy_passes']:.2f}; A + 1.3 e R = {figures['goal_passes']:.2f}"
    )
    if not figures["same"]:
        sys.exit("the plain style took another recipe: nothing here can be compared")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
