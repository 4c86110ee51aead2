"""Statistics of BatchNorm, estimated anew for an average: which examples, which sums, and who keeps them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from stockpot.entities import (
    Accept,
    Contender,
    OverlayRule,
    Recipe,
    Score,
    SoupRequest,
    Trial,
    digest_of_bytes,
)
from stockpot.errors import BadCheckpoint, BadRequest, BadTask, Incompatible, UnknownSplit
from stockpot.evaluation import TorchBench
from stockpot.evaluation.passes.spread import EXAMPLES, even, spread
from stockpot.evaluation.weights.batch_norm import estimating, norms_of
from stockpot.ports import Evaluator, Interrupted
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.selection.uniform import Uniform
from stockpot.soup.overlay import Overlay
from stockpot.store import MemoryStore
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.testing.evaluator_contract import EvaluatorContract
from stockpot.workflow.selecting.overlaid import Overlaid, overlay_rule, told

pytestmark = pytest.mark.usefixtures("one_thread")
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(5)]
CONTENDERS = [Contender(digest, f"run {place}", place) for place, digest in enumerate(DIGESTS)]
FEATURES, CLASSES = 6, 3


class Pictures(nn.Module):
    """``[n, 6]`` to ``[n, 3]``: BatchNorm twice, one of them in two places, and dropout that would show."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Linear(8, 8)
        self.again = self.norm
        self.last_norm = nn.SyncBatchNorm(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.norm(self.first(x))))
        x = self.last_norm(self.again(self.second(x)))
        logits: Tensor = self.head(x)
        return logits


def made(seed: int) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Pictures()


def trained(seed: int) -> nn.Module:
    """With weights beside those of the others, but for seed 0, and statistics and a counter of its own."""
    module = made(0)
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.4 if seed else 0.0))
        for _ in range(30 + seed):
            module.train()(torch.randn(16, FEATURES))
    return module.eval()


TEACHER = trained(0)
STATES = {digest: trained(seed).state_dict() for seed, digest in enumerate(DIGESTS, start=1)}


class Task:
    version = "1"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    batch_size = 16

    def __init__(self, sizes: dict[str, int] | None = None) -> None:
        self.sizes = sizes or {"train": 50, "validation": 200, "test": 40}
        self.seen: list[int] = []

    def model(self) -> nn.Module:
        return made(1)

    def examples(self, split: str) -> Sequence[tuple[Tensor, int]]:
        drawn = torch.Generator().manual_seed([*self.sizes].index(split))
        inputs = torch.randn(self.sizes[split], FEATURES, generator=drawn)
        with torch.inference_mode():
            labels = TEACHER(inputs).argmax(1)
        return list(zip(inputs, labels.tolist(), strict=True))

    def collate(self, examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in examples]), torch.tensor([label for _, label in examples])

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.seen.append(len(batch[0]))
        model.eval()  # as many do: statistics are estimated all the same
        outputs: Tensor = model(batch[0])
        return outputs

    def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (outputs.argmax(1) == batch[1]).double()


def bench_for(task: Any = None, store: MemoryStore | None = None, states: Any = None) -> TorchBench:
    return TorchBench(
        task or Task(),
        identity=("pictures", "1"),
        task_args={},
        checkpoints=MadeCheckpoints((states or STATES).__getitem__),
        device="cpu",
        overlays=store,
    )


def ruled(bench: TorchBench, split: str = "train") -> OverlayRule:
    rule = bench.overlay_rule(split)
    assert rule is not None
    return rule


def measured(bench: TorchBench, recipe: Recipe, *, plain: bool = False) -> Score:
    (outcome,) = bench.evaluator("validation", plain=plain).evaluate([Trial(recipe)])
    assert isinstance(outcome, Score)
    return outcome


def state_of(bench: TorchBench, recipe: Recipe) -> dict[str, Tensor]:
    return bench.module_with(recipe).state_dict()


