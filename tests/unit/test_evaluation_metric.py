"""Tasks that measure a split as a whole, on real tiny models."""

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from stockpot.entities import (
    Accept,
    Contender,
    Digest,
    Ensemble,
    Metric,
    Recipe,
    Score,
    Threshold,
    Trial,
    digest_of_bytes,
    short,
)
from stockpot.errors import BadTask, OutOfDeviceMemory
from stockpot.evaluation import RememberedOutputs, TorchBench
from stockpot.evaluation.passes import batches
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.statistics import blocks, compare
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints

DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(4)]
ALONE = [Recipe.mean([digest]) for digest in DIGESTS]
SOUP = Recipe.mean(DIGESTS)

State = Callable[[Digest], Mapping[str, Tensor]]


class Area(tiny.TinyTask):
    """The area under the curve of class 0, from ranks, as numpy and scipy see it."""

    def metric(self, outputs: Tensor, batch: Any) -> float:
        positive = np.asarray(batch[1]) == 0
        ranks = stats.rankdata((outputs[:, 0] - outputs[:, 1:].amax(dim=1)).numpy())
        count = int(positive.sum())
        above = ranks[positive].sum() - count * (count + 1) / 2
        return float(above / (count * (len(positive) - count))) if 0 < count < len(positive) else math.nan


def bench_for(
    task: Any = None,
    *,
    state: State | None = None,
    said: list[str] | None = None,
    outputs: RememberedOutputs | None = None,
) -> TorchBench:
    return TorchBench(
        task or tiny.MeasuredTask(n="75"),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(state or (lambda digest: tiny.weights(seed=DIGESTS.index(digest)))),
        device=torch.device("cpu"),
        outputs=outputs,
        say=None if said is None else said.append,
    )


def score(
    bench: TorchBench, recipe: Recipe = ALONE[0], *, compared: bool = True, plain: bool = False
) -> Score:
    (outcome,) = bench.evaluator("validation", compared=compared, plain=plain).evaluate([Trial(recipe)])
    assert isinstance(outcome, Score)
    return outcome


def bits(score: Score) -> list[str]:
    assert score.metric is not None
    return [value.hex() for value in (*score.examples, score.metric.value, *score.metric.without)]


def by_hand(task: Any, bench: TorchBench, recipe: Recipe, groups: Any = None) -> Metric:
    """Of the outputs of canonical batches of a fresh module, on what collate makes of all examples."""
    examples, module = task.examples("validation"), bench.module_with(recipe)
    with torch.inference_mode():
        parts = []
        for start in range(0, len(examples), 8):
            chunk = examples[start : start + 8]
            padded = chunk + chunk[-1:] * (8 - len(chunk))
            parts.append(task.predict(module, task.collate(padded))[: len(chunk)])
        outputs = torch.cat(parts)

        def measured(places: Sequence[int]) -> float:
            return float(task.metric(outputs[list(places)], task.collate([examples[i] for i in places])))

        everything = range(len(examples))
        made = blocks(len(examples), groups)
        without = [measured([i for i in everything if i not in set(block)]) for block in made]
        return Metric(measured(everything), tuple(without))


@pytest.mark.parametrize("kind", [tiny.MeasuredTask, Area])
@pytest.mark.parametrize("n", ["75", "80", "5"])
def test_what_counts_is_the_metric_of_all_outputs_in_order_without_padding(kind: Any, n: str) -> None:
    task = kind(n=n)
    for recipe in (ALONE[0], SOUP):
        bench = bench_for(task)
        found, expected = score(bench, recipe), by_hand(task, bench, recipe)
        assert found.metric is not None
        assert [found.metric.value.hex(), *map(float.hex, found.metric.without)] == [
            expected.value.hex(),
            *map(float.hex, expected.without),
        ]
        assert repr(found.value) == repr(expected.value)
        assert found.examples == score(bench_for(tiny.TinyTask(n=n)), recipe).examples


