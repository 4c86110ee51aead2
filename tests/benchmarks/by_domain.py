"""What scores by domain add to the passes that they are read off; one line of JSON.

    python -m tests.benchmarks.by_domain [--width 1280] [--examples 4000] [--domains 8]

Each turn scores the same candidates, without domains and with them, in turn first. `without`, `together`:
seconds of a turn. `added`: those of the second that went into the score of the mixture, the scores of all
domains, and the parts that specialists are chosen on. Both take the same number of `passes`, or it fails.
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stockpot.entities import Aim, Recipe, digest_of_bytes
from stockpot.evaluation import TorchBench
from stockpot.store import MemoryStore
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.workflow.selecting.watched import score_in_full
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

FEATURES, CLASSES = 512, 10
CANDIDATES = 4


class Task:
    """Made-up examples, dealt to the domains in turn."""

    version = "1"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    batch_size = 256

    def __init__(self, width: int, examples: int, domains: int) -> None:
        self._width, self._n, self._count = width, examples, domains

    def model(self) -> nn.Module:
        """``[n, 512]`` to ``[n, 10]``."""
        inner = (nn.Linear(FEATURES, self._width), nn.ReLU(), nn.Linear(self._width, self._width), nn.ReLU())
        return nn.Sequential(*inner, nn.Linear(self._width, CLASSES))

    def examples(self, split: str) -> Sequence[tuple[Tensor, int]]:  # noqa: ARG002 - the same in each
        """Inputs and labels."""
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(self._n, FEATURES, generator=draw)
        return list(zip(x, torch.randint(CLASSES, (self._n,), generator=draw).tolist(), strict=True))

    def domains(self, split: str) -> Sequence[str]:  # noqa: ARG002 - the same in each
        """The label of each example."""
        return [f"domain {place % self._count}" for place in range(self._n)]

    def collate(self, examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        """Inputs and labels."""
        return torch.stack([x for x, _ in examples]), torch.tensor([label for _, label in examples])

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Logits."""
        logits: Tensor = model(batch[0])
        return logits

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        """1 where the answer is right, else 0."""
        return (outputs.argmax(dim=1) == batch[1]).float()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Turn by turn."""
    task = Task(arguments.width, arguments.examples, arguments.domains)
    recipes = [Recipe.mean([digest_of_bytes(b"%d" % number)]) for number in range(CANDIDATES)]
    torch.manual_seed(0)
    states = {recipe.checkpoints[0]: task.model().state_dict() for recipe in recipes}
    bench = TorchBench(
        task,
        identity=("by-domain", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(states.__getitem__),
        device=torch.device("cpu"),
    )
    inner = bench.evaluator("validation", compared=False)
    labels = bench.domains("validation")
    assert labels is not None
    took: dict[str, list[float]] = {"without": [], "together": [], "added": []}

    def turn(aim: Aim | None) -> None:
        evaluator = SharedEvaluator(inner, MemoryStore(), aim=aim)
        begin, added = time.perf_counter(), 0.0
        for recipe in recipes:
            score = score_in_full(recipe, evaluator)
            read = time.perf_counter()
            assert 0.0 <= score.value <= 1.0
            if aim is not None:
                parts = [score.of_domain(d, aim.places(d)) for d in aim.all_domains]
                assert all(0.0 <= part.value <= 1.0 for part in parts)
                assert len(parts) == arguments.domains
                assert sum(len(part.examples) for part in parts) == arguments.examples
                added += time.perf_counter() - read
        took["without" if aim is None else "together"].append(time.perf_counter() - begin)
        if aim is not None:
            took["added"].append(added)

    def of_domains() -> Aim:
        return Aim(labels, dict.fromkeys(labels, 1.0))

    turn(None)  # warms up
    took["without"].clear()
    passes = inner.passes
    for number in range(arguments.repeats):
        turns = [None, of_domains()]
        for aim in turns if number % 2 else turns[::-1]:
            before = inner.passes
            turn(aim)
            assert inner.passes - before == passes, "a further pass"
    return {**took, "passes": passes, "parameters": sum(p.numel() for p in task.model().parameters())}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--domains", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
