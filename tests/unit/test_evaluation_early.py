"""Exact early rejection: the plain loop's answers, for fewer batches."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stockpot.entities import (
    Accept,
    Bound,
    Contender,
    Digest,
    Ensemble,
    Recipe,
    Score,
    Selection,
    Threshold,
    Trial,
    digest_of_bytes,
)
from stockpot.errors import BadTask
from stockpot.evaluation import RememberedOutputs, TorchBench
from stockpot.evaluation.passes import batches
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.rejection import early_rejection
from stockpot.evaluation.torch_evaluator import TorchEvaluator
from stockpot.ports import Interrupted, OrderDependent
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.soup.arithmetic import RunningSum
from stockpot.store import MemoryStore
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

pytestmark = pytest.mark.usefixtures("one_thread")
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(6)]
ALONE = [Recipe.mean([digest]) for digest in DIGESTS]
PAIR = Recipe.mean(DIGESTS[:2])
CONTENDERS = [Contender(digest, f"run {place}", place) for place, digest in enumerate(DIGESTS)]


class Small(tiny.TinyTask):
    batch_size = 4


def bench_for(
    task: Any = None,
    kind: str = "dense",
    said: list[str] | None = None,
    spread: float = 0.1,
    outputs: RememberedOutputs | None = None,
) -> TorchBench:
    states = [tiny.weights(kind, seed=seed, spread=spread) for seed in range(len(DIGESTS))]

    return TorchBench(
        task or Small(kind, n="202"),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(lambda digest: states[DIGESTS.index(digest)]),
        device=torch.device("cpu"),
        outputs=outputs,
        say=None if said is None else said.append,
    )


def greedy(evaluator: TorchEvaluator, accept: Accept) -> Selection:
    return run_selection(Greedy(CONTENDERS, accept=accept), evaluator)


def require_same(fast: Selection, plain: Selection) -> None:
    assert (fast.recipe, fast.score) == (plain.recipe, plain.score)
    for step, reference in zip(fast.steps, plain.steps, strict=True):
        assert (step.recipe, step.kept) == (reference.recipe, reference.kept)
        assert reference.score is not None
        assert step.score in (None, reference.score)
        assert (math.inf if step.bound is None else step.bound) >= reference.score


def measured(evaluator: TorchEvaluator, *recipes: Recipe) -> Score:
    score = evaluator.evaluate([Trial(recipe) for recipe in recipes])[-1]
    assert isinstance(score, Score)
    return score


@pytest.mark.parametrize("accept", list(Accept))
@pytest.mark.parametrize("kind", list(tiny.KINDS))
def test_greedy_takes_the_plain_loops_decisions_and_ends_where_it_ends(kind: str, accept: Accept) -> None:
    said: list[str] = []
    evaluator = bench_for(kind=kind, said=said).evaluator("validation")
    plain = bench_for(kind=kind).evaluator("validation", plain=True)
    fast = greedy(evaluator, accept)
    require_same(fast, greedy(plain, accept))
    assert any(step.bound is not None for step in fast.steps)
    assert plain.passes == len(fast.steps)
    if kind == "mates":
        assert evaluator.reorders == "batches"
        assert said == [
            "split 'validation': an example's outputs depend on its batch: whole batches are re-ordered"
        ]
    else:
        assert evaluator.reorders == "examples"
        assert said == []


@pytest.mark.slow
def test_on_twenty_sweeps_the_answers_are_the_plain_loops_also_where_many_are_accepted() -> None:
    accepted, bounded = [], 0
    for seed in range(20):
        spread, kind = (0.1, 0.2, 0.4, 0.8)[seed % 4], list(tiny.KINDS)[seed % len(tiny.KINDS)]
        states = [tiny.weights(kind, seed=100 * seed + place, spread=spread) for place in range(12)]
        digests = [digest_of_bytes(b"%d of sweep %d" % (place, seed)) for place in range(12)]
        bench = TorchBench(
            Small(kind, n="150"),
            identity=("tiny", "1"),
            task_args={},
            checkpoints=MadeCheckpoints(dict(zip(digests, states, strict=True)).__getitem__),
            device=torch.device("cpu"),
        )
        contenders = [Contender(digest, f"run {place}", place) for place, digest in enumerate(digests)]
        accept = list(Accept)[seed // 2 % 2]
        fast, plain = (
            run_selection(Greedy(contenders, accept=accept), bench.evaluator("validation", plain=plain))
            for plain in (False, True)
        )
        require_same(fast, plain)
        accepted.append(len(fast.recipe.checkpoints))
        bounded += sum(step.bound is not None for step in fast.steps)
    assert min(accepted) == 1
    assert max(accepted) >= 6
    assert bounded > 60, "most rejections are early"


def test_after_ranking_a_hopeless_soup_costs_little_more_than_its_wrong_answers() -> None:
    evaluator = bench_for().evaluator("validation")
    measured(evaluator, *ALONE[:2])
    trial = Trial(PAIR, Threshold(0.9, strict=False))
    evaluator.evaluate([trial])
    probed = evaluator.passes
    (outcome,) = evaluator.evaluate([trial])
    assert isinstance(outcome, Bound)
    batches_needed = math.ceil(0.1 * evaluator.protocol.n / Small.batch_size)
    assert round((evaluator.passes - probed) * 51) <= batches_needed + 2


def test_without_what_ranking_left_behind_bounds_are_true_still() -> None:
    evaluator, full = bench_for().evaluator("validation"), measured(bench_for().evaluator("validation"), PAIR)
    (outcome,) = evaluator.evaluate([Trial(PAIR, Threshold(full.value + 0.05, strict=False))])
    assert isinstance(outcome, Bound)
    assert full.value <= outcome.upper < full.value + 0.05
    assert evaluator.passes < 1


def test_what_another_process_ranked_saves_as_many_passes_as_a_ranking_of_ones_own() -> None:
    store, alone = MemoryStore(), [Trial(recipe) for recipe in ALONE]

    def passes_of_greedy(bench: TorchBench, store: MemoryStore) -> float:
        evaluator = SharedEvaluator(bench.evaluator("validation"), store, heed=bench.heed)
        evaluator.evaluate(alone)
        ranked = bench.passes
        run_selection(Greedy(CONTENDERS, accept=Accept.NOT_WORSE), evaluator)
        return bench.passes - ranked

    ranked_here = passes_of_greedy(bench_for(), MemoryStore())
    SharedEvaluator(bench_for().evaluator("validation"), store).evaluate(alone)
    assert passes_of_greedy(bench_for(), store) == ranked_here < len(ALONE) - 1


def test_a_rejection_that_took_every_batch_is_a_score_that_is_remembered() -> None:
    made, (alone, *_) = bench_for(tiny.TinyTask(n="8")), ALONE
    full = measured(bench_for(tiny.TinyTask(n="8")).evaluator("validation"), alone)
    assert made.evaluator("validation").evaluate([Trial(alone, Threshold(2.0, strict=False))]) == [full]
    assert made.ensemble(Ensemble.of(alone.checkpoints), "validation") == full


def test_unbounded_scores_take_full_passes_and_that_is_said_once() -> None:
    class Unbounded(Small):
        bounds = None

    said: list[str] = []
    evaluator = bench_for(Unbounded(n="202"), said=said).evaluator("validation")
    for _ in range(2):
        (outcome,) = evaluator.evaluate([Trial(PAIR, Threshold(2.0, strict=False))])
        assert isinstance(outcome, Score)
    assert said == ["split 'validation': scores have no upper bound: every trial takes a full pass"]
    assert evaluator.reorders == "nothing"


def test_a_score_out_of_bounds_names_its_example_and_recipe_in_whatever_batch() -> None:
    marked = Small(n="202").examples("validation")[77][0]

    class Breaking(Small):
        broken = False

        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            scores = super().score(outputs, batch)
            bad = (batch[0] == marked).all(dim=1)
            return torch.where(bad & (scores >= 0), 1.5, scores) if self.broken else scores

    for mix in (True, False):
        task = Breaking(n="202")
        evaluator = bench_for(task).evaluator("validation")
        if mix:
            measured(evaluator, *ALONE[:2])
        task.broken = True
        with pytest.raises(BadTask, match=r"1\.5 for example 77, outside .* recipe [0-9a-f]"):
            evaluator.evaluate([Trial(PAIR, Threshold(0.9 if mix else 0.0, strict=True)), Trial(PAIR)])


def crowd(batch: Any) -> Tensor:
    """A number that tells batches apart."""
    mean: Tensor = batch[0].mean()
    return mean.abs()


class InAnOutput(Small):
    """In one that is never among the two greatest."""

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        outputs = super().predict(model, batch)
        return torch.cat([outputs, outputs.amin(dim=1, keepdim=True) - 1 - crowd(batch)], dim=1)


class InAScore(Small):
    def score(self, outputs: Tensor, batch: Any) -> Tensor:
        return super().score(outputs, batch) / (1 + crowd(batch))


class InAGap(Small):
    """Where outputs are too large to be kept."""

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        return super().predict(model, batch) * (1 + crowd(batch))


@pytest.mark.parametrize(("task", "kept"), [(InAnOutput, 20), (InAScore, 20), (InAGap, 4)])
def test_the_probe_finds_batches_out_wherever_they_show(task: type[Small], kept: int) -> None:
    made = bench_for(task(n="202"), outputs=RememberedOutputs(bytes_per_example=kept))
    evaluator = made.evaluator("validation")
    measured(evaluator, *ALONE[:2])
    (outcome,) = evaluator.evaluate([Trial(PAIR, Threshold(0.9, strict=False))])
    assert isinstance(outcome, Bound)
    assert not outcome.mixed
    assert evaluator.order_dependent


def test_a_probe_that_was_mistaken_is_found_out_and_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_rejection, "independent", lambda _: True)
    said: list[str] = []
    evaluator = bench_for(kind="mates", said=said).evaluator("validation")
    singles = [measured(evaluator, recipe) for recipe in ALONE[:2]]
    full = measured(bench_for(kind="mates").evaluator("validation"), PAIR)
    trial = Trial(PAIR, Threshold(full.value, strict=False))
    with pytest.raises(OrderDependent, match="example"):
        evaluator.evaluate([trial])
    assert evaluator.reorders == "batches"
    assert len(said) == 1
    assert "whole batches are re-ordered from now on" in said[0]
    assert evaluator.evaluate([trial]) == [full]
    assert [measured(evaluator, recipe) for recipe in ALONE[:2]] == singles


def test_an_evaluation_that_is_called_off_stops_at_the_next_batch() -> None:
    evaluator = bench_for().evaluator("validation")
    full = measured(evaluator, PAIR)
    before = evaluator.batches_done
    for threshold in (None, Threshold(0.1, strict=False)):
        with pytest.raises(Interrupted):
            evaluator.evaluate([Trial(PAIR, threshold)], wanted=lambda: evaluator.batches_done < before + 3)
        assert evaluator.batches_done == before + 3
    assert measured(evaluator, PAIR) == full


def test_a_task_that_draws_random_numbers_is_never_reordered() -> None:
    class Noisy(Small):
        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            return super().score(outputs, batch) * torch.rand(len(outputs))

    said: list[str] = []
    for ranked in (True, False):
        evaluator = bench_for(Noisy(n="202"), said=said).evaluator("validation")
        if ranked:
            measured(evaluator, *ALONE[:2])
        full = measured(bench_for(Noisy(n="202")).evaluator("validation"), PAIR)
        assert evaluator.evaluate([Trial(PAIR, Threshold(0.99, strict=False))]) == [full]
        assert evaluator.reorders == "nothing"
    assert "draws random numbers" in said[0]


def test_nan_among_the_unseen_is_rejected_as_the_plain_loop_rejects_it() -> None:
    last = Small(n="202").examples("validation")[201][0]

    class Undefined(Small):
        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            bad = (batch[0] == last).all(dim=1)
            return super().score(outputs, batch).masked_fill(bad, math.nan)

    evaluator = bench_for(Undefined(n="202")).evaluator("validation")
    assert math.isnan(measured(evaluator, PAIR).value)
    (early,) = evaluator.evaluate([Trial(PAIR, Threshold(0.99, strict=False))])
    assert isinstance(early, Bound), "the last example was not reached"
    (late,) = evaluator.evaluate([Trial(PAIR, Threshold(0.01, strict=False))])
    assert isinstance(late, Score)
    assert math.isnan(late.value)


def test_fractional_scores_are_rejected_early_too() -> None:
    class Fractional(Small):
        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            return outputs.softmax(dim=1).gather(1, batch[1][:, None])[:, 0]

    made = bench_for(Fractional(n="202"))
    evaluator, plain = made.evaluator("validation"), made.evaluator("validation", plain=True)
    require_same(greedy(evaluator, Accept.NOT_WORSE), greedy(plain, Accept.NOT_WORSE))
    assert evaluator.passes < plain.passes


class Named(Small):
    """Its batches carry text, which no tensor holds."""

    def collate(self, examples: list[Any]) -> Any:
        return (*super().collate(examples), [f"label {label}" for _, label in examples])

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        return super().predict(model, batch[:2])

    def score(self, outputs: Tensor, batch: Any) -> Tensor:
        said = torch.tensor([int(text.removeprefix("label ")) for text in batch[2]])
        return super().score(outputs, (batch[0], said))


def test_a_batch_of_chosen_examples_lies_in_memory_as_the_tasks_own_do() -> None:
    class ChannelsLast(tiny.TinyTask):
        def collate(self, examples: list[tiny.Example]) -> tuple[Tensor, Tensor]:
            x, labels = super().collate(examples)
            return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last), labels

    task = CheckedTask(ChannelsLast("conv"), "tiny")
    split = batches.Split("test", task.examples("test"))
    made = batches.Batches(split, 8, task, torch.device("cpu"))
    assert made.mixable
    gathered, labels = made.gathered([11, 3])
    assert gathered.stride() == made[0][0].stride() == (192, 1, 24, 3)
    assert all(torch.equal(a, b) for a, b in zip((gathered, labels), made._make([11, 3]), strict=True))


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("task", [Small, Named])
def test_batches_that_do_not_fit_are_made_again_and_change_no_outcome(
    monkeypatch: pytest.MonkeyPatch, share: float, task: type[Small]
) -> None:
    monkeypatch.setattr(batches, "SHARE", share)
    evaluator = bench_for(task(n="202")).evaluator("validation")
    require_same(
        greedy(evaluator, Accept.NOT_WORSE),
        greedy(bench_for().evaluator("validation", plain=True), Accept.NOT_WORSE),
    )
    assert evaluator.reorders == "examples"


def test_random_batches_are_the_same_whether_they_fit_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Augmented(Small):
        def collate(self, examples: list[Any]) -> tuple[Tensor, Tensor]:
            x, y = super().collate(examples)
            return x + 0.1 * torch.rand_like(x), y

    kept = bench_for(Augmented(n="202")).evaluator("validation")
    full = measured(kept, *ALONE[:2], PAIR)
    assert kept.reorders == "examples"
    monkeypatch.setattr(batches, "SHARE", 0.0)
    said: list[str] = []
    made = bench_for(Augmented(n="202"), said=said).evaluator("validation")
    assert measured(made, *ALONE[:2], PAIR) == full
    assert made.evaluate([Trial(PAIR, Threshold(0.99, strict=False))]) == [full]
    assert made.reorders == "nothing"
    assert "draws random numbers" in said[0]


def test_the_plain_evaluator_ignores_thresholds_and_remembers_nothing() -> None:
    bench = bench_for()
    plain = bench.evaluator("validation", plain=True)
    assert bench.evaluator("validation", plain=True) is plain
    assert bench.evaluator("validation") is not plain
    assert bench.evaluator("validation").protocol == plain.protocol
    (outcome,) = plain.evaluate([Trial(ALONE[0], Threshold(2.0, strict=False))])
    assert isinstance(outcome, Score)
    assert bench.ensemble(Ensemble.of(ALONE[0].checkpoints), "validation") is None
    assert plain.reorders == "nothing"


def test_the_ensemble_of_the_ingredients_is_scored_from_what_ranking_left() -> None:
    task, bench = Small(n="202"), bench_for()
    evaluator = bench.evaluator("validation")
    measured(evaluator, ALONE[0])
    assert bench.ensemble(Ensemble.of(PAIR.checkpoints), "validation") is None
    measured(evaluator, ALONE[1])
    before = evaluator.batches_done
    found = bench.ensemble(Ensemble.of(PAIR.checkpoints), "validation")
    assert evaluator.batches_done == before
    x, y = task.collate(list(task.examples("validation")))
    with torch.no_grad():
        mean = sum(bench.module_with(recipe)(x) for recipe in ALONE[:2]) / 2
    assert found == Score(tuple((mean.argmax(dim=1) == y).double().tolist()))
    assert bench.ensemble(Ensemble.of(PAIR.checkpoints), "test") is None


def test_an_ensembles_outputs_are_averaged_with_the_arithmetic_of_weights() -> None:
    """A sum times the rounded 1 / n, whose bits are the same on every device: a quotient's are not."""

    class Watched(Small):
        seen: list[Tensor] = []  # noqa: RUF012 - of this test

        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            self.seen.append(outputs)
            return super().score(outputs, batch)

    task = Watched(n="202")
    made = bench_for(task)
    evaluator = made.evaluator("validation")
    measured(evaluator, *ALONE[:3])
    first, *others = (
        known.outputs
        for recipe in ALONE[:3]
        if (known := made.workspace.outputs.get(recipe.digest, evaluator.protocol.digest))
        and known.outputs is not None
    )
    total = RunningSum(first)
    for other in others:
        total.add(other)
    assert not torch.equal(total.mean(1 / 3), total.total / 3)
    task.seen.clear()
    made.ensemble(Ensemble.of(DIGESTS[:3]), "validation")
    assert torch.equal(torch.cat(task.seen)[:202], total.mean(1 / 3))


