"""A search that is verified, and one that has to start again."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from stockpot.entities import (
    Bound,
    Candidate,
    Checkpoint,
    Composition,
    Digest,
    Outcome,
    Recipe,
    Run,
    Score,
    Selection,
    SoupRequest,
    Sweep,
    SweepSelector,
    Trial,
    WeightsFormat,
    WeightsSource,
)
from stockpot.errors import BadTask, NotExact
from stockpot.ports import Evaluator, MakeMethod, OrderDependent, Wanted, always
from stockpot.selection.greedy import Greedy
from stockpot.selection.uniform import Uniform
from stockpot.store.memory import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.testing.listener import Listener
from stockpot.workflow.selecting.ranking import Ranking
from stockpot.workflow.selecting.search import search
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

REQUEST = SoupRequest(model="m", task="t", sweep="s", verify_exact=True)
N = 10


def candidate(number: int) -> Candidate:
    run = Run(f"id{number}", f"tune-{number}", "1", "FINISHED", number, {}, {}, {})
    source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "m.safetensors", "u", None, 1)
    return Candidate(run, source, "", Checkpoint(Digest(f"sha256:{number}"), 1, (), Digest("sha256:e")))


def scores(recipe: Composition) -> list[float]:
    """Runs from 3 on help each other; one below breaks the soup."""
    numbers = [int(digest.removeprefix("sha256:")) for digest in recipe.checkpoints]
    right = max(numbers) + len(numbers) - 1 if min(numbers) >= 3 else min(numbers)
    return [1.0] * right + [0.0] * (N - right)


def ranked() -> Ranking:
    found = [candidate(number) for number in range(6)]
    alone = {c.checkpoint.digest: Score(tuple(scores(Recipe.mean([c.checkpoint.digest])))) for c in found}
    held_out = {digest: score.value for digest, score in alone.items()}
    ordered = sorted(found, key=lambda c: -held_out[c.checkpoint.digest])
    return Ranking(Sweep(SweepSelector("s"), tuple(found), ()), tuple(ordered), held_out)


def carried_out(
    fast: Evaluator,
    plain: Evaluator | None,
    *,
    listener: Listener | None = None,
    stop: Callable[[], bool] = lambda: False,
    request: SoupRequest = REQUEST,
) -> tuple[Selection, ...]:
    methods: dict[str, MakeMethod] = {"greedy": Greedy, "uniform": Uniform}
    chosen = {name: methods[name] for name in request.methods}
    shared = fast if isinstance(fast, SharedEvaluator) else SharedEvaluator(fast, MemoryStore())
    return search(request, ranked(), chosen, shared, stop, listener or Listener(), plain)


def early() -> TableEvaluator:
    return TableEvaluator(scores, n=N, greatest=1.0)


def test_a_search_that_agrees_says_so_with_numbers() -> None:
    listener, plain = Listener(), TableEvaluator(scores, n=N)
    found = carried_out(early(), plain, listener=listener)
    assert found == carried_out(early(), None, request=replace(REQUEST, verify_exact=False))
    assert [line.split(":")[0] for line in listener.said] == ["greedy", "uniform"]
    assert "the plain search agrees: 11 steps" in listener.said[0]
    assert {"verify: greedy", "verify: uniform"} <= set(listener.stages)


def test_the_plain_search_has_no_thresholds_and_evaluates_everything_itself() -> None:
    plain = TableEvaluator(scores, n=N, greatest=1.0)
    carried_out(early(), plain, request=replace(REQUEST, methods=("greedy",)))
    assert len(plain.trials) == 11
    assert all(trial.must_reach is None for trial in plain.trials)


@pytest.mark.parametrize("method", ["greedy", "uniform"])
def test_a_run_that_scores_otherwise_is_named_with_example_and_values(method: str) -> None:
    def other(recipe: Recipe) -> list[float]:
        found = scores(recipe)
        return [*found[:4], 0.25, *found[5:]] if recipe.checkpoints == (Digest("sha256:2"),) else found

    with pytest.raises(BadTask) as raised:
        carried_out(early(), TableEvaluator(other, n=N), request=replace(REQUEST, methods=(method,)))
    assert raised.value.faults == ("tune-2 (id2): example 4 scores 0.0 at first, 0.25 in the plain pass",)


def test_what_differs_from_pass_to_pass_behind_a_bound_is_the_tasks_fault() -> None:
    passes: Counter[Recipe] = Counter()

    def noisy(recipe: Recipe) -> list[float]:
        if not recipe.is_soup or min(recipe.checkpoints) != Digest("sha256:0"):
            return scores(recipe)
        passes[recipe] += 1
        return [0.125 * passes[recipe], *[1.0] * (N - 1)]

    with pytest.raises(BadTask, match="same scores") as raised:
        carried_out(early(), TableEvaluator(noisy, n=N), request=replace(REQUEST, methods=("greedy",)))
    (fault,) = raised.value.faults
    assert "tune-0 (id0) last: example 0 scores 0.125 at first, 0.25 in the plain pass" in fault


def test_a_false_bound_of_scores_that_stay_is_our_fault() -> None:
    class Lying(TableEvaluator):
        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            outcomes = super().evaluate(trials, then=then, wanted=wanted)
            return [o if t.must_reach is None else Bound(0.0) for t, o in zip(trials, outcomes, strict=True)]

    with pytest.raises(NotExact) as raised:
        carried_out(Lying(scores, n=N), TableEvaluator(scores, n=N))
    assert "step 7: " in raised.value.faults[0]
    assert any("bounded by 0.0, scores 0.6" in fault for fault in raised.value.faults)


def test_a_bound_before_an_example_that_scores_nan_agrees_with_the_plain_search() -> None:
    def undefined(recipe: Recipe) -> list[float]:
        return [0.0] * (N - 1) + [math.nan] if recipe.is_soup else scores(recipe)

    listener, request = Listener(), replace(REQUEST, methods=("greedy",))
    fast, plain = TableEvaluator(undefined, n=N, greatest=1.0), TableEvaluator(undefined, n=N)
    (found,) = carried_out(fast, plain, listener=listener, request=request)
    assert [step.bound is not None for step in found.steps] == [False] * 6 + [True] * 5
    assert "5 bounds that hold" in listener.said[-1]


def test_a_search_out_of_time_is_verified_as_far_as_it_came() -> None:
    late = iter([False, False])
    listener, plain = Listener(), TableEvaluator(scores, n=N)
    request = replace(REQUEST, methods=("greedy",))
    (found,) = carried_out(early(), plain, listener=listener, stop=lambda: next(late, True), request=request)
    assert not found.complete
    assert len(plain.trials) == len(found.steps) == 6 + 2
    assert "8 steps" in listener.said[-1]


def test_verifying_without_a_plain_evaluator_is_refused() -> None:
    with pytest.raises(ValueError, match="plain evaluator"):
        carried_out(early(), None)


class OrderedFromTheThirdSoup(TableEvaluator):
    """Gives false bounds until it finds out."""

    def __init__(self, finds: float = 1) -> None:
        super().__init__(scores, n=N)
        self.finds = finds

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        (trial,) = trials
        if trial.recipe.is_soup and self.finds:
            if sum(trial.recipe.is_soup for trial in self.trials) == 2:
                self.finds -= 1
                self.trials.clear()
                raise OrderDependent("scores depend on the order of the examples")
            super().evaluate(trials, then=then, wanted=wanted)
            return (
                [Bound(-math.inf, mixed=True)] if trial.must_reach else [Score(tuple(scores(trial.recipe)))]
            )
        return super().evaluate(trials, then=then, wanted=wanted)


@pytest.mark.parametrize("finds", [1, 3])
def test_a_search_whose_bounds_turn_out_doubtful_starts_again_and_says_so_once(finds: int) -> None:
    listener, evaluator = Listener(), OrderedFromTheThirdSoup(finds)
    request = replace(REQUEST, methods=("greedy",), verify_exact=False)
    remembering = SharedEvaluator(evaluator, MemoryStore())
    found = carried_out(remembering, None, listener=listener, request=request)
    assert found == carried_out(TableEvaluator(scores, n=N), None, request=request)
    (said,) = listener.said
    assert said.startswith("scores depend on the order of the examples; every search starts again")
    assert listener.stages == ["select: greedy"] * (finds + 1)
    assert not any(not trial.recipe.is_soup for trial in evaluator.trials), "the singles are remembered"


def test_bounds_that_are_withdrawn_during_a_later_search_start_the_earlier_one_again_too() -> None:
    store, listener = MemoryStore(), Listener()

    class LyingUntilWithdrawn(TableEvaluator):
        def __init__(self) -> None:
            super().__init__(scores, n=N)
            self.order_dependent = False

        def keep_batches(self) -> None:
            self.order_dependent = True

        def evaluate(
            self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
        ) -> list[Outcome]:
            (trial,) = trials
            if trial.must_reach is None:
                if trial.recipe.is_soup:  # uniform's: another process finds out
                    store.withdraw_mixed_bounds(self.protocol)
                return super().evaluate(trials, then=then, wanted=wanted)
            honest = super().evaluate(trials, then=then, wanted=wanted)
            return honest if self.order_dependent else [Bound(-math.inf, mixed=True)]

    request = replace(REQUEST, methods=("greedy", "uniform"), verify_exact=False)
    remembering = SharedEvaluator(LyingUntilWithdrawn(), store)
    found = carried_out(remembering, None, listener=listener, request=request)
    assert found == carried_out(TableEvaluator(scores, n=N), None, request=request)
    assert listener.stages == ["select: greedy", "select: uniform"] * 2


def test_an_evaluator_that_never_stops_doubting_does_not_keep_the_search_for_ever() -> None:
    request = replace(REQUEST, methods=("greedy",), verify_exact=False)
    with pytest.raises(OrderDependent):
        carried_out(OrderedFromTheThirdSoup(math.inf), None, request=request)
