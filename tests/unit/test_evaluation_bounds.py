"""The bounds that a task gives, before anything is decided by them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stockpot.entities import Bound, Recipe, Score, Threshold, Trial, digest_of_bytes
from stockpot.errors import BadTask
from stockpot.evaluation import TorchBench
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints

RECIPE = Recipe.mean([digest_of_bytes(b"weights")])
OUT_OF_REACH = Trial(RECIPE, Threshold(2.0, strict=False))
NOTHING: Any = object()


def bench(bounds: Any, above: float = 0.0) -> TorchBench:
    class Bounded(tiny.TinyTask):
        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            return super().score(outputs, batch) + above

    task = Bounded()
    task.bounds = bounds
    return TorchBench(
        task,
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(lambda _: tiny.weights()),
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize(
    "bounds",
    [
        (0, math.nan),
        (math.nan, 1),
        (0.0,),
        (0, 1, 2),
        "01",
        ("0", "1"),
        (1, 0),
        (1, 1),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        0.5,
        (torch.zeros(2), torch.ones(2)),
        NOTHING,
    ],
)
def test_bounds_that_bound_nothing_are_refused_before_anything_is_evaluated(bounds: Any) -> None:
    with pytest.raises(BadTask, match="task tiny: bounds is ") as raised:
        bench(bounds).evaluator("validation")
    assert "bounds = (least, greatest)" in raised.value.mend


def test_bounds_that_cannot_be_read_are_the_tasks_fault() -> None:
    class Boundless(tiny.TinyTask):
        @property
        def bounds(self) -> Any:
            raise OSError("gone")

        @bounds.setter
        def bounds(self, _: Any) -> None: ...

    made = bench(None)
    made.workspace.task._task = Boundless()
    vars(made.workspace.task).pop("bounds", None)
    with pytest.raises(BadTask, match="bounds raised OSError: gone"):
        made.evaluator("validation")


@pytest.mark.parametrize(
    "bounds", [(0, 1), [0.0, 1.0], np.array([0, 1]), torch.tensor([0, 1]), (-math.inf, 1)]
)
def test_a_finite_upper_bound_in_whatever_form_rejects_early(bounds: Any) -> None:
    (outcome,) = bench(bounds).evaluator("validation").evaluate([OUT_OF_REACH])
    assert isinstance(outcome, Bound)


@pytest.mark.parametrize("bounds", [None, (0, math.inf), (-math.inf, math.inf)])
def test_scores_without_an_upper_bound_take_full_passes_and_infinity_is_none_of_them(bounds: Any) -> None:
    (outcome,) = bench(bounds).evaluator("validation").evaluate([OUT_OF_REACH])
    assert isinstance(outcome, Score)
    with pytest.raises(BadTask, match=r"score\(\) returned inf for example 0"):
        bench(bounds, above=math.inf).evaluator("validation").evaluate([OUT_OF_REACH])
