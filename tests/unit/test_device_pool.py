"""Several devices answer as one does."""

import gc
import random
import weakref
from collections.abc import Sequence
from threading import Barrier, Event

import pytest
import torch
from torch import Tensor, nn

from stockpot.entities import (
    Accept,
    Contender,
    EvaluationProtocol,
    Outcome,
    Recipe,
    Score,
    Trial,
    digest_of_bytes,
)
from stockpot.errors import BadRequest, BadTask, DeviceLost, StockpotError
from stockpot.evaluation import DevicePool, RememberedOutputs, RememberingEvaluator, TorchBench
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.store import MemoryStore
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints

CPU = torch.device("cpu")
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(8)]
CONTENDERS = [Contender(digest, f"run-{seed}", seed) for seed, digest in enumerate(DIGESTS)]
SAVED = {digest: tiny.weights(seed=seed, spread=0.3) for seed, digest in enumerate(DIGESTS)}


def bench(task: tiny.TinyTask | None = None, outputs: RememberedOutputs | None = None) -> TorchBench:
    return TorchBench(
        task or tiny.TinyTask(n="50"),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(SAVED.__getitem__),
        device=CPU,
        outputs=outputs,
    )


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


class Mortal(tiny.TinyTask):
    """Its device falls off the bus after so many batches, and whatever is asked of it then fails too."""

    def __init__(self, batches: float, died: Event) -> None:
        super().__init__(n="50")
        self._left = batches
        self._died = died

    def _live(self) -> None:
        if self._died.is_set():
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    def model(self) -> nn.Module:
        self._live()
        return super().model()

    def examples(self, split: str) -> Sequence[tiny.Example]:
        self._live()
        return super().examples(split)

    def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
        self._live()
        return super().collate(examples)

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        self._left -= 1
        if self._left < 0:
            self._died.set()
        self._live()
        return super().predict(model, batch)

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        self._live()
        return super().score(outputs, batch)


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


def test_devices_whose_tasks_hand_out_one_module_hold_their_own_weights() -> None:
    backbone = tiny.TinyTask(n="50").model()

    class Cached(tiny.TinyTask):
        def model(self) -> nn.Module:
            return backbone

    trials = [Trial(Recipe.mean([digest])) for digest in DIGESTS]
    expected = bench().evaluator("validation").evaluate(trials)
    with DevicePool([bench(Cached(n="50")) for _ in range(3)]) as pool:
        assert pool.evaluator("validation").evaluate(trials) == expected
    modules = {id(made.models.module) for made in pool._benches}  # scores may agree by luck
    assert len(modules) == 3


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
    assert any("device 2: number of examples: 40 here, 50 there" in fault for fault in raised.value.faults)


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


def test_what_is_no_evaluation_goes_to_a_device_that_is_left() -> None:
    died, outputs, soup = Event(), RememberedOutputs(), Recipe.mean(DIGESTS[:3])
    trials = [Trial(Recipe.mean([digest])) for digest in DIGESTS]
    one = bench(outputs=RememberedOutputs())
    one.evaluator("validation").evaluate(trials)
    with DevicePool([bench(Mortal(10, died), outputs), bench(Surviving(died), outputs)]) as pool:
        pool.evaluator("validation").evaluate(trials)
        assert died.is_set()
        assert pool.ensemble(soup, "validation") == one.ensemble(soup, "validation") is not None
        assert torch.equal(pool.example("test", 3), one.example("test", 3))
        states = [b.module_with(soup).state_dict() for b in (pool, one)]
        assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())
        assert (pool.groups("test"), pool.architecture) == (one.groups("test"), one.architecture)


def test_splits_are_opened_and_batches_halved_on_the_devices_that_are_left() -> None:
    died = Event()
    trials = [Trial(Recipe.mean([digest])) for digest in DIGESTS]
    for place in (0, 1):
        died.clear()
        benches = [bench(Surviving(died))]
        benches.insert(place, bench(Mortal(3, died)))
        with DevicePool(benches) as pool:
            pool.evaluator("validation").evaluate(trials)
            assert died.is_set()
            assert pool.evaluator("test").evaluate(trials) == bench().evaluator("test").evaluate(trials)
            assert pool.halve_batch() == (8, 4)
            evaluator = pool.evaluator("validation")
            assert evaluator.protocol.conditions.batch_size == 4
            assert len(evaluator.evaluate(trials, then=[Trial(Recipe.mean(DIGESTS))])) == len(trials)


def test_halved_batches_leave_nothing_of_the_larger_ones_on_any_device() -> None:
    benches = [bench(), bench()]
    trials = [Trial(Recipe.mean([digest])) for digest in DIGESTS]
    with DevicePool(benches) as pool:
        pool.evaluator("validation").evaluate(trials)
        held = [weakref.ref(made.evaluator("validation")) for made in benches]
        pool.halve_batch()
        gc.collect()
        assert [evaluator() for evaluator in held] == [None, None]


def test_where_no_device_is_left_whatever_is_asked_says_how_to_go_on() -> None:
    died = Event()
    with DevicePool([bench(Dying(died)), bench(Dying(died))]) as pool:
        evaluator = pool.evaluator("validation")
        with pytest.raises(DeviceLost):
            evaluator.evaluate([Trial(Recipe.mean([digest])) for digest in DIGESTS])
        for ask in (
            lambda: pool.ensemble(Recipe.mean(DIGESTS), "validation"),
            lambda: pool.example("test", 3),
            lambda: pool.module_with(Recipe.mean(DIGESTS)),
            lambda: pool.evaluator("test"),
            pool.halve_batch,
        ):
            with pytest.raises(DeviceLost, match="no device is left") as raised:
                ask()
            assert "the same command again goes on from there" in raised.value.mend
            assert len(raised.value.faults) == 2


@pytest.mark.parametrize("devices", [1, 2])
def test_what_was_committed_before_the_loss_is_not_evaluated_again(devices: int) -> None:
    store, died = MemoryStore(), Event()
    trials = [Trial(Recipe.mean([digest])) for digest in DIGESTS]
    tasks = [
        Mortal(7 * 3 + 5, died) for _ in range(devices)
    ]  # seven batches are a pass, a few prove the swap

    def run(benches: list[TorchBench]) -> tuple[RememberingEvaluator, list[Outcome] | DeviceLost]:
        with DevicePool(benches, keep=store.commit_score) as pool:
            inner = pool.evaluator("validation") if devices > 1 else benches[0].evaluator("validation")
            evaluator = RememberingEvaluator(inner, store)
            try:
                return evaluator, evaluator.evaluate(trials)
            except DeviceLost as error:
                return evaluator, error

    first, error = run([bench(task) for task in tasks])
    assert isinstance(error, DeviceLost)
    assert "is committed: the same command again" in error.mend
    assert "CUDA error: unspecified launch failure" in str(error)
    committed = [t for t in trials if store.score(t.recipe.digest, first.protocol.digest)]
    assert len(committed) >= 3
    second, outcomes = run([bench() for _ in range(devices)])
    assert second.started == len(trials) - len(committed)
    assert outcomes == bench().evaluator("validation").evaluate(trials)
