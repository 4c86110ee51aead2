"""What `stockpot task check` and the suite of `stockpot.testing` look at: tasks whole and broken."""

# ruff: noqa: ARG002 - tasks take what their contract says

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stockpot.evaluation.task_contract import Finding, TaskOnTrial, look
from stockpot.ports import Task
from stockpot.tasks.skeleton import MyTask
from stockpot.testing import tiny
from stockpot.testing.task_contract import TaskContract

SERIAL = itertools.count()


class TestSkeleton(TaskContract):
    @pytest.fixture
    def make(self) -> Callable[[], Task]:
        return MyTask

    @pytest.fixture(params=["validation", "test", "shifted"])
    def split(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


class TestMeasured(TaskContract):
    @pytest.fixture
    def make(self) -> Callable[[], Task]:
        return tiny.MeasuredTask


class TestLanguage(TaskContract):
    @pytest.fixture
    def make(self) -> Callable[[], Task]:
        return tiny.LanguageTask


class AnotherModel(tiny.TinyTask):
    def model(self) -> nn.Module:
        return nn.Linear(tiny.FEATURES, next(SERIAL) + tiny.CLASSES)


class Shuffled(tiny.TinyTask):
    def examples(self, split: str) -> Any:
        examples = list(super().examples(split))
        begin = next(SERIAL) % len(examples)
        return examples[begin:] + examples[:begin]


class ShuffledName(tiny.TinyTask):
    def digest(self, split: str) -> str:
        return f"{split}{next(SERIAL)}"


class OfTheBatch(tiny.TinyTask):
    bounds = None

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return outputs.sum(dim=1) - outputs.mean()


class Dropping(tiny.TinyTask):
    bounds = None

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.dropout(super().predict(model, batch))

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return outputs.sum(dim=1)


class Beyond(tiny.TinyTask):
    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return 100 * torch.ones(len(outputs))


class Undefined(tiny.TinyTask):
    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return torch.full((len(outputs),), torch.nan)


class OneForAll(tiny.TinyTask):
    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return super().score(outputs, batch).mean()


class Origins(tiny.TinyTask):
    def groups(self, split: str) -> list[int]:
        return [1, 2, 3]


class OfAnotherSplit(tiny.LanguageTask):
    def features(self, split: str) -> Tensor:
        return super().features(split)[:7]


class OfAnImage(tiny.TinyTask):
    """What it calls features is its own business."""

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Squared(tiny.LanguageTask):
    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return -super().score(outputs, batch).square()


class OneNumber(tiny.LanguageTask):
    def log_likelihood(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return super().log_likelihood(outputs, batch).sum(dim=1)

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.log_likelihood(outputs, batch)


def findings(make: Callable[[], Task]) -> list[Finding]:
    return list(look(TaskOnTrial(make, "odd", "validation")))


@pytest.mark.parametrize(
    ("make", "promise", "fault"),
    [
        (AnotherModel, "is made alike each time", "model() is another one each time: other shapes: "),
        (Shuffled, "gives the same examples in the same order", "are others each time"),
        (ShuffledName, "names its data", "digest() is another one each time"),
        (Origins, "tells origins", "has length 3, the split has 20 examples"),
        (OfAnotherSplit, "tells features", "has 7 rows, the split has 60 examples"),
        (OneForAll, "predicts and scores each example", "of shape [] for a batch of 8"),
        (Beyond, "predicts and scores each example", "returned 100.0 for example 0, outside [0.0, 1.0]"),
        (Undefined, "scores numbers", "score() is NaN for 16 examples"),
        (Dropping, "scores alike each time", "the same batch scores otherwise"),
        (Squared, "tells log likelihoods", " times the sum of log_likelihood() for example 0, and "),
        (OneNumber, "tells log likelihoods", "log_likelihood() returned a torch.float64 tensor of shape [8]"),
        (OfTheBatch, "scores an example alike in every batch", "it depends on its neighbours"),
        (lambda: tiny.TinyTask("mates"), "scores an example alike in every batch", "its neighbours"),
    ],
)
def test_what_is_broken_is_told_with_its_mend(make: Callable[[], Task], promise: str, fault: str) -> None:
    broken = {found.promise: found for found in findings(make) if found.fault}
    assert fault in broken[promise].fault
    assert broken[promise].mend


def test_a_method_named_features_that_nobody_uses_is_no_fault() -> None:
    (found,) = [found for found in findings(OfAnImage) if found.promise == "tells features"]
    assert (found.fault, found.told) == ("", "none")


def test_all_faults_are_told_at_once_and_each_once() -> None:
    class Both(Shuffled, Origins):
        pass

    class NoData(tiny.TinyTask):
        def examples(self, split: str) -> Any:
            raise OSError("the disk is gone")

    assert [found.promise for found in findings(Both) if found.fault] == [
        "gives the same examples in the same order",
        "tells origins",
    ]
    (gone,) = [found.fault for found in findings(NoData) if found.fault]
    assert "the disk is gone" in gone


def test_what_is_allowed_but_costs_something_is_told_and_is_no_fault() -> None:
    class Guessing(tiny.TinyTask):
        def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
            return (outputs.argmax(dim=1) == batch[1]).float()

    class Ragged(tiny.TinyTask):
        def collate(self, examples: list[tiny.Example]) -> Any:
            x, labels = super().collate(examples)
            return x, labels, torch.zeros(len(examples), next(SERIAL) % 7 + 1)

    told = {found.promise: found for make in (Guessing, Ragged) for found in findings(make) if found.told}
    assert not any(found.fault for found in told.values())
    assert "a model that diverged looks like a guess" in "".join(f.told for f in findings(Guessing))
    assert "Pad to a fixed length" in told["makes batches of one shape"].told
