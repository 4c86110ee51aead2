"""A device with too little memory, wherever it shows."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stockpot.entities import Ensemble, Recipe, Score, Trial, digest_of_bytes, short
from stockpot.errors import NoRoomForWeights, OutOfDeviceMemory
from stockpot.evaluation import TorchBench, outputs, task_models, torch_evaluator
from stockpot.evaluation.passes import batches, forward
from stockpot.evaluation.weights import group_sums
from stockpot.soup.arithmetic import RunningSum
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints

CPU = torch.device("cpu")
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(2)]
SAVED = {digest: tiny.weights(seed=seed) for seed, digest in enumerate(DIGESTS)}
ALONE = [Recipe.mean([digest]) for digest in DIGESTS]
SOUP = Recipe.mean(DIGESTS)


class Tight(tiny.TinyTask):
    """Runs out of memory in predict() while it is `full`."""

    full: Callable[[], bool] = staticmethod(lambda: False)

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if self.full():
            full()
        return super().predict(model, batch)


def bench(task: tiny.TinyTask | None = None, said: list[str] | None = None) -> TorchBench:
    return TorchBench(
        task or Tight(),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(SAVED.__getitem__),
        device=CPU,
        say=None if said is None else said.append,
    )


def full(*_: object, **__: object) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def scores(made: TorchBench, recipes: Sequence[Recipe] = ALONE) -> list[Score]:
    outcomes = made.evaluator("validation").evaluate([Trial(recipe) for recipe in recipes])
    return [outcome for outcome in outcomes if isinstance(outcome, Score)]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (batches, "each_tensor"),  # copies to the device, and clones there
        (forward, "gaps"),
        (outputs.PassMemory, "keep"),
    ],
)
def test_a_shortage_outside_the_tasks_methods_is_one_of_batches(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OutOfDeviceMemory, match=r"Tried to allocate.*split 'validation'") as raised:
        scores(bench())
    assert "batch_size" in raised.value.mend


def test_a_shortage_over_an_ensemble_is_one_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    scores(made)
    expected = made.ensemble(Ensemble.of(SOUP.checkpoints), "validation")
    assert expected is not None
    with monkeypatch.context() as patched:
        patched.setattr(torch_evaluator, "reproducible", full)
        with pytest.raises(OutOfDeviceMemory, match="the ensemble"):
            made.ensemble(Ensemble.of(SOUP.checkpoints), "validation")
    assert made.ensemble(Ensemble.of(SOUP.checkpoints), "validation") == expected


def test_batches_that_are_kept_give_way_before_their_size_is_halved() -> None:
    task, said = Tight(), list[str]()
    made = bench(task, said)
    protocol = made.evaluator("validation").protocol
    task.full = lambda: vars(made.workspace.batches("validation")).get("_kept") is not None
    assert scores(made, [*ALONE, SOUP]) == scores(bench(), [*ALONE, SOUP])
    assert made.evaluator("validation").protocol == protocol
    assert said == ["cpu has no room to keep batches: they are made again for each pass"]


def test_outputs_that_are_kept_give_way_before_batches_are_halved() -> None:
    task, said = Tight(), list[str]()
    made = bench(task, said)
    evaluator = made.evaluator("validation")
    task.full = lambda: evaluator._memory.keeps_outputs
    assert scores(made) == scores(bench())
    assert said[-1] == "split 'validation': the device has no room to keep outputs"
    assert made.ensemble(Ensemble.of(SOUP.checkpoints), "validation") is None


def test_batches_are_made_for_each_pass_where_making_all_of_them_does_not_fit() -> None:
    class Growing(tiny.TinyTask):
        made = 0

        def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
            self.made += 1
            return full() if self.made == 3 else super().collate(examples)

    task = Growing()
    assert scores(bench(task)) == scores(bench())
    assert task.made == 3 + 2 * 3 + 3  # the last three to prove the hot swap


def test_batches_are_not_joined_where_there_is_no_room_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    made.evaluator("validation")
    split = made.workspace.batches("validation")
    with monkeypatch.context() as patched:
        patched.setattr(torch, "cat", full)
        assert split.mixable
        found = split.gathered([7, 11])
    assert all(torch.equal(a, b) for a, b in zip(found, split._make([7, 11]), strict=True))


def test_kept_batches_give_way_to_a_sum_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    made, expected = bench(said=said), scores(bench(), [*ALONE, SOUP])
    scores(made)

    def with_room(content: Tensor, factor: float) -> RunningSum:
        kept = vars(made.workspace.batches("validation")).get("_kept") is not None
        return full() if kept else RunningSum(content, factor=factor)

    monkeypatch.setattr(group_sums, "RunningSum", with_room)
    assert scores(made, [*ALONE, SOUP]) == expected
    assert said == ["cpu has no room to keep batches: they are made again for each pass"]


def test_a_sum_of_weights_that_does_not_fit_is_no_matter_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    monkeypatch.setattr(group_sums, "RunningSum", full)
    with pytest.raises(NoRoomForWeights, match=rf"weights of recipe {short(SOUP.digest)}") as raised:
        scores(made, [*ALONE, SOUP])
    assert "STOCKPOT_DEVICE" in raised.value.mend
    assert scores(made) == scores(bench()), "what needs no sum still fits"


def test_where_there_is_no_room_for_another_model_the_swap_goes_unproven_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = list[str]()
    monkeypatch.setattr(task_models, "put_plainly", full)
    assert scores(bench(said=said)) == scores(bench())
    assert said == ["cpu has no room for another model beside the live one to compare it with"]


def test_a_model_that_does_not_fit_is_no_matter_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "to", full)
    with pytest.raises(NoRoomForWeights, match=r"cpu ran out of memory.*the task's model") as raised:
        bench().evaluator("validation")
    assert "STOCKPOT_DEVICE" in raised.value.mend