def stay_off(dropout: nn.Module, _: Any) -> None:
    """As we leave it. `update_bn` turns it on."""
    dropout.eval()


@pytest.mark.parametrize("sizes", [{"train": 50}, {"train": 48}, {"train": 33}, {"train": 5}])
def test_statistics_are_those_of_torchs_own_function_bit_by_bit(sizes: dict[str, int]) -> None:
    task = Task({**sizes, "validation": 20})
    bench = bench_for(task)
    soup = replace(Recipe.mean(DIGESTS), overlay=ruled(bench))
    average = bench.module_with(soup.average)
    batches = [batch for part in bench.workspace.parts("train") for batch in part]
    examples = [tuple(row.tolist()) for inputs, _ in batches for row in inputs]
    assert len(examples) == len(set(examples)) == sizes["train"], (
        "each once: none is repeated to fill a batch"
    )
    lengths = {len(inputs) for inputs, _ in batches}
    assert max(lengths) - min(lengths) <= 1
    average.get_submodule("drop").register_forward_pre_hook(stay_off)
    update_bn([inputs for inputs, _ in batches], average)
    measured(bench, soup)
    found = state_of(bench, soup)
    for name, tensor in average.state_dict().items():
        assert torch.equal(found[name], tensor), name
    assert int(found["last_norm.num_batches_tracked"]) == len(batches)
    assert int(found["norm.num_batches_tracked"]) == 2 * len(batches), "it stands in two places"


def test_the_plain_evaluator_and_every_process_with_the_store_lay_the_same_over_it() -> None:
    store = MemoryStore()
    first, plain, later = (bench_for(store=store) for _ in range(3))
    soup = replace(Recipe.mean(DIGESTS[:3]), overlay=ruled(first))
    assert {ruled(plain), ruled(later)} == {soup.overlay}
    score = measured(first, soup)
    assert measured(first, soup) == measured(plain, soup, plain=True) == measured(later, soup) == score
    alone = bench_for()
    assert ruled(alone) == soup.overlay
    assert measured(alone, soup, plain=True) == score, "what it estimates itself"
    passes = 200 / 200  # of the held-out split; and of the statistics, once
    assert (first.passes, plain.passes, later.passes, alone.passes) == (
        3 * passes,
        passes,
        passes,
        2 * passes,
    )
    without = bench_for(store=MemoryStore())
    with pytest.raises(BadCheckpoint, match="its statistics are not in this store"):
        without.module_with(soup)
    with pytest.raises(BadCheckpoint, match="its statistics are not in this store"):
        measured(without, soup)  # which has no rule


def test_where_another_process_commits_first_what_it_found_is_laid_over_it() -> None:
    """Two machines estimate other bits: whoever comes second scores with those of the first."""
    theirs = MemoryStore()
    soup = replace(Recipe.mean(DIGESTS[:3]), overlay=ruled(bench_for(store=theirs)))
    first = bench_for(store=theirs)
    ruled(first)
    measured(first, soup)
    others = {name: tensor + 1 for name, tensor in _laid(theirs, soup).items()}

    class Late(MemoryStore):
        """In which the other's appears while we estimate."""

        def resolve_overlay(self, recipe: Recipe, overlay: bytes) -> bytes:
            super().resolve_overlay(recipe, Overlay.of(others).content)
            return super().resolve_overlay(recipe, overlay)

    store = Late()
    second, third = (bench_for(store=store) for _ in range(2))
    assert ruled(second) == ruled(third) == soup.overlay
    assert measured(second, soup) == measured(third, soup) != measured(first, soup)
    state = state_of(second, soup)
    assert all(torch.equal(state[name], tensor) for name, tensor in others.items())


def _laid(store: MemoryStore, soup: Recipe) -> dict[str, Tensor]:
    content = store.overlay(soup.digest)
    assert content is not None
    overlay = Overlay(content)
    return {spec.name: overlay.read(spec.name) for spec in overlay.tensors if spec.dtype == "F32"}


