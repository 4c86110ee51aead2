"""Greedy with exact early rejection beside the plain loop, on sweeps of really trained small models.

Prints, per sweep: candidates, accepted (A), rejected (R), the incumbent's mean error at the rejections (e),
full-pass equivalents of the greedy pass, probe and waste included, the goal A + 1.3 e R, and their ratio.
Every sweep is checked: same recipe, same decision at each step, same score wherever one was completed, every
bound true.

The seeds are not those on which the policy's constants were chosen.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stockpot.entities import Accept, Contender, Digest, Score, Selection, Trial, digest_of_bytes
from stockpot.evaluation import TorchBench
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.testing.checkpoints import MadeCheckpoints

CLASSES, MODES, FEATURES = 10, 4, 64
State = dict[str, Tensor]


@dataclass(frozen=True)
class Regime:
    """How a sweep is fine-tuned. `steady` runs keep a high learning rate: their averages are much better."""

    kind: str
    noise: float
    flipped: float
    learning_rates: tuple[float, float]
    steady: bool


def regime(seed: int) -> Regime:
    """Half of the sweeps search learning rates, as people do; half end while still noisy."""
    draw = torch.Generator().manual_seed(seed)
    noise, step = (torch.rand(2, generator=draw)).tolist()
    steady = seed % 4 >= 2
    least, greatest = (2e-3, 8e-3) if steady else (1e-4, 1.5e-2)
    rate = math.exp(math.log(1e-3) + step * math.log(greatest / 1e-3))
    return Regime(
        kind="dense" if seed % 2 else "conv",
        noise=0.9 + 0.7 * noise,
        flipped=(0.0, 0.03, 0.1)[seed % 3],
        learning_rates=(0.9 * rate, rate) if steady else (least, rate),
        steady=steady,
    )


def network(kind: str) -> nn.Module:
    """``[n, 64]`` to ``[n, 10]``."""
    if kind == "dense":
        layers = [nn.Linear(FEATURES, 96), nn.LayerNorm(96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, CLASSES))
    first, second = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 24, 3, padding=1, stride=2)
    layers = [nn.Unflatten(1, (1, 8, 8)), first, nn.GroupNorm(3, 12), nn.ReLU(), second, nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(384, CLASSES))


class Blobs:
    """A task: which of ten families of Gaussian blobs a point belongs to."""

    version = "1"
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, seed: int, n: int, batch_size: int) -> None:
        self.regime, self.batch_size = regime(seed), batch_size
        self._draw = torch.Generator().manual_seed(seed)
        self._centres = torch.randn(CLASSES, MODES, FEATURES, generator=self._draw)
        self._held_out = self.points(n)

    def points(self, n: int, shift: float = 0.0) -> tuple[Tensor, Tensor]:
        """Points and labels, of centres that are so far off."""
        centres = self._centres + shift * torch.randn(self._centres.shape, generator=self._draw)
        label = torch.randint(CLASSES, (n,), generator=self._draw)
        mode = torch.randint(MODES, (n,), generator=self._draw)
        x = centres[label, mode] + self.regime.noise * torch.randn(n, FEATURES, generator=self._draw)
        other = torch.randint(CLASSES, (n,), generator=self._draw)
        flipped = torch.rand(n, generator=self._draw) < self.regime.flipped
        return x, torch.where(flipped, other, label)

    def model(self) -> nn.Module:
        """A small network."""
        return network(self.regime.kind)

    def examples(self, split: str) -> Sequence[tuple[Tensor, Tensor]]:
        """The held-out points, whatever the split."""
        del split
        return list(zip(*self._held_out, strict=True))

    def digest(self, split: str) -> str:
        """The split's name: a seed has one task."""
        return split

    def collate(self, examples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Points and labels."""
        return torch.stack([x for x, _ in examples]), torch.stack([y for _, y in examples])

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Logits."""
        logits: Tensor = model(batch[0])
        return logits

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """1 where the answer is right."""
        return (outputs.argmax(dim=1) == batch[1]).float()


def train(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    rate: float,
    steps: int,
    batch: int,
    *,
    seed: int,
    steady: bool,
) -> None:
    """AdamW; the learning rate falls to zero unless it is steady."""
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for step in range(steps):
        chosen = torch.randint(len(data[0]), (batch,), generator=draw)
        optimiser.param_groups[0]["lr"] = rate * (1.0 if steady else 1 - step / steps)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data[0][chosen]), data[1][chosen]).backward()  # type: ignore[no-untyped-call]  # torch's own gap
        optimiser.step()