def test_an_ensemble_is_a_trial_whose_members_are_evaluated_where_nothing_is_remembered() -> None:
    """Of soups, too; and each member once."""
    members, weights = (PAIR, ALONE[2], ALONE[3]), (2, 1, 3)
    trial = Trial(Ensemble(members, weights), Threshold(2.0, strict=False))
    task, bench = Small(n="202"), bench_for()
    evaluator = bench.evaluator("validation")
    measured(evaluator, PAIR, ALONE[2])
    assert bench.ensemble(Ensemble(members, weights), "validation") is None
    before = evaluator.passes
    (found,) = evaluator.evaluate([trial])
    assert evaluator.passes - before == 2, "the soup's outputs, which ranking does not keep, and the third's"
    assert evaluator.evaluate([trial]) == [found]
    assert evaluator.passes - before == 2
    x, y = task.collate(list(task.examples("validation")))
    with torch.no_grad():
        outputs = [bench.module_with(recipe)(x) * w for recipe, w in zip(members, weights, strict=True)]
    mean = sum(outputs[1:], outputs[0]) / sum(weights)
    assert found == Score(tuple((mean.argmax(dim=1) == y).double().tolist()))


def test_a_greedy_ensemble_reads_each_models_outputs_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = RememberedOutputs()
    bench = bench_for(outputs=outputs)
    measured(bench.evaluator("validation"), *ALONE)

    def anew(size: int) -> Score | None:
        fresh = bench_for(outputs=outputs)
        return fresh.ensemble(Ensemble.of(DIGESTS[:size]), "validation")

    expected = [anew(size) for size in range(2, 7)]
    reads: list[Digest] = []
    get = outputs.get

    def counted(recipe: Digest, *args: Any, **kwargs: Any) -> Any:
        reads.append(recipe)
        return get(recipe, *args, **kwargs)

    monkeypatch.setattr(outputs, "get", counted)
    found = [bench.ensemble(Ensemble.of(DIGESTS[:size]), "validation") for size in range(2, 7)]
    assert found == expected
    assert None not in found
    assert len(reads) == 2 * 5, "the one that is new, and that which was new before"


