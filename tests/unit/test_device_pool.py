"""Several devices answer as one does."""

import random
from threading import Barrier, Event

import pytest
import torch
from torch import Tensor, nn

from registry.entities import Accept, Contender, EvaluationProtocol, Recipe, Score, Trial, digest_of_bytes
from registry.errors import BadRequest, BadTask, StockpotError
from registry.evaluation import DevicePool, TorchBench
from registry.selection import run_selection
from registry.selection.greedy import Greedy
from registry.testing import tiny
from registry.testing.checkpoints import MadeCheckpoints

CPU = torch.device("cpu")
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(8)]
CONTENDERS = [Contender(digest, f"run-{seed}", seed) for seed, digest in enumerate(DIGESTS)]
SAVED = {digest: tiny.weights(seed=seed, spread=0.3) for seed, digest in enumerate(DIGESTS)}


def bench(task: tiny.TinyTask | None = None) -> TorchBench:
    task = task or tiny.TinyTask(n="50")
    checkpoints = MadeCheckpoints(SAVED.__getitem__)
    return TorchBench(task, identity=("tiny", "1"), task_args={}, checkpoints=checkpoints, device=CPU)


class Telling(tiny.TinyTask):
    """Tells with how many threads torch computes."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.threads.add(torch.get_num_threads())
        return super().predict(model, batch)


class Noisy(tiny.TinyTask):
    """Draws random numbers, while the other one does."""

    def __init__(self, meeting: Barrier) -> None:
        super().__init__(n="8")
        self._meeting = meeting

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        self._meeting.wait(30)
        return super().predict(model, batch) + torch.rand(1)


class Dying(tiny.TinyTask):
    """Its device falls off the bus at the first batch."""

    def __init__(self, died: Event) -> None:
        super().__init__(n="50")
        self._died = died

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:  # noqa: ARG002 - the task's
        self._died.set()
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")


class Surviving(tiny.TinyTask):
    """Works, once the other has died."""

    def __init__(self, died: Event) -> None:
        super().__init__(n="50")
        self._died = died

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        assert self._died.wait(30)
        return super().predict(model, batch)


@pytest.mark.parametrize("accept", list(Accept))
@pytest.mark.parametrize("k", [2, 3])
def test_a_real_search_on_several_devices_is_that_of_one(k: int, accept: Accept) -> None:
    kept: dict[tuple[Recipe, EvaluationProtocol], Score] = {}
    with DevicePool([bench() for _ in range(k)], keep=lambda r, p, s: kept.update({(r, p): s})) as pool:
        found = run_selection(Greedy(CONTENDERS, accept=accept), pool.evaluator("validation"))
    one = bench().evaluator("validation")
    alone = run_selection(Greedy(CONTENDERS, accept=accept), one)
    assert (found.recipe, found.score) == (alone.recipe, alone.score)
    assert [(s.recipe, s.kept) for s in found.steps] == [(s.recipe, s.kept) for s in alone.steps]
    for (recipe, protocol), score in kept.items():
        assert one.evaluate([Trial(recipe)]) == [score]
        assert protocol == one.protocol


def test_splits_take_turns_on_the_live_modules() -> None:
    dice = random.Random(0)  # noqa: S311 - no secret
    trials = [Trial(Recipe.mean(dice.sample(DIGESTS, dice.randint(1, 4)))) for _ in range(20)]
    one = bench()
    plain = {split: one.evaluator(split) for split in ("validation", "test")}
    with DevicePool([bench(), bench()]) as pool:
        spread = {split: pool.evaluator(split) for split in ("validation", "test")}
        for place, trial in enumerate(trials):
            split = dice.choice(["validation", "test"])
            assert spread[split].evaluate([trial], then=trials[place + 1 :]) == plain[split].evaluate([trial])


def test_what_is_no_evaluation_is_as_on_one_device() -> None:
    one, recipe = bench(), Recipe.mean(DIGESTS[:2])
    with DevicePool([bench(), bench()]) as pool:
        pool.evaluator("validation").evaluate([Trial(recipe)], then=[Trial(Recipe.mean(DIGESTS[:3]))])
        assert pool.architecture == one.architecture
        assert pool.fits(one.architecture) == ()
        assert pool.groups("test") == one.groups("test")
        assert torch.equal(pool.example("test", 3), one.example("test", 3))
        states = [b.module_with(recipe).state_dict() for b in (pool, one)]
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


def test_each_thread_computes_as_the_program_does() -> None:
    tasks = [Telling(), Telling()]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with DevicePool([bench(task) for task in tasks]) as pool:
            torch.set_num_threads(1)  # as averaging in another thread may do for a moment
            pool.evaluator("validation").evaluate([Trial(Recipe.mean([digest])) for digest in DIGESTS])
    finally:
        torch.set_num_threads(before)
    assert tasks[0].threads | tasks[1].threads == {3}


def test_devices_whose_data_differ_are_refused() -> None:
    with DevicePool([bench(), bench(tiny.TinyTask(n="40"))]) as pool, pytest.raises(BadRequest) as raised:
        pool.evaluator("validation")
    assert any("n: 50 on the first, 40 on device 2" in fault for fault in raised.value.faults)


def test_a_task_that_draws_random_numbers_is_not_evaluated_side_by_side() -> None:
    meeting = Barrier(2)
    with DevicePool([bench(Noisy(meeting)), bench(Noisy(meeting))]) as pool:
        evaluator = pool.evaluator("validation")
        with pytest.raises(BadTask, match="name one device in STOCKPOT_DEVICE"):
            evaluator.evaluate([Trial(Recipe.mean([digest])) for digest in DIGESTS[:2]])


def test_a_device_that_dies_inside_the_tasks_code_is_not_the_tasks_fault() -> None:
    said: list[str] = []
    died = Event()
    trials = [Trial(Recipe.mean([digest])) for digest in DIGESTS]
    with DevicePool([bench(Dying(died)), bench(Surviving(died))], say=said.append) as pool:
        outcomes = pool.evaluator("validation").evaluate(trials)
    assert outcomes == bench().evaluator("validation").evaluate(trials)
    assert len(said) == 1
    with DevicePool([bench(Dying(died)), bench(Dying(died))], say=said.append) as pool:
        evaluator = pool.evaluator("validation")
        with pytest.raises(StockpotError, match="no device is left"):
            evaluator.evaluate(trials)
