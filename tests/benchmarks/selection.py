"""A whole selection, side by side with the plain style: variants really fine-tuned from one starting point.

On a CUDA device with ``--model vit-b32 --variants 72 --examples 26000`` it is the published experiment's size
(88M parameters); the defaults are small enough for two CPU cores. Prints acceptance ranks and rejection
margins beside the times, and one line of JSON at the end.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from registry.entities import (
    Accept,
    Contender,
    Digest,
    Recipe,
    Score,
    Selection,
    Trial,
    WeightsFormat,
)
from registry.evaluation import RememberingEvaluator, TorchBench, choose_device
from registry.evaluation.device import reproducible
from registry.selection import run_selection
from registry.selection.greedy import Greedy
from registry.soup import CheckpointCache
from registry.soup.weights_file import WeightsFile
from registry.store import MemoryStore

PIXELS = 32


@dataclass(frozen=True)
class Size:
    """A vision transformer; images are scaled up to `image` pixels first."""

    image: int
    patch: int
    width: int
    depth: int
    heads: int
    classes: int
    steps: int
    """Of the starting point's training; variants take a tenth to a third of them."""
    rate: float
    """The starting point's learning rate; variants draw theirs between a hundredth and three times it."""


SIZES = {
    "vit-b32": Size(image=224, patch=32, width=768, depth=12, heads=12, classes=100, steps=1500, rate=2e-4),
    "vit-tiny": Size(image=32, patch=8, width=64, depth=3, heads=4, classes=20, steps=400, rate=2e-3),
}


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.after = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``[n, tokens, width]`` to the same shape."""
        n, tokens, width = x.shape
        qkv = self.qkv(self.before(x)).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(attended)
        mixed: Tensor = x + self.down(functional.gelu(self.up(self.after(x))))
        return mixed


class VisionTransformer(nn.Module):
    """Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021): ``[n, 3, 32, 32]`` to logits."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.image = size.image
        self.patches = nn.Conv2d(3, size.width, size.patch, size.patch)
        self.first = nn.Parameter(torch.zeros(1, 1, size.width))
        self.places = nn.Parameter(0.02 * torch.randn(1, (size.image // size.patch) ** 2 + 1, size.width))
        self.blocks = nn.Sequential(*(Block(size.width, size.heads) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = functional.interpolate(x, size=self.image, mode="nearest")
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


class Pictures:
    """A labelled task: which of the class's patterns shines through another one, noise and a shift."""

    version = "1"
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, size: Size, n: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self._size = size
        self._n = n
        draw = torch.Generator().manual_seed(0)
        patterns = torch.randn(size.classes, 3, PIXELS // 4, PIXELS // 4, generator=draw)
        self._patterns = functional.interpolate(patterns, size=PIXELS, mode="bilinear")

    def model(self) -> nn.Module:
        """The architecture."""
        return VisionTransformer(self._size)

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        draw = torch.Generator().manual_seed(seed)
        labels = torch.randint(self._size.classes, (n,), generator=draw)
        others = torch.randint(self._size.classes, (n,), generator=draw)
        share = 0.45 + 0.5 * torch.rand(n, 1, 1, 1, generator=draw)
        images = share * self._patterns[labels] + (1 - share) * self._patterns[others]
        images += 0.7 * torch.randn(images.shape, generator=draw)
        shifts = torch.randint(-3, 4, (n, 2), generator=draw).tolist()
        return torch.stack([i.roll(s, (1, 2)) for i, s in zip(images, shifts, strict=True)]), labels

    def digest(self, split: str) -> str:
        """Drawn from fixed seeds."""
        return f"{split} {self._n} {self._size}"

    def examples(self, split: str) -> Sequence[tuple[Tensor, Tensor]]:
        """Any split; each has a seed of its own."""
        return list(zip(*self.draw(self._n, seed=sum(split.encode())), strict=True))

    def collate(self, examples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        images, labels = zip(*examples, strict=True)
        return torch.stack(images), torch.stack(labels)

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Logits."""
        logits: Tensor = model(batch[0])
        return logits

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Right or wrong."""
        return (outputs.argmax(dim=1) == batch[1]).float()


class Cached:
    """The checkpoints of a cache, for a bench."""

    def __init__(self, cache: CheckpointCache) -> None:
        self._cache = cache

    def open(self, digest: Digest) -> AbstractContextManager[WeightsFile]:
        """One that is there."""
        return self._cache.open(digest)

    def prefetch(self, digest: Digest) -> None:
        """All are there."""


def train(module: nn.Module, data: tuple[Tensor, Tensor], steps: int, rate: float, seed: int) -> None:
    """AdamW with a cosine schedule; on CUDA in bfloat16 where autocast takes it."""
    device = next(module.parameters()).device
    images, labels = (tensor.to(device) for tensor in data)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (128,), generator=draw).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = functional.cross_entropy(module(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        schedule.step()


def fine_tune(
    task: Pictures, size: Size, variants: int, cache: CheckpointCache, device: torch.device
) -> list[Contender]:
    """One starting point, then variants of it with other learning rates, lengths and seeds."""
    torch.manual_seed(0)
    module = task.model().to(device)
    train(module, task.draw(20_000, seed=1), size.steps, size.rate, seed=0)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    more = task.draw(20_000, seed=2)
    draw = torch.Generator().manual_seed(3)
    contenders = []
    logged = cache.folder / "logged"
    for variant in range(variants):
        module.load_state_dict(start)
        rate = size.rate * 10 ** (-2 + 2.5 * torch.rand(1, generator=draw).item())
        steps = int(size.steps * (0.1 + 0.2 * torch.rand(1, generator=draw).item()))
        train(module, more, steps, rate, seed=variant)
        save_file(module.state_dict(), logged)
        digest = cache.ingest(logged, WeightsFormat.SAFETENSORS)[0].digest
        contenders.append(Contender(digest, f"{variant:03}", variant))
    logged.unlink()
    return contenders


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
        self._module = task.model().to(device).eval()
        examples, size = task.examples("validation"), task.batch_size
        parts = (list(islice(examples, at, at + size)) for at in range(0, len(examples), size))
        self._batches = [(x.to(device), y.to(device)) for x, y in map(task.collate, parts)]
        self._total: dict[str, Tensor] = {}
        self._added: dict[str, Tensor] = {}
        self._count = 0

    def score(self, digest: Digest) -> float:
        """Of the soup so far with this one more, on the whole split."""
        added = load_file(self._cache.path(digest))
        total = {name: self._total[name] + tensor for name, tensor in added.items()} if self._total else added
        self._module.load_state_dict({name: tensor / (self._count + 1) for name, tensor in total.items()})
        self._added = total
        with torch.inference_mode():
            scores = [self._task.score(self._task.predict(self._module, b), b) for b in self._batches]
        return float(torch.cat(scores).double().mean())

    def keep(self) -> None:
        """The last one scored becomes part of the soup."""
        self._total, self._count = self._added, self._count + 1

    def forward(self) -> float:
        """Nothing but the forward passes over the split."""
        with torch.inference_mode():
            return float(sum(self._module(images).sum() for images, _ in self._batches))

    def greedy(self, ranked: Sequence[Digest]) -> list[Digest]:
        """The paper's pass, after the ranking."""
        self._total, self._count, kept, best = {}, 0, [], -1.0
        for digest in ranked:
            score = self.score(digest)
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


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fine-tune, then select in both ways."""
    device, size = choose_device(chosen.device), SIZES[chosen.model]
    task = Pictures(size, chosen.examples, chosen.batch)
    cache, clock = CheckpointCache(folder), Clock(device)
    training, contenders = clock(lambda: fine_tune(task, size, chosen.variants, cache, device))
    bench = TorchBench(
        task, identity=("pictures", "1"), task_args={}, checkpoints=Cached(cache), device=device
    )
    inner = bench.evaluator("validation")
    evaluator = RememberingEvaluator(inner, MemoryStore())
    trials = [Trial(Recipe.mean([c.checkpoint])) for c in contenders]
    evaluator.evaluate(trials[:1])  # decodes the data
    ranking, outcomes = clock(lambda: evaluator.evaluate(trials))
    scores = {
        c.checkpoint: o.value for c, o in zip(contenders, outcomes, strict=True) if isinstance(o, Score)
    }
    before = inner.passes
    method = Greedy(contenders, accept=Accept.NOT_WORSE)
    fast, selection = clock(lambda: run_selection(method, evaluator))
    accepted, failed = margins(selection, chosen.examples)
    plain = Plain(task, cache, device)
    ranked = sorted(contenders, key=lambda c: (-scores[c.checkpoint], c.started))
    with reproducible(device):
        plain.score(ranked[0].checkpoint)
        slow, kept = clock(lambda: plain.greedy([c.checkpoint for c in ranked]))
        forward, _ = clock(lambda: [plain.forward() for _ in range(3)])
    full, _ = clock(
        lambda: [bench.evaluator("validation", plain=True).evaluate(trials[i : i + 1]) for i in range(3)]
    )
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "parameters": sum(p.numel() for p in task.model().parameters()),
        "error": 1 - scores[ranked[0].checkpoint],
        "accepted_ranks": accepted,
        "margins": failed,
        "training_s": training,
        "ranking_s": ranking,
        "greedy_s": fast,
        "plain_greedy_s": slow,
        "greedy_passes": inner.passes - before,
        "plain_passes": len(ranked),
        "forward_share": forward / full,
        "same": list(selection.recipe.checkpoints) == kept,
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SIZES, default="vit-tiny")
    parser.add_argument("--variants", type=int, default=24)
    parser.add_argument("--examples", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default=None)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as folder:
        figures = measure(chosen, Path(folder))
    accepted, rejected = len(figures["accepted_ranks"]), len(figures["margins"])
    goal = accepted + 1.3 * figures["error"] * rejected
    print(f"{figures['device']}, {figures['parameters'] / 1e6:.1f}M parameters, {chosen.variants} variants")
    print(
        f"accepted at ranks {figures['accepted_ranks']}; rejected by at least {figures['margins']} examples"
    )
    print(f"full-pass equivalents: {figures['greedy_passes']:.2f}; A + 1.3 e R = {goal:.2f}")
    assert not math.isnan(goal)
    print(json.dumps(figures | {"goal_passes": goal}))


if __name__ == "__main__":
    main()