def test_an_ensemble_of_outputs_that_cannot_be_kept_says_so() -> None:
    made = bench_for(outputs=RememberedOutputs(bytes_per_example=1))
    with pytest.raises(BadTask, match="outputs of its models are not kept") as raised:
        made.evaluator("validation").evaluate([Trial(Ensemble.of(DIGESTS[:2]))])
    assert "at most 1 bytes per example" in raised.value.mend


def test_an_ensembles_score_out_of_bounds_is_the_tasks_fault() -> None:
    class Breaking(Small):
        broken = False

        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            return super().score(outputs, batch) + 2 * self.broken

    task = Breaking(n="202")
    made = bench_for(task)
    measured(made.evaluator("validation"), *ALONE[:2])
    task.broken = True
    with pytest.raises(BadTask, match=r"for example 0, outside \[0.0, 1.0\], .* the ensemble"):
        made.ensemble(Ensemble.of(PAIR.checkpoints), "validation")


def test_outputs_that_cannot_be_averaged_make_no_ensemble_and_change_no_answer() -> None:
    class Chosen(Small):
        def predict(self, model: nn.Module, batch: Any) -> Tensor:
            return super().predict(model, batch).argmax(dim=1)

        def score(self, outputs: Tensor, batch: Any) -> Tensor:
            right: Tensor = outputs == batch[1]
            return right.float()

    made = bench_for(Chosen(n="202"))
    evaluator, plain = made.evaluator("validation"), made.evaluator("validation", plain=True)
    require_same(greedy(evaluator, Accept.BETTER), greedy(plain, Accept.BETTER))
    assert evaluator.passes < plain.passes
    assert made.ensemble(Ensemble.of(PAIR.checkpoints), "validation") is None