def test_a_single_candidate_keeps_its_own_and_an_average_without_a_rule_averages_them() -> None:
    bench = bench_for()
    soup = replace(Recipe.mean(DIGESTS[:2]), overlay=ruled(bench))
    own = [STATES[digest]["last_norm.running_mean"] for digest in DIGESTS[:2]]
    models = bench.workspace.models
    for _ in range(2):  # whatever the live module held before
        single = models.holding(Recipe.mean(DIGESTS[:1])).state_dict()
        assert torch.equal(single["last_norm.running_mean"], own[0])
        assert int(single["last_norm.num_batches_tracked"]) == 31
        assert not torch.equal(models.holding(soup).state_dict()["last_norm.running_mean"], sum(own) / 2)
        plainly = models.holding(soup.average).state_dict()["last_norm.running_mean"]
        assert torch.equal(plainly, (own[0] + own[1]) * 0.5)


@pytest.mark.parametrize("accept", list(Accept))
def test_early_rejection_takes_the_plain_loops_decisions(accept: Accept) -> None:
    store = MemoryStore()
    bench, careful = bench_for(store=store), bench_for()
    rule = ruled(bench)
    assert ruled(careful) == rule
    fast, plain = (
        run_selection(Overlaid(Greedy(CONTENDERS, accept=accept), rule), evaluator)
        for evaluator in (
            bench.evaluator("validation"),
            careful.evaluator("validation", plain=True),
        )
    )
    assert (fast.recipe, fast.score) == (plain.recipe, plain.score)
    assert fast.recipe.is_soup
    assert isinstance(fast.recipe, Recipe)
    assert fast.recipe.overlay == rule
    for step, reference in zip(fast.steps, plain.steps, strict=True):
        assert (step.recipe, step.kept) == (reference.recipe, reference.kept)
        assert reference.score is not None
        assert step.score in {None, reference.score}
        assert step.bound is None or step.bound >= reference.score
        laid = replace(Recipe.mean(step.tried), overlay=rule if len(step.tried) > 1 else None)
        assert step.recipe == laid.digest, "it is named as it was evaluated"
        assert (store.overlay(step.recipe) is not None) == (len(step.tried) > 1)
    assert any(step.bound is not None for step in fast.steps)
    soups = len(CONTENDERS) - 1
    assert careful.passes == len(CONTENDERS) + 2 * soups, (
        "each soup takes a pass over its statistics' examples"
    )
    assert len(CONTENDERS) + soups < bench.passes < careful.passes


def test_a_method_that_knows_no_overlay_finds_the_same_soup_with_one() -> None:
    rule = OverlayRule("train", 4, "bn/1", digest_of_bytes(b"data"))
    method = Overlaid(Uniform(CONTENDERS, accept=Accept.BETTER), rule)
    (trial,) = method.ask()
    assert trial.recipe == replace(Recipe.uniform(DIGESTS), overlay=rule)
    with pytest.raises(ValueError, match="was asked for"):
        method.tell(Trial(Recipe.uniform(DIGESTS[1:])), Score((1.0,)))
    method.tell(trial, Score((1.0,)))
    assert method.result().recipe == trial.recipe
    assert [step.recipe for step in method.result().steps] == [trial.recipe.digest]
    assert (method.name, method.most_soups, method.ask(), method.foresee(3)) == ("uniform", 1, [], [])


