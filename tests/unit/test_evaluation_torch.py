"""The torch evaluator on real tiny models, and what it says of tasks that break their contract."""

import math
from collections import OrderedDict, UserDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from stockpot.entities import Digest, Recipe, Score, Trial, digest_of_bytes, short
from stockpot.errors import BadTask, Incompatible, NotFinite
from stockpot.evaluation import TorchBench
from stockpot.evaluation.passes.tensor_nests import each_tensor
from stockpot.evaluation.weights.module_weights import architecture_of
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints

CPU = torch.device("cpu")
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(3)]
SOUP = Recipe.mean(DIGESTS)
ALONE = [Recipe.mean([digest]) for digest in DIGESTS]

State = Callable[[Digest], Mapping[str, Tensor]]


def bench_for(task: Any, kind: str = "dense", state: State | None = None) -> TorchBench:
    """A bench whose recipes name the models of `tiny.weights` by their seeds, or those of `state`."""
    checkpoints = MadeCheckpoints(state or (lambda digest: tiny.weights(kind, seed=DIGESTS.index(digest))))
    identity, task_args = ("tiny", "1+abc"), {"n": "20"}
    return TorchBench(task, identity=identity, task_args=task_args, checkpoints=checkpoints, device=CPU)


def score(bench: TorchBench, recipe: Recipe = ALONE[0], split: str = "validation") -> Score:
    (outcome,) = bench.evaluator(split).evaluate([Trial(recipe)])
    assert isinstance(outcome, Score)
    return outcome


@pytest.mark.parametrize("kind", list(tiny.MODELS))
def test_scores_are_those_of_a_plain_loop_over_the_examples(kind: str) -> None:
    task, bench = tiny.TinyTask(kind), bench_for(tiny.TinyTask(kind), kind)
    for recipe in ALONE:
        module = bench.module_with(recipe)
        with torch.no_grad():
            right = [
                float(module(x[None])[0, : tiny.CLASSES].argmax() == label)
                for x, label in task.examples("validation")
            ]
        assert list(score(bench, recipe).examples) == right


def test_models_that_differ_score_differently() -> None:
    bench = bench_for(tiny.TinyTask(n="200"))
    assert len({score(bench, recipe).examples for recipe in ALONE}) == len(ALONE)


def test_splits_share_the_live_module_without_mixing_scores() -> None:
    bench = bench_for(tiny.TinyTask())
    validation, test = bench.evaluator("validation"), bench.evaluator("test")
    alone = [score(bench_for(tiny.TinyTask()), r, s) for r in ALONE[:2] for s in ("validation", "test")]
    mixed = [e.evaluate([Trial(r)])[0] for r in ALONE[:2] for e in (validation, test)]
    assert mixed == alone


def test_the_protocol_names_everything_a_score_depends_on() -> None:
    protocol = bench_for(tiny.TinyTask()).evaluator("test").protocol
    question, conditions = protocol.question, protocol.conditions
    assert (question.task, question.task_version, question.task_args) == ("tiny", "1+abc", (("n", "20"),))
    assert (question.split, question.n, conditions.batch_size) == ("test", 20, 8)
    assert (conditions.dtype, conditions.tf32) == ("float32", False)
    assert conditions.torch_version == torch.__version__
    assert conditions.device.startswith("cpu ")
    assert bench_for(tiny.TinyTask()).evaluator("test").protocol == protocol
    assert bench_for(tiny.TinyTask()).evaluator("validation").protocol.dataset != protocol.dataset


def test_what_torch_sums_with_other_threads_is_another_protocol_whichever_thread_asks() -> None:
    class Summing(tiny.TinyTask):
        """Sums a million numbers to one: in as many parts as there are threads."""

        batch_size = 1
        bounds = None

        def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
            del outputs, batch
            return torch.randn(1, 1 << 20, generator=torch.Generator().manual_seed(3)).sum(1)

    def found(threads: int) -> tuple[str, Score]:
        torch.set_num_threads(threads)
        made = bench_for(Summing(n="1"))
        here = score(made, split="test")
        torch.set_num_threads(3 - threads)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(score, made, split="test").result() == here
        return made.evaluator("test").protocol.conditions.device, here

    before = torch.get_num_threads()
    try:
        (one, alone), (two, shared) = found(1), found(2)
    finally:
        torch.set_num_threads(before)
    assert one.endswith(" 1 thread")
    assert two.endswith(" 2 threads")
    assert alone != shared, "or this test shows nothing"


