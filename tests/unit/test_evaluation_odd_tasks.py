"""Models and batches that look usual, keep something where nobody looks, and would score wrongly."""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stockpot.entities import (
    Accept,
    Bound,
    Contender,
    Digest,
    Recipe,
    Score,
    Threshold,
    Trial,
    digest_of_bytes,
)
from stockpot.errors import BadTask, Incompatible
from stockpot.evaluation import RememberedOutputs, TorchBench
from stockpot.evaluation.weights.proofs import swapped
from stockpot.ports import OrderDependent
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.store import MemoryStore
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.workflow.selecting.watched import Heard, PlainEvaluator
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

CPU = torch.device("cpu")
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(5)]
ALONE = [Recipe.mean([digest]) for digest in DIGESTS]


class Odd(tiny.TinyTask):
    """With a model of its own: a class without arguments."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.kind = kind

    def model(self) -> nn.Module:
        return self.kind()


def weights_of(kind: type[nn.Module]) -> Mapping[Digest, Mapping[str, Tensor]]:
    torch.manual_seed(7)
    return {digest: {k: torch.randn_like(v) for k, v in kind().state_dict().items()} for digest in DIGESTS}


def bench(
    task: Any,
    states: Mapping[Digest, Mapping[str, Tensor]],
    said: list[str] | None = None,
    outputs: RememberedOutputs | None = None,
) -> TorchBench:
    return TorchBench(
        task,
        identity=("odd", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(states.__getitem__),
        device=CPU,
        outputs=outputs,
        say=None if said is None else said.append,
    )


def scores(made: TorchBench, *, plain: bool = False) -> list[float]:
    evaluator = made.evaluator("validation", plain=plain)
    outcomes = evaluator.evaluate([Trial(recipe) for recipe in ALONE])
    return [outcome.value for outcome in outcomes if isinstance(outcome, Score)]


class Renormed(nn.Module):
    """Sets its weight's data whenever it predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(tiny.CLASSES, tiny.FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.5)
        return x @ self.weight.T


class Converted(Odd):
    """Converts the model whenever it predicts."""

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits: Tensor = model.to(torch.bfloat16)(batch[0].bfloat16())
        return logits.float()


def linear() -> nn.Module:
    return nn.Linear(tiny.FEATURES, tiny.CLASSES)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x)
        return logits


@pytest.mark.parametrize("task", [Odd(Renormed), Converted(Plain)], ids=["renormed", "converted"])
def test_a_model_whose_tensors_are_moved_while_it_predicts_is_refused(task: Odd) -> None:
    with pytest.raises(BadTask, match=r"the model changes .*weight while it predicts"):
        scores(bench(task, weights_of(task.kind)))


class Caching(Plain):
    """Keeps what it made of the first weights."""

    made: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.made is None:
            weight: Any = self.layer.weight
            self.made = nn.functional.normalize(weight)
        return x @ self.made.T


