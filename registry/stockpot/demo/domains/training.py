"""Training of the demo's language models: plain torch on one thread, as many at once as there are cores."""

import math
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from stockpot.demo.domains.model import ByteModel, next_byte_log_likelihood
from stockpot.demo.domains.plan import PlannedRun, Sizes

WARM_UP = 0.1
"""Of the steps: in which the rate rises."""


@dataclass(frozen=True)
class Trained:
    """What came of a run."""

    weights: bytes
    """A safetensors file."""
    curve: tuple[float, ...]
    """Training loss in nats per byte, the mean over each tenth of the steps."""
    validation: dict[str, float]
    """Mean log likelihood of a byte, by domain."""


def train(run: PlannedRun, sizes: Sizes, data: Path, start: bytes | None = None) -> Trained:
    """Train with AdamW, at a rate that rises and then falls to zero as a cosine, on windows drawn from the
    domains in equal parts. `start`: weights to begin from. The same each time on one machine.
    """
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(run.how.seed)
    model = _begun(sizes, run.how.seed, start)
    with np.load(data, allow_pickle=False) as arrays:
        texts = [torch.from_numpy(arrays[f"train_{name}"]) for name in run.domains]
        losses = _descend(model, texts, run, sizes.context, rng)
        shown = torch.from_numpy(arrays["validation_x"]).long()
        domains = arrays["validation_domain"].tolist()
    return Trained(
        save(model.state_dict(), {"format": "pt"}),
        tuple(float(part.mean()) for part in losses.tensor_split(min(10, len(losses)))),
        _by_domain(model.eval(), shown, domains),
    )


def train_all(runs: Sequence[PlannedRun], sizes: Sizes, data: Path, start: bytes) -> Iterator[Trained]:
    """Each in a process of its own, the longest first; what came of them in the order of `runs`."""
    spawned = multiprocessing.get_context("spawn")  # a fork of a process that has used torch may hang
    pool = ProcessPoolExecutor(min(len(runs), _cores()), mp_context=spawned)
    futures: dict[int, Future[Trained]] = {}
    try:
        for place in sorted(range(len(runs)), key=lambda place: -runs[place].how.steps):
            futures[place] = pool.submit(train, runs[place], sizes, data, start)
        for place in range(len(runs)):
            yield futures[place].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begun(sizes: Sizes, seed: int, start: bytes | None) -> ByteModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ByteModel(sizes.width, sizes.depth, sizes.context)
    if start is not None:
        model.load_state_dict(load(start))
    return model


def _descend(
    model: ByteModel, texts: Sequence[Tensor], run: PlannedRun, context: int, rng: torch.Generator
) -> Tensor:
    """Train in place. Returns the loss of each step."""
    how = run.how
    optimiser = torch.optim.AdamW(model.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, how.steps))
    losses = []
    model.train()
    for _ in range(how.steps):
        told = batch(texts, how.batch, context + 1, rng)
        loss = -next_byte_log_likelihood(model(told[:, :-1]), told).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def rate(step: int, steps: int) -> float:
    """The share of the full learning rate at this step."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def batch(texts: Sequence[Tensor], size: int, length: int, rng: torch.Generator) -> Tensor:
    """Windows ``[size, length]``, int64: each of a text in turn, from anywhere in it."""
    chosen = [texts[number % len(texts)] for number in range(size)]
    starts = [int(torch.randint(len(text) - length + 1, (), generator=rng)) for text in chosen]
    return torch.stack([text[at : at + length] for text, at in zip(chosen, starts, strict=True)]).long()


@torch.inference_mode()
def _by_domain(model: ByteModel, shown: Tensor, domains: Sequence[str]) -> dict[str, float]:
    scores = torch.cat(
        [next_byte_log_likelihood(model(part[:, :-1]), part).mean(dim=1) for part in torch.split(shown, 64)]
    )
    return {
        name: float(scores[[place for place, label in enumerate(domains) if label == name]].double().mean())
        for name in dict.fromkeys(domains)
    }


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