def test_what_is_read_of_a_split_is_spread_over_it_and_cut_evenly() -> None:
    for total in (*range(1, 200), EXAMPLES, 50_000):
        places = spread(total)
        assert len(set(places)) == len(places) == min(total, EXAMPLES)
        assert set(places) <= set(range(total))
    ten_classes = [place * 10 // 50_000 for place in spread(50_000)]  # a split that is sorted by class
    for start in range(0, EXAMPLES, 256):
        counts = [ten_classes[start : start + 256].count(label) for label in range(10)]
        assert max(counts) - min(counts) <= 4, "each batch is like the whole"
    for n in range(1, 70):
        for most in range(1, 20):
            batches = [size for count, size in even(n, most) for _ in range(count)]
            assert sum(batches) == n
            assert len(batches) == (n // 2 if most == 2 < n else math.ceil(n / most))
            assert min(n, most, 2) <= min(batches), "one example has no variance"
            assert max(batches) - min(batches) <= 1


def test_an_estimation_that_is_called_off_stops_at_the_next_batch_and_commits_nothing() -> None:
    store = MemoryStore()
    task = Task()
    bench = bench_for(task, store)
    soup = replace(Recipe.mean(DIGESTS), overlay=ruled(bench))
    left = iter([True, True])
    with pytest.raises(Interrupted):
        bench.evaluator("validation").evaluate([Trial(soup)], wanted=lambda: next(left, False))
    assert len(task.seen) == 2
    assert store.overlay(soup.digest) is None
    assert measured(bench, soup) == measured(bench_for(store=store), soup)


def test_a_split_that_is_reported_on_is_refused_by_what_it_holds() -> None:
    class Twins(Task):
        def examples(self, split: str) -> Sequence[tuple[Tensor, int]]:
            return super().examples("test" if split == "train" else split)

    with pytest.raises(BadRequest, match="splits train and test hold the same data"):
        bench_for(Twins()).overlay_rule("train", but=("validation", "test"))
    assert bench_for(Twins()).overlay_rule("train", but=("validation",)) is not None
    with pytest.raises(BadTask, match="split 'none' is empty"):
        bench_for(Task({"train": 5, "none": 0})).overlay_rule("none")


@pytest.mark.parametrize("asked", [{"report_on": "held"}, {"report_on": "test", "shifts": ("held",)}])
def test_a_request_estimates_nothing_on_what_it_reports_or_shifts_whatever_its_name(
    asked: dict[str, Any],
) -> None:
    class Twins(Task):
        def examples(self, split: str) -> Sequence[tuple[Tensor, int]]:
            return super().examples("train" if split == "held" else split)

    with pytest.raises(BadRequest, match="splits train and held hold the same data"):
        overlay_rule(replace(REQUEST, **asked), bench_for(Twins()))


def test_other_data_code_or_arguments_are_another_rule() -> None:
    rules = {
        ruled(bench_for()),
        ruled(bench_for(), "validation"),
        ruled(bench_for(Task({"validation": 50, "train": 50}))),
        ruled(
            TorchBench(
                Task(),
                identity=("pictures", "2"),
                task_args={},
                checkpoints=MadeCheckpoints(STATES.__getitem__),
            )
        ),
    }
    assert len(rules) == 4
    halved = bench_for()
    halved.halve_batch()
    assert ruled(halved) == ruled(bench_for()), "a soup has one name, whatever fits the device"


def test_a_model_without_batch_norm_has_no_rule_and_opens_no_split() -> None:
    class Plain(Task):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(FEATURES, CLASSES), nn.LayerNorm(CLASSES))

    assert bench_for(Plain()).overlay_rule("nowhere") is None


class Counting(nn.Module):
    """Keeps statistics, and is none of torch's."""

    def __init__(self, *, counts: bool) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.ones(4))
        if counts:
            self.register_buffer("num_batches_tracked", torch.tensor(0))