class Merging(nn.Module):
    """A low-rank adapter that is merged when evaluation begins, as loralib does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tiny.CLASSES, tiny.FEATURES))
        self.a = nn.Parameter(torch.zeros(2, tiny.FEATURES))
        self.b = nn.Parameter(torch.zeros(tiny.CLASSES, 2))
        self.merged = False

    def train(self, mode: bool = True) -> "Merging":  # noqa: FBT001, FBT002 - torch's own signature
        super().train(mode)
        if mode == self.merged:
            with torch.no_grad():
                self.weight.add_(self.b @ self.a, alpha=-1.0 if mode else 1.0)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.merged else self.weight + self.b @ self.a
        return x @ weight.T


class Hooked(Plain):
    """Derives a buffer from its weights when a state is loaded."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(tiny.CLASSES), persistent=False)
        derive = self.register_load_state_dict_post_hook
        derive(lambda module, _: module.derive())  # type: ignore[no-untyped-call]  # torch leaves it so

    def derive(self) -> None:
        weight: Any = self.layer.weight
        self.scale.copy_(weight.detach().sum(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


@pytest.mark.parametrize("kind", [Caching, Merging, Hooked])
def test_a_model_that_keeps_something_of_earlier_weights_is_found_out(kind: type[nn.Module]) -> None:
    with pytest.raises(BadTask, match="answers otherwise than one that"):
        scores(bench(Odd(kind), weights_of(kind)))


@pytest.mark.parametrize("slight", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("kind", [Caching, Merging, Hooked])
def test_it_is_found_out_also_where_the_first_two_candidates_answer_almost_alike(
    kind: type[nn.Module], slight: float
) -> None:
    states = dict(weights_of(kind))
    first, second = DIGESTS[:2]
    states[second] = {k: v + slight * states[second][k] for k, v in states[first].items()}
    with pytest.raises(BadTask, match="answers otherwise than one that"):
        scores(bench(Odd(kind), states))


def test_a_model_whose_candidates_all_answer_almost_alike_is_not_refused() -> None:
    states = dict(weights_of(Plain))
    for digest in DIGESTS[1:]:
        states[digest] = {k: v + 1e-9 * states[digest][k] for k, v in states[DIGESTS[0]].items()}
    scores(bench(Odd(Plain), states))


@pytest.mark.parametrize(
    ("live", "fresh", "before", "told"),
    [
        ([1.0, 100.0], [1.0, 100.0], [2.0, 100.0], True),
        ([1.005, 100.0], [1.0, 100.0], [2.0, 100.0], True),  # as other kernels may sum
        ([1.5, 100.0], [1.0, 100.0], [2.0, 100.0], False),  # half of what it should have changed
        ([1.0, 100.5], [1.0, 100.0], [1.0, 100.5], False),  # within 1 % of the greatest output: kept weights
        ([1.0, 100.0], [1.0, 100.0], [1.0, 100.0], None),
        ([1.0, 100.001], [1.0, 100.0], [1.0, 100.002], None),
        ([1.0, 100.001], [1.0, 100.0], [1.0, 100.02], True),
        ([math.nan, math.inf, 1.0], [math.nan, math.inf, 1.0], [0.0, 0.0, 2.0], True),
        ([math.nan, 1.0], [1.0, 1.0], [1.0, 2.0], False),
        ([math.inf, 1.0], [1.0, 1.0], [1.0, 2.0], False),
        ([math.nan], [math.nan], [math.nan], None),
        ([1.0], [1.0, 1.0], [2.0, 2.0], False),
        ([1] * 200, [1] * 200, [2] * 200, True),
        ([1] * 200, [1] * 199 + [2], [2] * 200, True),  # a near tie
        ([1] * 200, [1] * 190 + [2] * 10, [2] * 200, False),
        ([1] * 200, [1] * 200, [1] * 200, None),
    ],
)
def test_what_a_swap_may_change_is_measured_by_what_two_recipes_differ_by(
    live: list[float], fresh: list[float], before: list[float], *, told: bool | None
) -> None:
    assert swapped(torch.tensor(live), torch.tensor(fresh), torch.tensor(before)) is told


def test_what_is_random_in_a_model_and_in_no_checkpoint_is_the_same_in_each() -> None:
    class Features(nn.Module):
        directions: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, tiny.CLASSES)
            self.register_buffer("directions", torch.randn(tiny.FEATURES, 16), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.layer(torch.cos(x @ self.directions))
            return logits

    states = weights_of(Features)
    torch.manual_seed(1)
    one = scores(bench(Odd(Features), states))
    torch.manual_seed(2)
    made = bench(Odd(Features), states)
    assert scores(made) == one
    before = torch.get_rng_state()
    assert scores(made, plain=True) == one
    assert torch.equal(torch.get_rng_state(), before)


def test_tensors_that_share_their_memory_are_tied_though_they_are_two_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.Linear(tiny.FEATURES, tiny.FEATURES, bias=False) for _ in "ab")
            self.two.weight.data = self.one.weight.data

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.two(self.one(x))[:, : tiny.CLASSES]
            return logits

    states = {
        d: {"one.weight": s["one.weight"], "two.weight": s["one.weight"]} for d, s in weights_of(Tied).items()
    }
    assert len(scores(bench(Odd(Tied), states))) == len(DIGESTS)
    torn = {**states, DIGESTS[0]: weights_of(Tied)[DIGESTS[1]]}
    with pytest.raises(Incompatible, match="are one tensor in the model"):
        scores(bench(Odd(Tied), torn))


@pytest.mark.parametrize("kind", ["lazy", "meta", "expanded"])
def test_a_model_without_memory_is_refused_by_the_names_of_its_tensors(kind: str) -> None:
    class Empty(tiny.TinyTask):
        def model(self) -> nn.Module:
            if kind == "lazy":
                return nn.LazyLinear(4)
            layer = nn.Linear(8, 4, device="meta" if kind == "meta" else None)
            if kind == "expanded":
                layer.weight = nn.Parameter(torch.zeros(1, 8).expand(4, 8))
            return layer

    with pytest.raises(BadTask, match=r"model\(\) has tensors without memory .* expanded: weight"):
        bench(Empty(), weights_of(Plain)).evaluator("validation")


class Numpy(Odd):
    """Changes an array of its batch."""

    def collate(self, examples: list[tiny.Example]) -> Any:
        return (*super().collate(examples), np.zeros(tiny.CLASSES, np.float32))

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        batch[2][0] += 1
        logits: Tensor = model(batch[0]) + torch.from_numpy(batch[2])
        return logits


class Named(Odd):
    """Changes tensors of a batch that is an object."""

    def collate(self, examples: list[tiny.Example]) -> Any:
        x, labels = super().collate(examples)
        return SimpleNamespace(x=x, labels=labels)

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        batch.x.mul_(1.5).add_(0.2)
        logits: Tensor = model(batch.x)
        return logits

    def score(self, outputs: Tensor, batch: Any) -> Tensor:
        return super().score(outputs, (batch.x, batch.labels))


@pytest.mark.parametrize("task", [Numpy(Plain), Named(Plain)], ids=["numpy", "an object"])
def test_whatever_a_batch_holds_may_be_changed_in_place(task: Odd) -> None:
    made = bench(task, weights_of(Plain))
    first = scores(made)
    assert first == scores(made, plain=True)
    assert first == scores(bench(task, weights_of(Plain)))


class Padded(tiny.TinyTask):
    """Sequences, padded to the longest of their batch; pads count in the mean. Few are long."""

    bounds = (0.0, 1.0)

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(20, 16), nn.Tanh(), nn.Flatten(0, 0), nn.Linear(16, 4))

    def examples(self, split: str) -> Sequence[Any]:
        del split
        draw = torch.Generator().manual_seed(self._seed)
        lengths = [60 if i in (20, 51, 83) else 6 for i in range(96)]
        x = [torch.randint(1, 20, (length,), generator=draw) for length in lengths]
        model = self.model()
        model.load_state_dict(padded_weights(self._seed))
        with torch.no_grad():
            rows = [
                self.predict(model, self.collate([(s, 0) for s in x[i : i + 8]])) for i in range(0, 96, 8)
            ]
        labels = torch.cat(rows).argmax(1)
        wrong = torch.rand(96, generator=draw) < 0.2
        return list(zip(x, torch.where(wrong, (labels + 1) % 4, labels).tolist(), strict=True))

    def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
        x = nn.utils.rnn.pad_sequence([sequence for sequence, _ in examples], batch_first=True)
        return x, torch.tensor([label for _, label in examples])

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits: Tensor = model(batch[0]).mean(1)
        return logits


def padded_weights(seed: int, noise: int | None = None) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    start = {k: v.detach().clone() for k, v in Padded(seed).model().state_dict().items()}
    if noise is not None:
        draw = torch.Generator().manual_seed(1000 * seed + noise)
        start = {k: v + 0.25 * torch.randn(v.shape, generator=draw) for k, v in start.items()}
    return start


@pytest.mark.slow
@pytest.mark.parametrize("fits", [True, False], ids=["kept", "made again"])
def test_examples_padded_as_their_neighbours_want_it_are_never_mixed(
    monkeypatch: pytest.MonkeyPatch, *, fits: bool
) -> None:
    if not fits:
        monkeypatch.setattr("stockpot.evaluation.passes.batches.SHARE", 0.0)
    said, bounds = list[str](), 0
    for seed in range(6):
        states = {digest: padded_weights(seed, place) for place, digest in enumerate(DIGESTS)}
        made = bench(Padded(seed), states, said)
        found = []
        for evaluator in (
            SharedEvaluator(made.evaluator("validation"), MemoryStore()),
            PlainEvaluator(made.evaluator("validation", plain=True)),
        ):
            heard = Heard(lambda: None)
            contenders = [Contender(digest, f"run-{i}", i) for i, digest in enumerate(DIGESTS)]
            method = Greedy(contenders, accept=Accept.NOT_WORSE)
            found.append((run_selection(method, evaluator, heard=heard), heard.outcomes))
        (fast, told), (plain, scored) = found
        assert fast.recipe == plain.recipe
        for trial, outcome in told.items():
            score = scored[trial]
            assert isinstance(score, Score)
            bounds += isinstance(outcome, Bound)
            assert outcome.upper >= score.value if isinstance(outcome, Bound) else outcome == score
    assert bounds
    assert "split 'validation': batches differ in shape: whole batches are re-ordered" in said


@pytest.mark.slow
def test_shapes_that_turn_out_to_differ_after_examples_were_mixed_withdraw_what_was_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stockpot.evaluation.passes.batches.SHARE", 0.0)
    withdrawn = 0
    for seed in range(6):
        states = {digest: padded_weights(seed, place) for place, digest in enumerate(DIGESTS)}
        outputs = RememberedOutputs()
        scores(bench(Padded(seed), states, outputs=outputs))
        evaluator = bench(Padded(seed), states, outputs=outputs).evaluator("validation")
        assert not evaluator.order_dependent
        trial = Trial(Recipe.mean(DIGESTS[:2]), Threshold(0.9, strict=True))
        try:
            (outcome,) = evaluator.evaluate([trial])
            assert isinstance(outcome, Bound)
            assert not outcome.mixed or not evaluator.order_dependent
        except OrderDependent:
            withdrawn += 1
        evaluator.evaluate([Trial(ALONE[0])])
        assert evaluator.order_dependent, "a full pass meets the long ones"
    assert withdrawn


def test_scores_whose_sum_is_beyond_the_floats_reject_nothing_early_and_raise_nothing() -> None:
    class Huge(tiny.TinyTask):
        bounds: tuple[float, float] | None = (-1e308, 1e308)

        def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
            return super().score(outputs, batch).double() * 1e308

    made = TorchBench(
        Huge(),
        identity=("odd", "1"),
        task_args={},
        checkpoints=MadeCheckpoints({d: tiny.weights(seed=i) for i, d in enumerate(DIGESTS)}.__getitem__),
        device=CPU,
        outputs=RememberedOutputs(),
    )
    evaluator = made.evaluator("validation")
    soup = Trial(Recipe.mean(DIGESTS[:2]), Threshold(1e307, strict=True))
    *_, outcome = evaluator.evaluate([Trial(ALONE[0]), Trial(ALONE[1]), soup])
    (full,) = made.evaluator("validation", plain=True).evaluate([Trial(soup.recipe)])
    assert isinstance(full, Score)
    assert math.isnan(full.value)
    assert isinstance(outcome, Score)
    assert outcome.examples == full.examples