def test_blocks_keep_examples_of_one_origin_together() -> None:
    class Grouped(tiny.MeasuredTask):
        def groups(self, split: str) -> list[int]:
            return [place // 5 for place in range(len(self.examples(split)))]

    task = Grouped(n="75")
    bench = bench_for(task)
    found = score(bench)
    assert found.metric == by_hand(task, bench, ALONE[0], task.groups("validation"))
    assert found.metric is not None
    assert len(found.metric.without) == 15


@pytest.mark.parametrize("kept", [True, False], ids=["batches kept", "batches made again"])
def test_fast_and_plain_agree_bit_for_bit(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a parameter of the test
    if not kept:
        monkeypatch.setattr(batches, "SHARE", 0.0)
    for task in (tiny.MeasuredTask(n="75"), Area(n="75")):
        bench = bench_for(task)
        for recipe in (*ALONE, SOUP):
            assert bits(score(bench, recipe)) == bits(score(bench, recipe, plain=True))


def test_a_search_goes_by_the_metric_where_the_mean_would_choose_another() -> None:
    class Upside(tiny.TinyTask):
        def metric(self, outputs: Tensor, batch: Any) -> Tensor:
            return -self.score(outputs, batch).double().mean()

    contenders = [Contender(digest, f"run {place}", place) for place, digest in enumerate(DIGESTS)]
    found = [
        run_selection(
            Greedy(contenders, accept=Accept.NOT_WORSE), bench_for(kind(n="75")).evaluator("validation")
        )
        for kind in (Upside, tiny.TinyTask)
    ]
    assert found[0].recipe != found[1].recipe
    worst = min(alone.value for alone in (score(bench_for(tiny.TinyTask(n="75")), r) for r in ALONE))
    assert max(step.score for step in found[0].steps if step.score and len(step.tried) == 1) == -worst


def test_every_trial_takes_a_full_pass_and_the_log_says_why() -> None:
    said: list[str] = []
    evaluator = bench_for(said=said).evaluator("validation")
    trials = [Trial(recipe, Threshold(2.0, strict=False)) for recipe in (*ALONE, SOUP)]
    assert all(isinstance(outcome, Score) for outcome in evaluator.evaluate(trials))
    assert evaluator.passes == 5
    assert evaluator.reorders == "nothing"
    assert said == [
        "split 'validation': the task measures the split as a whole: every trial takes a full pass"
    ]


def test_outputs_that_are_too_large_to_be_remembered_are_measured_all_the_same() -> None:
    small = RememberedOutputs(bytes_per_example=4)
    bench = bench_for(outputs=small)
    assert bits(score(bench)) == bits(score(bench_for()))
    protocol = bench.evaluator("validation").protocol.digest
    assert small.get(ALONE[0].digest, protocol) is not None
    assert small.get(ALONE[0].digest, protocol, outputs=True) is None


def test_an_ensemble_is_measured_by_the_metric_of_the_mean_outputs() -> None:
    task = tiny.MeasuredTask(n="75")
    bench = bench_for(task)
    for recipe in ALONE:
        score(bench, recipe)
    ensemble = bench.ensemble(Ensemble.of(SOUP.checkpoints), "validation")
    modules = [bench.module_with(recipe) for recipe in ALONE]
    batch = task.collate(list(task.examples("validation")))
    with torch.inference_mode():
        mean = torch.stack([task.predict(module, batch) for module in modules]).mean(dim=0)
    assert ensemble is not None
    assert ensemble.metric is not None
    assert ensemble.value == pytest.approx(float(task.metric(mean, batch)))
    gain = compare("validation", score(bench), ensemble)
    assert gain.mcnemar_p is None
    assert -math.inf < gain.low <= gain.difference <= gain.high < math.inf


def test_a_soup_that_overflows_has_a_metric_of_nan_and_can_be_compared() -> None:
    def state(digest: Digest) -> Mapping[str, Tensor]:
        made = tiny.weights(seed=DIGESTS.index(digest))
        made["2.bias"][0] = 3e38
        return made

    bench = bench_for(state=state)
    found, alone = score(bench, SOUP), score(bench)
    assert math.isnan(found.value)
    assert found.metric is not None
    assert alone.metric is not None
    assert len(found.metric.without) == len(alone.metric.without)
    assert compare("validation", alone, found).low == -math.inf


@pytest.mark.parametrize("value", [math.nan, -math.inf, 3, np.float32(0.5), torch.tensor(2)])
def test_whatever_is_one_real_number_is_a_metric(value: Any) -> None:
    class Constant(tiny.TinyTask):
        def metric(self, outputs: Tensor, batch: Any) -> Any:  # noqa: ARG002 - the port's
            return value

    assert repr(score(bench_for(Constant(n="75"))).value) == repr(float(value))


def test_a_metric_that_is_none_is_none_at_all() -> None:
    class Plain(tiny.MeasuredTask):
        metric = None  # type: ignore[assignment]  # as a subclass may take it back

    bench = bench_for(Plain(n="75"))
    assert score(bench).metric is None
    assert bench.evaluator("validation").protocol.question.task_version == "1"


def test_a_metric_is_another_protocol_than_the_mean() -> None:
    """An older release remembered the mean for the same task."""
    assert bench_for().evaluator("validation").protocol.question.task_version == "1+metric"


@pytest.mark.parametrize("plain", [False, True])
def test_a_metric_that_is_not_compared_is_called_once_and_is_a_protocol_of_its_own(plain: bool) -> None:  # noqa: FBT001 - a parameter of the test
    class Counted(tiny.MeasuredTask):
        calls = 0

        def metric(self, outputs: Tensor, batch: Any) -> Tensor:
            self.calls += 1
            return super().metric(outputs, batch)

    task = Counted(n="75")
    bench = bench_for(task)
    value = score(bench, compared=False, plain=plain)
    assert value.metric == Metric(value.value, ())
    assert task.calls == 1
    assert bench.ensemble(Ensemble.of(ALONE[0].checkpoints), "validation") is None
    assert (
        bench.ensemble(Ensemble.of(ALONE[0].checkpoints), "validation", compared=False) == value
    ) is not plain
    task.calls = 0
    assert score(bench, plain=plain).value == value.value
    assert task.calls == 51
    versions = [
        bench.evaluator("validation", compared=compared, plain=plain).protocol.question.task_version
        for compared in (True, False)
    ]
    assert versions == ["1+metric", "1+metric-value"]


def test_what_is_compared_is_one_protocol_where_there_is_no_metric() -> None:
    bench = bench_for(tiny.TinyTask(n="75"))
    assert bench.evaluator("validation", compared=False) is bench.evaluator("validation")


def test_other_blocks_of_the_jackknife_are_another_protocol() -> None:
    class Grouped(tiny.MeasuredTask):
        def __init__(self, origins: int) -> None:
            super().__init__(n="40")
            self.origins = origins

        def groups(self, split: str) -> list[int]:
            del split
            return [example % self.origins for example in range(40)]

    found = [bench_for(Grouped(origins)).evaluator("test").protocol for origins in (4, 8, 8)]
    assert found[0].digest != found[1].digest == found[2].digest
    assert found[0].dataset == found[1].dataset


def test_the_only_example_has_no_replicates_to_speak_of() -> None:
    found = score(bench_for(tiny.MeasuredTask(n="1")))
    assert found.metric is not None
    assert found.value in (0.0, 1.0)
    assert list(map(math.isnan, found.metric.without)) == [True]


def raising(error: Exception) -> Callable[..., Any]:
    def metric(*_: object) -> Any:
        raise error

    return metric


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def without_a_block(outputs: Tensor, _batch: Any) -> float:
    if len(outputs) < 75:
        raise ValueError("only one class")
    return 0.5


ALL = rf"all 75 examples of split 'validation', recipe {short(ALONE[0].digest)}"


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (raising(ValueError("shapes")), rf"metric\(\) raised ValueError: shapes, {ALL}"),
        (without_a_block, r"ValueError: only one class, all but block 1 of 50 of split 'validation', recipe"),
        (returning("good"), rf"metric\(\) returned a str, {ALL}"),
        (returning(None), r"metric\(\) returned a NoneType"),
        (returning(True), r"metric\(\) returned a bool"),  # noqa: FBT003 - what it returns
        (returning(1j), r"metric\(\) returned a complex"),
        (returning({"f1": 0.5}), r"metric\(\) returned a dict"),
        (returning(np.zeros(1)), r"metric\(\) returned a ndarray"),
        (returning(torch.zeros(75)), r"metric\(\) returned a torch.float32 tensor of shape \[75\]"),
        (returning(torch.zeros(1)), r"tensor of shape \[1\]"),
        (returning(torch.zeros((), dtype=torch.cfloat)), r"a torch.complex64 tensor of shape \[\]"),
        (returning(math.inf), rf"metric\(\) returned inf, {ALL}"),
        (returning(10**400), r"metric\(\) raised OverflowError"),
        ("f1", "metric is a str"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_a_metric_that_breaks_its_contract_is_told_where(metric: Any, message: str, plain: bool) -> None:  # noqa: FBT001 - a parameter of the test
    task: Any = tiny.TinyTask(n="75")
    task.metric = metric
    with pytest.raises(BadTask, match=message) as caught:
        score(bench_for(task), plain=plain)
    assert caught.value.mend


def test_no_room_for_the_metric_is_no_room_on_the_device() -> None:
    task: Any = tiny.TinyTask(n="75")
    task.metric = raising(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(OutOfDeviceMemory, match="CUDA out of memory"):
        score(bench_for(task))


@pytest.mark.parametrize(
    ("extra", "place"),
    [(lambda _: torch.ones(3), "from 0"), (lambda labels: [str(label) for label in labels], "from 8")],
)
def test_batches_that_cannot_be_joined_are_refused(extra: Callable[[Tensor], Any], place: str) -> None:
    class Odd(tiny.MeasuredTask):
        def collate(self, examples: list[tiny.Example]) -> Any:
            x, labels = super().collate(examples)
            return x, labels, extra(labels)

    with pytest.raises(
        BadTask, match=rf"one row per example.*split 'validation', examples {place}"
    ) as caught:
        score(bench_for(Odd(n="75")))
    assert "collate()" in caught.value.mend


def test_outputs_of_changing_shape_are_refused() -> None:
    class Ragged(tiny.MeasuredTask):
        calls = 0

        def predict(self, model: Any, batch: Any) -> Tensor:
            self.calls += 1
            return super().predict(model, batch)[:, : 2 + self.calls % 2]

    with pytest.raises(BadTask, match="Sizes of tensors must match"):
        score(bench_for(Ragged(n="75")))


class Careless(tiny.MeasuredTask):
    """Changes all that it is given."""

    def metric(self, outputs: Tensor, batch: Any) -> Tensor:
        found = super().metric(outputs, batch)
        for tensor in (outputs, *batch):
            tensor.zero_()
        return found


def test_a_metric_that_changes_what_it_is_given_spoils_nothing() -> None:
    bench = bench_for(Careless(n="75"))
    assert bits(score(bench)) == bits(score(bench)) == bits(score(bench_for()))
    score(bench, SOUP)
    for recipe in ALONE:
        score(bench, recipe)
    assert bench.ensemble(Ensemble.of(SOUP.checkpoints), "validation") is not None


class Pictures(tiny.MeasuredTask):
    """With inputs of 4 KiB, beside labels, which are all that the metric wants."""

    def __init__(self) -> None:
        super().__init__(n="75")
        self.collated = self.told = 0

    def collate(self, examples: list[tiny.Example]) -> Any:
        self.collated += 1
        x, labels = super().collate(examples)
        return {"large": x.repeat(1, 128), "labels": labels, "name": "x"}

    def targets(self, batch: Any) -> Any:
        self.told += 1
        classes = nn.functional.one_hot(batch["labels"], tiny.CLASSES)
        return [batch["labels"], {"classes": classes[:, :2], "first": classes[:, 0]}]

    def predict(self, model: Any, batch: Any) -> Tensor:
        return super().predict(model, (batch["large"][:, : tiny.FEATURES], None))  # type: ignore[arg-type]  # only x

    def score(self, outputs: Tensor, batch: Any) -> Tensor:
        return super().score(outputs, (outputs, batch["labels"]))

    def metric(self, outputs: Tensor, targets: Any) -> Tensor:
        labels, more = targets
        assert torch.equal(more["classes"], nn.functional.one_hot(labels, tiny.CLASSES)[:, :2])
        assert torch.equal(more["first"], (labels == 0).long())
        return super().metric(outputs, (outputs, labels))


def test_the_metric_gets_the_targets_of_all_examples_joined_once_for_all_recipes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "SHARE", 0.0)
    task, one_pass = Pictures(), 10
    bench = bench_for(task)
    assert bits(score(bench)) == bits(score(bench_for()))
    assert task.told == one_pass
    before = task.collated
    assert score(bench).metric == score(bench_for()).metric
    assert (task.told, task.collated - before) == (one_pass, one_pass)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [True, False])
def test_inputs_take_memory_only_where_they_are_targets(
    monkeypatch: pytest.MonkeyPatch,
    chosen: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    monkeypatch.setattr(batches, "SHARE", 0.0)

    def joined() -> int:
        gc.collect()
        shape = (75, 128 * tiny.FEATURES)
        return sum(type(o) is Tensor and o.shape == shape for o in gc.get_objects())

    class Whole(Pictures):
        targets = None  # type: ignore[assignment]  # as a subclass may take it back

        def metric(self, outputs: Tensor, targets: Any) -> Tensor:
            assert targets["name"] == "x"
            return tiny.MeasuredTask.metric(self, outputs, (targets["large"], targets["labels"]))

    before, task = joined(), Pictures() if chosen else Whole()
    bench = bench_for(task)
    assert bits(score(bench)) == bits(score(bench_for()))
    assert joined() - before == (not chosen)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (raising(KeyError("labels")), r"targets\(\) raised KeyError: 'labels', split 'validation', examples"),
        (lambda batch: batch[1].sum(), r"one row per example.*split 'validation', examples from 0"),
        (lambda batch: [str(batch[1])], r"differs from the first.*split 'validation', examples from 8"),
    ],
)
def test_targets_that_cannot_be_joined_are_refused(targets: Any, message: str) -> None:
    task: Any = tiny.MeasuredTask(n="75")
    task.targets = targets
    with pytest.raises(BadTask, match=message) as caught:
        score(bench_for(task))
    assert "targets()" in caught.value.mend
