"""Every evaluator keeps the same promises."""

import math
import random
from collections.abc import Sequence

import pytest
import torch

from registry.entities import Recipe, digest_of_bytes
from registry.evaluation import RememberingEvaluator, TorchBench
from registry.ports import Evaluator
from registry.store.memory import MemoryStore
from registry.testing import tiny
from registry.testing.evaluator_contract import EvaluatorContract
from registry.testing.evaluators import TableEvaluator

DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(4)]
RECIPES = [
    *(Recipe.mean([digest]) for digest in DIGESTS),
    Recipe.mean(DIGESTS[:2]),
    Recipe.mean(DIGESTS),
    Recipe.mean(DIGESTS[::-1]),
]


def right_or_wrong(recipe: Recipe) -> list[float]:
    dice = random.Random(recipe.digest)  # noqa: S311 - no secret
    return [float(dice.random() < 0.7) for _ in range(20)]


def any_number(recipe: Recipe) -> list[float]:
    if len(recipe.ingredients) == 2:
        return [0.5, math.nan, 0.5]
    dice = random.Random(recipe.digest)  # noqa: S311 - no secret
    return [dice.uniform(-3.0, 0.1) for _ in range(3)]


class TestTableEvaluator(EvaluatorContract):
    @pytest.fixture(params=["full passes", "early rejection", "any number"])
    def evaluator(self, request: pytest.FixtureRequest) -> Evaluator:
        if request.param == "any number":
            return TableEvaluator(any_number, n=3, greatest=0.1)
        return TableEvaluator(
            right_or_wrong, n=20, greatest=1.0 if request.param == "early rejection" else None
        )

    @pytest.fixture
    def recipes(self) -> Sequence[Recipe]:
        return RECIPES


class TestRememberingEvaluator(EvaluatorContract):
    @pytest.fixture(params=[None, 1.0], ids=["full passes", "early rejection"])
    def evaluator(self, request: pytest.FixtureRequest) -> Evaluator:
        return RememberingEvaluator(
            TableEvaluator(right_or_wrong, n=20, greatest=request.param), MemoryStore()
        )

    @pytest.fixture
    def recipes(self) -> Sequence[Recipe]:
        return RECIPES


class TestTorchEvaluator(EvaluatorContract):
    @pytest.fixture(params=list(tiny.KINDS))
    def evaluator(self, request: pytest.FixtureRequest) -> Evaluator:
        kind: str = request.param

        def weights(recipe: Recipe) -> list[tuple[str, torch.Tensor]]:
            states = [tiny.weights(kind, seed=DIGESTS.index(digest)) for digest in recipe.checkpoints]
            return [(name, torch.stack([s[name] for s in states]).mean(dim=0)) for name in states[0]]

        bench = TorchBench(
            tiny.TinyTask(kind),
            identity=("tiny", "1"),
            task_args={},
            weights=weights,
            device=torch.device("cpu"),
        )
        return bench.evaluator("validation")

    @pytest.fixture
    def recipes(self) -> Sequence[Recipe]:
        return RECIPES