class Ghost(nn.BatchNorm1d):
    """Normalises parts of a batch, as one derived from torch's may."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return torch.cat([super(Ghost, self).forward(part) for part in input.chunk(2)])


def test_layers_of_other_kinds_that_keep_statistics_are_refused_by_name_unless_they_are_constants() -> None:
    for layer in (Counting(counts=True), nn.InstanceNorm1d(4, track_running_stats=True)):
        with pytest.raises(BadTask, match=rf"no BatchNorm of torch: 1 \({type(layer).__name__}\)"):
            norms_of(nn.Sequential(nn.BatchNorm1d(4), layer))
    rest = nn.Sequential(Counting(counts=False), nn.BatchNorm1d(4, track_running_stats=False), Ghost(4))
    assert [*norms_of(rest)] == ["2"]


def test_a_layer_derived_from_torchs_counts_its_parts_and_one_that_is_not_asked_keeps_the_average() -> None:
    class WithGhost(Task):
        def model(self) -> nn.Module:
            module = nn.ModuleDict({"ghost": Ghost(FEATURES), "unused": nn.BatchNorm1d(4)})
            module.update({"head": nn.Linear(FEATURES, CLASSES)})
            return module

        def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            assert isinstance(model, nn.ModuleDict)
            outputs: Tensor = model["head"](model["ghost"](batch[0]))
            return outputs

    states = {}
    for place, digest in enumerate(DIGESTS):
        module = WithGhost().model()
        with torch.random.fork_rng([]):
            torch.manual_seed(place)
            for tensor in module.state_dict().values():
                tensor.copy_(torch.rand(tensor.shape)) if tensor.is_floating_point() else tensor.add_(place)
        states[digest] = module.state_dict()
    bench = bench_for(WithGhost(), states=states)
    soup = replace(Recipe.mean(DIGESTS[:2]), overlay=ruled(bench))
    measured(bench, soup)
    found = state_of(bench, soup)
    inputs = torch.cat([b[0] for part in bench.workspace.parts("train") for b in part])
    assert torch.allclose(found["ghost.running_mean"], inputs.mean(0), atol=0.05)
    assert int(found["ghost.num_batches_tracked"]) == 2 * 4
    kept = [states[digest]["unused.running_mean"] for digest in DIGESTS[:2]]
    assert torch.equal(found["unused.running_mean"], (kept[0] + kept[1]) * 0.5)
    assert int(found["unused.num_batches_tracked"]) == 0


def test_a_model_whose_batch_norm_is_never_asked_is_the_tasks_fault() -> None:
    class Compiled(Task):
        def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            model.eval()
            return batch[0][:, :CLASSES]

    bench = bench_for(Compiled())
    soup = replace(Recipe.mean(DIGESTS[:2]), overlay=ruled(bench))
    with pytest.raises(BadTask, match="no BatchNorm of the task's model is asked anything, as statistics of"):
        measured(bench, soup)


def test_a_soup_whose_statistics_overflow_scores_nan_and_keeps_none() -> None:
    huge = {d: {**STATES[d], "first.weight": torch.full((8, FEATURES), 3e38)} for d in DIGESTS}
    store = MemoryStore()
    bench = bench_for(store=store, states=huge)
    soup = replace(Recipe.mean(DIGESTS[:2]), overlay=ruled(bench))
    assert all(map(math.isnan, measured(bench, soup).examples))
    assert store.overlay(soup.digest) is None


def test_counters_that_differ_are_no_hindrance_and_other_integers_are() -> None:
    assert len({int(state["norm.num_batches_tracked"]) for state in STATES.values()}) == len(STATES)
    steps = {d: {**s, "head.step": torch.tensor(place)} for place, (d, s) in enumerate(STATES.items())}

    class Stepping(Task):
        def model(self) -> nn.Module:
            module = made(1)
            module.get_submodule("head").register_buffer("step", torch.tensor(0))
            return module

    bench = bench_for(Stepping(), states=steps)
    with pytest.raises(Incompatible, match="do not go together"):
        measured(bench, replace(Recipe.mean(DIGESTS[:2]), overlay=ruled(bench)))


@pytest.mark.parametrize(("n", "batch_size"), [(1, 16), (5, 1), (5, 2)])
def test_a_single_example_that_has_no_variance_is_no_fault_of_predict(n: int, batch_size: int) -> None:
    task = Task({"train": n, "validation": 20})
    task.batch_size = batch_size
    bench = bench_for(task)
    soup = replace(Recipe.mean(DIGESTS[:2]), overlay=ruled(bench))
    if batch_size == 2:
        measured(bench, soup)
        assert max(task.seen) == 3, "the last one goes with those before it"
        return
    with pytest.raises(BadRequest, match="BatchNorm norm is given a single example, as statistics") as raised:
        measured(bench, soup)
    assert "batch_size" in raised.value.mend
    assert "--statistics-on" in raised.value.mend


def test_a_single_picture_has_a_variance_over_its_places() -> None:
    norm = nn.BatchNorm2d(3).eval()
    with estimating(norm, "here"):
        norm(torch.randn(1, 3, 4, 4))
    assert int(norm.get_buffer("num_batches_tracked")) == 1
    with pytest.raises(BadRequest, match="is given a single example, here"), estimating(norm, "here"):
        norm(torch.randn(1, 3, 1, 1))


def test_an_unknown_split_is_told_as_such() -> None:
    class Strict(Task):
        def examples(self, split: str) -> Sequence[tuple[Tensor, int]]:
            if split not in self.sizes:
                raise KeyError(f"{split} is none of {', '.join(self.sizes)}")
            return super().examples(split)

    with pytest.raises(UnknownSplit, match=r"no split 'training'.*train, validation, test"):
        bench_for(Strict()).overlay_rule("training")


REQUEST = SoupRequest(model="m", task="t", sweep="s")


@pytest.mark.parametrize(
    ("kind", "what"),
    [("augmented", "are others each time they are read"), ("empty", "is empty"), ("unknown", "no split")],
)
def test_training_examples_that_nobody_named_and_that_are_of_no_use_lead_to_the_option(
    kind: str, what: str
) -> None:
    class Odd(Task):
        def examples(self, split: str) -> Sequence[tuple[Tensor, int]]:
            if split != "train":
                return super().examples(split)
            if kind == "unknown":
                raise KeyError("train is none of validation, test")
            found = super().examples(split)
            read = np.random.default_rng()  # as augmentation does, from elsewhere than torch
            return [(x + float(read.random()), y) for x, y in found] if kind == "augmented" else []

    with pytest.raises(BadRequest, match=f"the model has BatchNorm, .*{what}") as raised:
        overlay_rule(REQUEST, bench_for(Odd()))
    assert "--statistics-on validation" in raised.value.mend
    with pytest.raises(BadTask, match=what):
        overlay_rule(replace(REQUEST, statistics_on="train"), bench_for(Odd()))


def test_a_layer_that_nobody_can_estimate_is_told_as_such_and_so_is_an_option_without_use() -> None:
    class Other(Task):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(FEATURES, 4), self.layer)

    with pytest.raises(BadTask, match="keep running statistics"):
        overlay_rule(REQUEST, bench_for(Other(Counting(counts=True))))
    named = replace(REQUEST, statistics_on="nonsense")
    assert overlay_rule(named, bench_for(Other(Counting(counts=False)))) is None
    assert told(REQUEST, None) == ()
    [sentence] = told(named, None)
    assert "--statistics-on nonsense is not used: the task's model has no BatchNorm" in sentence


class TestEvaluatorOfSoupsWithStatistics(EvaluatorContract):
    @pytest.fixture(params=[False, True], ids=["fast", "plain"])
    def evaluator(self, request: pytest.FixtureRequest) -> Evaluator:
        bench = bench_for(Task({"train": 16, "validation": 20}))
        assert ruled(bench) == self.rule()
        return bench.evaluator("validation", plain=request.param)

    @pytest.fixture
    def recipes(self) -> Sequence[Recipe]:
        soups = (Recipe.mean(DIGESTS[:2]), Recipe.mean(DIGESTS[1::-1]), Recipe.mean(DIGESTS))
        singles = [Recipe.mean([digest]) for digest in DIGESTS[:2]]
        return [*singles, *(replace(soup, overlay=self.rule()) for soup in soups)]

    @staticmethod
    def rule() -> OverlayRule:
        return ruled(bench_for(Task({"train": 16, "validation": 20})))