def test_a_short_last_batch_is_filled_up_and_its_extra_scores_are_dropped() -> None:
    sizes, labels = [], []

    class Watched(tiny.TinyTask):
        def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
            sizes.append(len(examples))
            labels.append([label for _, label in examples])
            return super().collate(examples)

    bench = bench_for(Watched(n="19"))
    assert len(score(bench).examples) == 19
    assert sizes == [8, 8, 8]
    assert labels[2][2:] == [labels[2][2]] * 6
    score(bench)
    assert len(sizes) == 3, "once, not per pass"


def test_batches_are_made_once_however_many_recipes_are_scored() -> None:
    collated = []

    class Watched(tiny.TinyTask):
        def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
            collated.append(len(examples))
            return super().collate(examples)

    evaluator = bench_for(Watched()).evaluator("validation")
    assert collated == [], "nothing before the first trial"
    evaluator.evaluate([Trial(recipe) for recipe in ALONE])
    evaluator.evaluate([Trial(recipe) for recipe in ALONE])
    assert len(collated) == 3


class Counting(nn.Module):
    """Remembers how often it was asked."""

    asked: Tensor

    def __init__(self, *, persistent: bool, rebound: bool) -> None:
        super().__init__()
        self.inner = tiny.dense()
        self.register_buffer("asked", torch.zeros(()), persistent=persistent)
        self.rebound = rebound

    def forward(self, x: Tensor) -> Tensor:
        if self.rebound:
            self.asked = self.asked + 1
        else:
            self.asked += 1
        logits: Tensor = self.inner(x)
        return logits


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("rebound", [True, False])
def test_a_model_that_changes_its_buffers_while_it_predicts_is_refused(
    persistent: bool,  # noqa: FBT001 - a parameter of the test
    rebound: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    task = tiny.TinyTask()
    task.model = lambda: Counting(persistent=persistent, rebound=rebound)  # type: ignore[method-assign]  # stateful
    state = {f"inner.{name}": tensor for name, tensor in tiny.weights().items()}
    state |= {"asked": torch.zeros(())} if persistent else {}
    bench = bench_for(task, state=lambda _: state)
    with pytest.raises(BadTask, match=r"the model changes asked while it predicts, split 'validation'"):
        score(bench)


def test_a_recurrent_layer_that_is_flattened_whenever_it_predicts_stays_where_it_is() -> None:
    class Flattened(nn.LSTM):
        """As on a GPU, where cuDNN moves its weights into one block."""

        def flatten_parameters(self) -> None:
            with torch.no_grad():
                for weight in self.parameters():
                    weight.set_(weight.clone().untyped_storage(), 0, weight.shape, weight.stride())

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Flattened(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.layer.flatten_parameters()
            logits: Tensor = self.layer(x[:, :3])[0]
            return logits

    class Task(tiny.TinyTask):
        def model(self) -> nn.Module:
            return Recurrent()

    def weights(digest: Digest) -> Mapping[str, Tensor]:
        torch.manual_seed(DIGESTS.index(digest))
        return Recurrent().state_dict()

    found = [score(bench_for(Task(), state=weights), recipe) for recipe in (*ALONE[:2], SOUP)]
    bench = bench_for(Task(), state=weights)
    assert [score(bench, recipe) for recipe in (*ALONE[:2], SOUP)] == found


def test_batch_norm_in_evaluation_mode_changes_nothing() -> None:
    task, norm = tiny.TinyTask(), nn.BatchNorm1d(tiny.FEATURES)
    task.model = lambda: nn.Sequential(norm, nn.Linear(tiny.FEATURES, 4))  # type: ignore[method-assign]  # buffers
    state = {name: tensor.clone() for name, tensor in task.model().state_dict().items()}
    bench = bench_for(task, state=lambda _: state)
    assert len(score(bench).examples) == 20


class Pair(NamedTuple):
    x: Tensor
    extra: dict[str, list[Tensor]]


def test_a_model_that_changes_its_batch_in_place_does_not_change_the_next_score() -> None:
    class Careless(tiny.TinyTask):
        def collate(self, examples: list[tiny.Example]) -> Any:
            x, y = super().collate(examples)
            return Pair(x, {"label": [y]})

        def predict(self, model: nn.Module, batch: Any) -> Tensor:
            return super().predict(model, (batch.x.add_(1.0), batch.extra["label"][0]))

        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            return super().score(outputs, (batch.x, batch.extra["label"][0]))

    evaluator = bench_for(Careless()).evaluator("validation")
    first, again = evaluator.evaluate([Trial(ALONE[0])] * 2)
    assert first == again


class Encoding(UserDict[str, Tensor]):
    """As transformers' BatchEncoding: a mapping that is no dict."""


@pytest.mark.parametrize("kind", [Encoding, OrderedDict, MappingProxyType])
def test_a_mapping_that_is_no_dict_is_moved_and_copied_like_one(kind: Callable[[Any], Any]) -> None:
    made = kind({"x": torch.zeros(2), "meta": "as it is"})
    found = each_tensor(made, lambda tensor: tensor.to("meta"))
    assert (found["x"].device.type, found["meta"]) == ("meta", "as it is")
    assert made["x"].device.type == "cpu"
    assert type(found) is (dict if kind is MappingProxyType else kind)


def test_a_task_that_draws_random_numbers_draws_the_same_ones() -> None:
    class Noisy(tiny.TinyTask):
        bounds = None

        def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
            x, y = super().collate(examples)
            return x + torch.rand_like(x), y

        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            return super().score(outputs, batch) + torch.rand(len(outputs))

    evaluator = bench_for(Noisy()).evaluator("validation")
    first, again = (evaluator.evaluate([Trial(ALONE[0])])[0] for _ in range(2))
    assert first == again == score(bench_for(Noisy()))


def test_the_module_is_evaluated_without_dropout_and_without_gradients() -> None:
    class Dropping(tiny.TinyTask):
        def model(self) -> nn.Module:
            module = super().model()
            return nn.Sequential(*module.children(), nn.Dropout(0.9)).train()

        def predict(self, model: nn.Module, batch: Any) -> Tensor:
            assert torch.is_inference_mode_enabled()
            return super().predict(model.requires_grad_(), batch)

    assert score(bench_for(Dropping())) == score(bench_for(tiny.TinyTask()))


def test_scores_are_exact_in_whatever_dtype_they_come() -> None:
    def scored(change: Callable[[Tensor], Tensor]) -> tuple[float, ...]:
        class Changed(tiny.TinyTask):
            bounds = None

            def score(self, outputs: Tensor, batch: Any) -> Tensor:
                return change(super().score(outputs, batch))

        return score(bench_for(Changed())).examples

    plain = scored(lambda scores: scores)
    for dtype in (torch.bool, torch.int64, torch.float16, torch.float64):
        assert scored(lambda scores, dtype=dtype: scores.to(dtype)) == plain  # type: ignore[misc]  # default binds it
    third = scored(lambda scores: scores.double() / 3)
    assert set(third) == {0.0, 1 / 3}


def test_a_score_of_nan_is_a_score() -> None:
    class Undefined(tiny.TinyTask):
        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            return super().score(outputs, batch) * math.nan

    assert math.isnan(score(bench_for(Undefined())).value)


def test_module_with_is_a_fresh_module_with_the_recipes_weights() -> None:
    shared = tiny.dense()

    class Sharing(tiny.TinyTask):
        def model(self) -> nn.Module:
            return shared

    bench = bench_for(Sharing())
    first, second = bench.module_with(ALONE[0]), bench.module_with(ALONE[1])
    assert not first.training
    assert torch.equal(first.state_dict()["0.weight"], tiny.weights(seed=0)["0.weight"])
    assert torch.equal(second.state_dict()["0.weight"], tiny.weights(seed=1)["0.weight"])


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_module_that_cannot_be_copied_is_used_as_it_is() -> None:
    task = tiny.TinyTask()
    task.model = lambda: nn.utils.weight_norm(nn.Linear(tiny.FEATURES, 4))  # type: ignore[method-assign]  # no leaf
    state = {name: tensor.clone() for name, tensor in task.model().state_dict().items()}
    bench = bench_for(task, state=lambda _: state)
    first, second = bench.module_with(ALONE[0]), bench.module_with(ALONE[1])
    assert first is not second
    assert torch.equal(first.state_dict()["weight_g"], state["weight_g"])


def test_a_soup_that_overflows_scores_nan_and_the_next_recipe_is_scored() -> None:
    def state(digest: Digest) -> Mapping[str, Tensor]:
        if digest == DIGESTS[2] and damaged:
            raise NotFinite(f"{short(digest)} holds NaN")
        made = tiny.weights(seed=DIGESTS.index(digest))
        made["2.bias"][0] = 3e38
        return made

    soup, bench, damaged = Recipe.mean(DIGESTS[:2]), bench_for(tiny.TinyTask(), state=state), True
    assert all(map(math.isnan, score(bench, soup).examples))
    assert all(map(math.isnan, score(bench, soup).examples))
    with pytest.raises(NotFinite):
        score(bench, ALONE[2])
    damaged = False
    for recipe in ALONE:
        assert score(bench, recipe) == score(bench_for(tiny.TinyTask(), state=state), recipe)


def test_weights_that_do_not_fit_are_refused_and_the_next_recipe_is_scored() -> None:
    torn = {"0.weight": -tiny.weights(seed=0)["0.weight"]}
    bench = bench_for(
        tiny.TinyTask(), state=lambda digest: torn if digest == DIGESTS[0] else tiny.weights(seed=1)
    )
    expected = score(bench, ALONE[1])
    with pytest.raises(Incompatible, match=r"missing .*2\.bias"):
        score(bench, ALONE[0])
    assert score(bench, ALONE[1]) == expected
    assert bench.fits([]) != ()
    assert bench.fits(architecture_of(bench.workspace.models.made)) == ()


def test_a_recipe_made_anew_owes_nothing_to_what_was_held_before() -> None:
    bench, soup = bench_for(tiny.TinyTask()), Recipe.mean(DIGESTS)
    right = {
        name: tensor.clone() for name, tensor in bench.workspace.models.holding(soup).state_dict().items()
    }
    with torch.no_grad():
        for parameter in bench.workspace.models.holding(soup).parameters():
            parameter.zero_()
    assert not any(tensor.any() for tensor in bench.workspace.models.holding(soup).state_dict().values()), (
        "it is held"
    )
    made = bench.workspace.models.made_anew(soup)
    assert all(torch.equal(tensor, right[name]) for name, tensor in made.state_dict().items())
    assert not made.training


def test_an_example_is_the_models_input() -> None:
    task = tiny.TinyTask(n="3")
    first = torch.stack([x for x, _ in task.examples("test")])
    assert torch.equal(bench_for(task).example("test", 2), first[:2])
    assert torch.equal(bench_for(task).example("test", 5), first[[0, 1, 2, 2, 2]])

    class Named(tiny.TinyTask):
        def inputs(self, batch: Any) -> Any:
            return {"pixels": batch[0]}

    assert torch.equal(bench_for(Named(n="3")).example("test", 2)["pixels"], first[:2])


def test_labels_are_no_input_of_a_model_that_is_called_by_names() -> None:
    class Named(tiny.TinyTask):
        def collate(self, examples: list[Any]) -> Any:
            x, labels = super().collate(examples)
            return {"pixels": x, "labels": labels}

    assert bench_for(Named(n="3")).example("test", 2).keys() == {"pixels"}


def test_groups_are_the_tasks_own() -> None:
    class Grouped(tiny.TinyTask):
        def groups(self, split: str) -> Any:
            return torch.arange(len(self.examples(split))) // 2

    groups = bench_for(Grouped()).groups("test")
    assert groups == tuple(i // 2 for i in range(20))
    assert len(set(groups)) == 10, "not by the identity of the tensor's elements"
    assert bench_for(tiny.TinyTask()).groups("test") is None
    Grouped.groups = lambda *_: None  # type: ignore[method-assign]  # a task that tells of some splits
    assert bench_for(Grouped()).groups("test") is None


def test_a_digest_of_the_tasks_own_names_the_dataset_without_reading_it() -> None:
    class Unread(Sequence[Any]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("read")

    class Named(tiny.TinyTask):
        name = "sha256:" + 64 * "0"

        def examples(self, split: str) -> Sequence[Any]:
            assert split
            return Unread()

        def digest(self, split: str) -> str:
            assert split
            return self.name

    assert bench_for(Named()).evaluator("test").protocol.dataset == Named.name
    Named.name = "version 7"
    assert bench_for(Named()).evaluator("test").protocol.dataset == digest_of_bytes(b"version 7")


def raising(error: Exception) -> Callable[..., Any]:
    def method(*_: object) -> Any:
        raise error

    return method


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_: value


WHERE = rf"examples 0 to 7 of split 'validation', recipe {short(ALONE[0].digest)}"


@pytest.mark.parametrize(
    ("method", "behaviour", "message"),
    [
        ("examples", raising(KeyError("validation")), "no split 'validation'"),
        ("examples", raising(ValueError("unknown: validation")), "no split 'validation'"),
        ("examples", raising(KeyError("label")), r"examples\('validation'\) raised KeyError: 'label'"),
        (
            "examples",
            raising(ValueError("row 3 of data/validation.csv")),
            r"examples\('validation'\) raised ValueError: row 3",
        ),
        ("examples", raising(OSError("disk")), r"examples\('validation'\) raised OSError: disk"),
        ("examples", returning([]), "split 'validation' is empty"),
        ("examples", returning(7), r"examples\('validation'\) raised TypeError"),
        ("examples", returning([object()]), "example 0 of split 'validation' holds something of type object"),
        ("model", raising(ValueError("layers")), r"model\(\) raised ValueError: layers"),
        ("model", returning("dense"), r"model\(\) returned a str"),
        (
            "collate",
            raising(ValueError("ragged")),
            r"collate\(\) raised ValueError: ragged, split 'validation'",
        ),
        (
            "collate",
            returning(pack_sequence([torch.zeros(2)] * 8)),
            r"collate\(\) gave a PackedSequence, split",
        ),
        (
            "collate",
            returning({"x": [torch.eye(8).to_sparse()]}),
            r"collate\(\) gave a tensor of layout torch.sparse_coo, split",
        ),
        ("predict", raising(RuntimeError("shapes")), rf"predict\(\) raised RuntimeError: shapes, {WHERE}"),
        (
            "predict",
            returning(np.zeros((8, 4))),
            rf"predict\(\) returned a ndarray for a batch of 8, {WHERE}",
        ),
        ("predict", returning(torch.zeros(())), r"predict\(\) returned a torch.float32 tensor of shape \[\]"),
        ("predict", returning(torch.zeros(4, 8)), r"tensor of shape \[4, 8\] for a batch of 8"),
        ("score", raising(IndexError("class")), rf"score\(\) raised IndexError: class, {WHERE}"),
        ("score", returning(0.5), rf"score\(\) returned a float for a batch of 8, {WHERE}"),
        ("score", returning(torch.zeros(8, 1)), r"tensor of shape \[8, 1\] for a batch of 8"),
        ("score", returning(torch.zeros(8, dtype=torch.cfloat)), r"returned a torch.complex64 tensor"),
        (
            "score",
            returning(torch.tensor([0.5] * 5 + [1.5] + [0.5] * 2)),
            r"1.5 for example 5, outside \[0.0, 1.0\]",
        ),
        ("score", returning(torch.full((8,), -0.25)), r"-0.25 for example 0.*split 'validation', recipe"),
        ("digest", raising(OSError("gone")), r"digest\('validation'\) raised OSError: gone"),
        ("digest", returning(""), r"digest\('validation'\) returned ''"),
        ("groups", returning([1, 2]), r"groups\('validation'\) has length 2, the split has 20 examples"),
        ("groups", returning([[1]] * 20), r"groups\('validation'\) raised TypeError: unhashable"),
        ("inputs", raising(KeyError("x")), r"inputs\(\) raised KeyError"),
    ],
)
def test_a_task_that_breaks_its_contract_is_told_where(
    method: str, behaviour: Callable[..., Any], message: str
) -> None:
    task = tiny.TinyTask()
    setattr(task, method, behaviour)
    bench = bench_for(task)
    with pytest.raises(BadTask, match=message) as caught:  # noqa: PT012 - whichever of them meets the fault
        score(bench)
        bench.groups("validation")
        bench.example("validation", 1)
    assert caught.value.mend


def test_a_score_of_minus_infinity_is_within_no_bounds_and_plus_infinity_is_not() -> None:
    class Unbounded(tiny.TinyTask):
        bounds = None
        value = -math.inf

        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            return super().score(outputs, batch) + self.value

    assert score(bench_for(Unbounded())).value == -math.inf
    Unbounded.value = math.inf
    with pytest.raises(BadTask, match="inf for example 0"):
        score(bench_for(Unbounded()))


@pytest.mark.parametrize("size", [0, "8"])
def test_a_batch_size_that_is_none_is_refused(size: Any) -> None:
    task = tiny.TinyTask()
    task.batch_size = size
    with pytest.raises(BadTask, match="batch_size"):
        bench_for(task).evaluator("test")