def state_of(model: nn.Module) -> State:
    """Copies of its tensors."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def fine_tunes(task: Blobs, seed: int, candidates: int) -> dict[Digest, State]:
    """A sweep: one start, trained on shifted data, and fine-tuned with other rates, lengths and orders."""
    torch.manual_seed(seed)
    start, how = task.model(), task.regime
    train(start, task.points(4000, shift=0.5), 2e-3, 300, 64, seed=seed, steady=False)
    begun, data = state_of(start), task.points(3000)
    draw = torch.Generator().manual_seed(seed)
    states = {}
    for place in range(candidates):
        least, greatest = map(math.log, how.learning_rates)
        at, length = torch.rand(2, generator=draw).tolist()
        model = task.model()
        model.load_state_dict(begun)
        steps = 110 if how.steady else 60 + int(190 * length)
        rate = math.exp(least + at * (greatest - least))
        train(model, data, rate, steps, 16 if how.steady else 64, seed=1000 * seed + place, steady=how.steady)
        states[digest_of_bytes(b"%d of %d" % (place, seed))] = state_of(model)
    return states


def bench(task: Blobs, states: Mapping[Digest, State]) -> TorchBench:
    """A bench that averages these states."""
    cpu = torch.device("cpu")
    return TorchBench(
        task,
        identity=("blobs", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(states.__getitem__),
        device=cpu,
    )


def check(fast: Selection, plain: Selection, made: TorchBench) -> None:
    """The same answer, and every bound true."""
    assert (fast.recipe, fast.score, len(fast.steps)) == (plain.recipe, plain.score, len(plain.steps))
    for step, reference in zip(fast.steps, plain.steps, strict=True):
        assert (step.recipe, step.kept) == (reference.recipe, reference.kept)
        if step.bound is None:
            assert step.score == reference.score
        else:
            assert reference.score is not None
            assert step.bound >= reference.score
    (score,) = made.evaluator("validation", plain=True).evaluate([Trial(fast.recipe)])
    assert isinstance(score, Score)
    assert score.value == fast.score


def measure(task: Blobs, states: Mapping[Digest, State], accept: Accept) -> dict[str, float]:
    """One greedy pass, fast and plain."""
    contenders = [Contender(digest, f"run {place}", place) for place, digest in enumerate(states)]
    made = bench(task, states)
    evaluator = made.evaluator("validation")
    method = Greedy(contenders, accept=accept)
    fast = run_selection(method, evaluator)
    work = evaluator.passes - len(contenders)  # without the ranking
    plain = bench(task, states).evaluator("validation", plain=True)
    check(fast, run_selection(Greedy(contenders, accept=accept), plain), made)
    soups = fast.steps[len(contenders) :]
    incumbent = max(step.score for step in fast.steps[: len(contenders)] if step.score is not None)
    accepted, errors = 0, []
    for step in soups:
        if step.kept and step.score is not None:
            accepted, incumbent = accepted + 1, step.score
        else:
            errors.append(1.0 - incumbent)
    goal = accepted + 1.3 * sum(errors)
    return {
        "candidates": len(contenders),
        "accepted": accepted,
        "rejected": len(errors),
        "error": statistics.mean(errors) if errors else 0.0,
        "passes": work,
        "goal": goal,
        "ratio": work / goal,
        "plain": len(soups),
    }


def main() -> None:
    """Measure, and print a line per sweep and one of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=32)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    begun, figures = time.monotonic(), []
    print("| seed | model | rule | candidates | A | R | e | passes | A + 1.3 e R | ratio | plain |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.sweeps):
        task = Blobs(seed, chosen.examples, chosen.batch_size)
        states = fine_tunes(task, seed, chosen.candidates)
        for accept in Accept:
            f = measure(task, states, accept)
            figures.append(f)
            print(
                f"| {seed} | {task.regime.kind} | {accept.value} | {f['candidates']} | {f['accepted']} | "
                f"{f['rejected']} | {f['error']:.3f} | {f['passes']:.2f} | {f['goal']:.2f} | "
                f"{f['ratio']:.2f} | {f['plain']} |",
                flush=True,
            )
    ratios = sorted(f["ratio"] for f in figures)
    summary = {
        "passes": sum(f["passes"] for f in figures),
        "goal": sum(f["goal"] for f in figures),
        "plain": sum(f["plain"] for f in figures),
        "least": ratios[0],
        "median": statistics.median(ratios),
        "greatest": ratios[-1],
        "over": sum(ratio > 1.0 for ratio in ratios),
        "of": len(ratios),
        "ratios": ratios,
        "s": time.monotonic() - begun,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
