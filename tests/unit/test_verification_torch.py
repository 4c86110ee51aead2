"""`verify_exact` on a real bench: it names what is drawn anew, and finds a fault of the hot swap."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Recipe,
    Run,
    Selection,
    SoupRequest,
    Sweep,
    SweepSelector,
    Trial,
    WeightsFormat,
    WeightsSource,
    digest_of_bytes,
)
from stockpot.errors import BadTask
from stockpot.evaluation import TorchBench
from stockpot.evaluation.weights import group_sums, live_module
from stockpot.evaluation.weights.block_feed import Block
from stockpot.selection.greedy import Greedy
from stockpot.selection.uniform import Uniform
from stockpot.soup import arithmetic
from stockpot.soup.arithmetic import RunningSum
from stockpot.soup.coefficients import Factors
from stockpot.store.memory import MemoryStore
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.testing.listener import Listener
from stockpot.workflow.selecting.ranking import Ranking
from stockpot.workflow.selecting.search import search
from stockpot.workflow.selecting.watched import score_in_full
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

pytestmark = pytest.mark.usefixtures("one_thread")
REQUEST = SoupRequest(model="m", task="tiny", sweep="s", verify_exact=True)
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(4)]


def bench_for(task: Any, kind: str = "dense") -> TorchBench:
    states = {digest: tiny.weights(kind, seed=seed) for seed, digest in enumerate(DIGESTS)}
    return TorchBench(
        task,
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(states.__getitem__),
        device=torch.device("cpu"),
    )


def candidate(number: int) -> Candidate:
    run = Run(f"id{number}", f"tune-{number}", "1", "FINISHED", number, {}, {}, {})
    source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "m.safetensors", "u", None, 1)
    return Candidate(run, source, "", Checkpoint(DIGESTS[number], 1, (), digest_of_bytes(b"")))


def verified(bench: TorchBench, *, methods: Sequence[str] = ("greedy", "uniform")) -> list[str]:
    """Rank, search and verify, as a request does. Returns what was said."""
    known: dict[str, type[Greedy | Uniform]] = {"greedy": Greedy, "uniform": Uniform}
    evaluator = SharedEvaluator(bench.evaluator("validation"), MemoryStore())
    found = [candidate(number) for number in range(len(DIGESTS))]
    held_out = {digest: score_in_full(Recipe.mean([digest]), evaluator).value for digest in DIGESTS}
    ordered = sorted(found, key=lambda c: -held_out[c.checkpoint.digest])
    ranking = Ranking(Sweep(SweepSelector("s"), tuple(found), ()), tuple(ordered), held_out)
    heard = Listener()
    selections: tuple[Selection, ...] = search(
        replace(REQUEST, methods=tuple(methods)),
        ranking,
        {name: known[name] for name in methods},
        evaluator,
        lambda: False,
        heard,
        bench.evaluator("validation", plain=True),
    )
    assert len(selections) == len(methods)
    return [line for line in heard.said if "agrees" in line]


class Small(tiny.TinyTask):
    batch_size = 4

    def __init__(self, kind: str = "dense") -> None:
        super().__init__(kind, n="61")


class NoisyCollate(Small):
    """Augments with numpy, unseeded, while it makes a batch."""

    def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
        x, y = super().collate(examples)
        noise = np.random.standard_normal(x.shape)  # noqa: NPY002 - as users write it
        return x + torch.from_numpy(noise).float(), y


class Mirrored(Sequence[tiny.Example]):
    """Mirrors every other example, by Python's dice."""

    def __init__(self, examples: Sequence[tiny.Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        x, y = self._examples[index]
        return (-x if random.random() < 0.5 else x), y  # noqa: S311 - no secret


class NoisyExamples(Small):
    def examples(self, split: str) -> Sequence[tiny.Example]:
        return Mirrored(super().examples(split))

    def digest(self, split: str) -> str:
        return split


class DropoutLeftOn(Small):
    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return super().predict(model, (nn.functional.dropout(batch[0], 0.5), batch[1]))


class NumpyInPredict(Small):
    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        noise = np.random.standard_normal(batch[0].shape)  # noqa: NPY002 - as users write it
        return super().predict(model, (batch[0] + torch.from_numpy(noise).float(), batch[1]))


@pytest.mark.parametrize("task", [NoisyCollate, NoisyExamples, DropoutLeftOn, NumpyInPredict])
def test_what_is_drawn_anew_for_each_pass_is_named_with_run_and_example(task: type[Small]) -> None:
    with pytest.raises(BadTask, match="do not get the same scores twice") as raised:
        verified(bench_for(task()), methods=("uniform",))
    assert raised.value.faults
    for fault in raised.value.faults[:10]:
        assert fault.startswith(("tune-", "the soup"))
        assert "at first" in fault
        assert "in the plain pass" in fault


class Augmented(Small):
    """Draws from torch's random numbers while it makes a batch: the same ones for each pass."""

    def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
        x, y = super().collate(examples)
        return x + 0.5 * torch.randn_like(x), y


class Seeded(Small):
    """Draws from a generator of its own, seeded for each batch."""

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        noise = torch.randn(batch[0].shape, generator=torch.Generator().manual_seed(3))
        return super().predict(model, (batch[0] + noise, batch[1]))


class Careless(Small):
    """Changes its batch in place, of a single example a part of the data."""

    batch_size = 1

    def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
        return examples[0][0][None], torch.tensor([examples[0][1]])

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return super().predict(model, (batch[0].add_(1.0), batch[1]))


class Transposed(Small):
    """Its batches do not lie in memory row by row."""

    def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
        x, y = super().collate(examples)
        return x.T.contiguous().T, y

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        assert batch[0].stride() == (1, len(batch[0])), "as it was made"
        return super().score(outputs, batch)


@pytest.mark.parametrize("task", [Small, Augmented, Seeded, Careless, Transposed])
def test_a_task_whose_passes_are_alike_passes(task: type[Small]) -> None:
    assert len(verified(bench_for(task()))) == 2


@pytest.mark.parametrize("kind", list(tiny.KINDS))
def test_every_kind_of_model_passes(kind: str) -> None:
    assert len(verified(bench_for(Small(kind), kind))) == 2


def test_the_plain_evaluator_makes_its_batches_anew_for_each_pass_in_the_same_order() -> None:
    made: list[list[int]] = []

    class Watched(Small):
        def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
            made.append([hash(x.numpy().tobytes()) for x, _ in examples])
            return super().collate(examples)

    bench = bench_for(Watched())
    trial = Trial(Recipe.mean(DIGESTS[:2]))
    bench.evaluator("validation").evaluate([trial])
    kept, made[:] = made.copy(), []
    for _ in range(2):
        bench.evaluator("validation", plain=True).evaluate([trial])
    assert made == kept * 2


def wrong_coefficient(monkeypatch: pytest.MonkeyPatch) -> None:
    right = arithmetic.rounded
    monkeypatch.setattr(arithmetic, "rounded", lambda c, dtype: -right(c, dtype))


def an_ingredient_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def add(block: Block, content: Tensor, factors: Factors, place: int, at: int) -> None:
        block.sums[at] = RunningSum(content * 0, factor=factors[block.name][place])

    monkeypatch.setattr(group_sums, "_add_to", add)


def a_tensor_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    right = live_module._blocks
    monkeypatch.setattr(
        live_module,
        "_blocks",
        lambda spec, *others: iter(()) if spec.name == "2.weight" else right(spec, *others),
    )


@pytest.mark.parametrize("plant", [wrong_coefficient, an_ingredient_left_out, a_tensor_left_as_it_was])
def test_a_fault_of_the_hot_swap_is_found(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    plant(monkeypatch)
    with pytest.raises(BadTask, match=r"do not get the same scores twice|answers otherwise") as raised:
        verified(bench_for(Small()), methods=("uniform",))
    assert "Stockpot is at fault" in raised.value.mend
