"""Every evaluator keeps the same promises."""

import math
import random
from collections.abc import Sequence

import pytest
import torch

from stockpot.entities import Bound, Recipe, Score, Threshold, Trial, digest_of_bytes
from stockpot.evaluation import TorchBench
from stockpot.ports import Evaluator
from stockpot.store.memory import MemoryStore
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.testing.evaluator_contract import EvaluatorContract
from stockpot.testing.evaluators import TableEvaluator
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

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


@pytest.mark.parametrize(("place", "kind"), [(0, Score), (9, Score), (10, Bound), (19, Bound)])
def test_a_table_stops_at_a_bound_unless_it_meets_a_nan_before(place: int, kind: type) -> None:
    examples = [0.0] * 20
    examples[place] = math.nan
    trial = Trial(RECIPES[0], Threshold(0.5, strict=True))  # out of reach after ten
    (outcome,) = TableEvaluator(lambda _: examples, n=20, greatest=1.0).evaluate([trial])
    assert type(outcome) is kind


class TestSharedEvaluator(EvaluatorContract):
    @pytest.fixture(params=[None, 1.0], ids=["full passes", "early rejection"])
    def evaluator(self, request: pytest.FixtureRequest) -> Evaluator:
        return SharedEvaluator(TableEvaluator(right_or_wrong, n=20, greatest=request.param), MemoryStore())

    @pytest.fixture
    def recipes(self) -> Sequence[Recipe]:
        return RECIPES


def bench(kind: str, task: type[tiny.TinyTask] = tiny.TinyTask) -> TorchBench:
    # Drawn here, not on demand: threads share torch's random numbers.
    saved = {digest: tiny.weights(kind, seed=seed) for seed, digest in enumerate(DIGESTS)}
    return TorchBench(
        task(kind),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(saved.__getitem__),
        device=torch.device("cpu"),
    )


class TestTorchEvaluator(EvaluatorContract):
    @pytest.fixture(params=list(tiny.KINDS))
    def evaluator(self, request: pytest.FixtureRequest) -> Evaluator:
        return bench(request.param).evaluator("validation")

    @pytest.fixture
    def recipes(self) -> Sequence[Recipe]:
        return RECIPES


class TestTorchEvaluatorOfAMetric(EvaluatorContract):
    @pytest.fixture(params=[False, True], ids=["fast", "plain"])
    def evaluator(self, request: pytest.FixtureRequest) -> Evaluator:
        return bench("dense", tiny.MeasuredTask).evaluator("validation", plain=request.param)

    @pytest.fixture
    def recipes(self) -> Sequence[Recipe]:
        return RECIPES