def test_the_next_checkpoint_is_announced_once_the_weights_before_it_are_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = bench_for()
    seen: list[Digest] = []
    holding = bench.workspace.models.holding

    def held(recipe: Recipe, count: Callable[[], None]) -> nn.Module:
        seen.append(recipe.checkpoints[-1])
        return holding(recipe, count)

    monkeypatch.setattr(bench.workspace.models, "holding", held)
    monkeypatch.setattr(bench.workspace.models, "prepare", lambda recipe: seen.append(recipe.checkpoints[-1]))
    trials = [Trial(recipe) for recipe in ALONE[:3]]
    bench.evaluator("validation").evaluate(trials[:2], then=trials[2:])
    assert seen == [digest for place in range(2) for digest in DIGESTS[place : place + 2]]


EXAMPLES = Small(n="202").examples("validation")


class Loud(Small):
    """One example spoils every batch that it does not belong to: few probes meet it."""

    def predict(self, model: nn.Module, batch: Any) -> Tensor:
        outputs = super().predict(model, batch)
        there, home = ((batch[0] == EXAMPLES[place][0]).all(dim=1).any() for place in (13, 12))
        return -outputs if there and not home else outputs


@pytest.fixture
def doubtful() -> tuple[TorchBench, list[Trial]]:
    """A bench, and trials that meet their thresholds: the first is rejected by mistake, the second fails
    the probe. It remembers the singles.
    """
    bench, plain = (bench_for(Loud(n="202"), spread=0.3) for _ in range(2))
    full = plain.evaluator("validation", plain=True)
    soups = [Recipe.mean([DIGESTS[1], DIGESTS[last]]) for last in (3, 2)]
    trials = [Trial(soup, Threshold(measured(full, soup).value, strict=False)) for soup in soups]
    for recipe in ALONE[1:4]:
        measured(bench.evaluator("validation"), recipe)
    return bench, trials


def beside(bench: TorchBench) -> TorchBench:
    """Another process's, or device's, that remembers the same passes."""
    return bench_for(Loud(n="202"), spread=0.3, outputs=bench.workspace.outputs)


def test_what_one_probe_overlooked_and_anothers_found_decides_nothing(
    doubtful: tuple[TorchBench, list[Trial]],
) -> None:
    bench, (mistaken, found) = doubtful
    store = MemoryStore()
    first = SharedEvaluator(bench.evaluator("validation"), store)
    (bound,) = first.evaluate([mistaken])
    assert isinstance(bound, Bound)
    assert bound.mixed
    second = SharedEvaluator(beside(bench).evaluator("validation"), store)
    assert isinstance(second.evaluate([found])[0], Score)
    (score,) = second.evaluate([mistaken])
    assert isinstance(score, Score)
    assert mistaken.must_reach is not None
    assert mistaken.must_reach.met_by(score.value), "as the plain loop has it"
    with pytest.raises(OrderDependent):
        first.confirm()
    assert first.evaluate([mistaken]) == [score]
