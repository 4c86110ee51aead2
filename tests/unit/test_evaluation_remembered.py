import math
import subprocess
import sys
from collections.abc import Sequence

import pytest

import registry.evaluation
from registry.entities import Bound, Outcome, Recipe, Score, Threshold, Trial, digest_of_bytes
from registry.evaluation import RememberingEvaluator
from registry.store.memory import MemoryStore
from registry.testing.evaluators import TableEvaluator

RECIPES = [Recipe.mean([digest_of_bytes(bytes([place]))]) for place in range(4)]
TRIALS = [Trial(recipe) for recipe in RECIPES]


def scores(recipe: Recipe) -> list[float]:
    return [RECIPES.index(recipe) / 10, math.nan if recipe == RECIPES[3] else 0.0]


class BreaksDown(TableEvaluator):
    """Fails at one recipe."""

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        if RECIPES[2] in [trial.recipe for trial in trials]:
            raise RuntimeError("killed")
        return super().evaluate(trials, then=then)


def test_a_committed_score_is_never_evaluated_again() -> None:
    store, inner = MemoryStore(), TableEvaluator(scores, n=2)
    first = RememberingEvaluator(inner, store)
    outcomes = first.evaluate(TRIALS)
    second = RememberingEvaluator(inner, store)
    assert repr(second.evaluate(TRIALS)) == repr(outcomes), "NaN included"
    assert (first.started, second.started, len(inner.trials)) == (4, 0, 4)


def test_scores_that_arrived_before_a_crash_are_kept() -> None:
    store = MemoryStore()
    with pytest.raises(RuntimeError, match="killed"):
        RememberingEvaluator(BreaksDown(scores, n=2), store).evaluate(TRIALS)
    inner = TableEvaluator(scores, n=2)
    resumed = RememberingEvaluator(inner, store)
    resumed.evaluate(TRIALS)
    assert [trial.recipe for trial in inner.trials] == RECIPES[2:]
    assert resumed.started == 2


def test_the_score_that_was_committed_first_is_the_answer() -> None:
    store = MemoryStore()
    inner = TableEvaluator(scores, n=2)
    theirs = Score((0.25, 0.25))

    class Slower(TableEvaluator):
        def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
            store.commit_score(RECIPES[0], inner.protocol, theirs)
            return super().evaluate(trials, then=then)

    assert RememberingEvaluator(Slower(scores, n=2), store).evaluate(TRIALS[:1]) == [theirs]


def test_a_bound_is_not_remembered() -> None:
    inner = TableEvaluator(scores, n=2, greatest=1.0)
    evaluator = RememberingEvaluator(inner, MemoryStore())
    (outcome,) = evaluator.evaluate([Trial(RECIPES[0], Threshold(0.9, strict=False))])
    assert isinstance(outcome, Bound)
    assert evaluator.evaluate([Trial(RECIPES[0])]) == [Score((0.0, 0.0))]
    assert evaluator.started == 2


def test_scores_of_another_split_are_not_taken() -> None:
    store = MemoryStore()
    RememberingEvaluator(TableEvaluator(scores, n=2, split="validation"), store).evaluate(TRIALS)
    other = RememberingEvaluator(TableEvaluator(scores, n=2, split="test"), store)
    other.evaluate(TRIALS[:2])
    assert other.started == 2


def test_statistics_and_remembered_scores_need_no_torch_and_no_scipy_at_import() -> None:
    code = "import sys, registry.evaluation; sys.exit(bool({'torch', 'scipy', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="Nothing"):
        registry.evaluation.Nothing  # noqa: B018 - looking it up is the test
