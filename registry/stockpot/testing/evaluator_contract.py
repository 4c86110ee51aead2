"""The promises of `stockpot.ports.Evaluator`, as a suite: subclass it and give it an evaluator."""

import math
from collections.abc import Sequence

import pytest

from stockpot.entities import Bound, Outcome, Recipe, Score, Threshold, Trial
from stockpot.ports import Evaluator


class EvaluatorContract:
    """Subclass it as ``Test...`` and write the two fixtures."""

    @pytest.fixture
    def evaluator(self) -> Evaluator:
        """A fresh evaluator."""
        raise NotImplementedError

    @pytest.fixture
    def recipes(self) -> Sequence[Recipe]:
        """At least three distinct recipes that it can score, soups among them."""
        raise NotImplementedError

    def test_a_trial_without_threshold_is_scored_in_full(
        self, evaluator: Evaluator, recipes: Sequence[Recipe]
    ) -> None:
        for recipe in recipes:
            (outcome,) = evaluator.evaluate([Trial(recipe)])
            assert isinstance(outcome, Score)
            assert len(outcome.examples) == evaluator.protocol.n

    def test_the_same_recipe_gets_the_same_score_whatever_came_between(
        self, evaluator: Evaluator, recipes: Sequence[Recipe]
    ) -> None:
        trials = [Trial(recipe) for recipe in recipes]
        first = evaluator.evaluate(trials)
        again = evaluator.evaluate(trials)
        assert list(map(_bits, again)) == list(map(_bits, first))

    def test_outcomes_come_in_the_order_of_the_trials(
        self, evaluator: Evaluator, recipes: Sequence[Recipe]
    ) -> None:
        trials = [Trial(recipe) for recipe in recipes]
        forth = evaluator.evaluate(trials)
        back = evaluator.evaluate(trials[::-1])
        one_by_one = [evaluator.evaluate([trial])[0] for trial in trials]
        assert list(map(_bits, forth)) == list(map(_bits, back[::-1])) == list(map(_bits, one_by_one))

    def test_asking_for_nothing_gives_nothing(self, evaluator: Evaluator) -> None:
        assert evaluator.evaluate([]) == []

    def test_the_protocol_stays(self, evaluator: Evaluator, recipes: Sequence[Recipe]) -> None:
        before = evaluator.protocol
        evaluator.evaluate([Trial(recipes[0])])
        assert evaluator.protocol == before
        assert before.n > 0

    @pytest.mark.parametrize("strict", [False, True])
    def test_a_bound_is_returned_only_when_it_is_true_and_excludes_acceptance(
        self,
        evaluator: Evaluator,
        recipes: Sequence[Recipe],
        strict: bool,  # noqa: FBT001 - a parameter of the test
    ) -> None:
        for recipe in recipes:
            unreachable = Threshold(math.inf, strict=strict)
            (early,) = evaluator.evaluate([Trial(recipe, unreachable)])
            (full,) = evaluator.evaluate([Trial(recipe)])
            assert isinstance(full, Score)
            _require_true(early, unreachable, full)
            for value in _values_around(full.value):
                threshold = Threshold(value, strict=strict)
                (outcome,) = evaluator.evaluate([Trial(recipe, threshold)])
                _require_true(outcome, threshold, full)

    @pytest.mark.parametrize("strict", [False, True])
    def test_what_was_measured_of_its_parts_changes_no_outcome(
        self,
        evaluator: Evaluator,
        recipes: Sequence[Recipe],
        strict: bool,  # noqa: FBT001 - a parameter of the test
    ) -> None:
        soups = [recipe for recipe in recipes if recipe.is_soup]
        full = [_measured(evaluator, recipe) for recipe in soups]
        for recipe, score in zip(soups, full, strict=True):
            if set(recipe.checkpoints) <= {r.checkpoints[0] for r in recipes if not r.is_soup}:
                *running, candidate = recipe.checkpoints
                evaluator.evaluate([Trial(Recipe.mean(running)), Trial(Recipe.mean([candidate]))])
            for value in _values_around(score.value):
                threshold = Threshold(value, strict=strict)
                (outcome,) = evaluator.evaluate([Trial(recipe, threshold)])
                _require_true(outcome, threshold, score)


def _measured(evaluator: Evaluator, recipe: Recipe) -> Score:
    (outcome,) = evaluator.evaluate([Trial(recipe)])
    assert isinstance(outcome, Score)
    return outcome


def _require_true(outcome: Outcome, threshold: Threshold, full: Score) -> None:
    if isinstance(outcome, Bound):
        assert not threshold.met_by(full.value)
        assert not threshold.met_by(outcome.upper)
        assert not math.isnan(outcome.upper)
        assert not outcome.upper < full.value, (
            "of NaN, which is not accepted either, a bound may say anything"
        )
    else:
        assert _bits(outcome) == _bits(full)


def _bits(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Score)
    metric = [outcome.metric.value, *outcome.metric.without] if outcome.metric else []
    return [float.hex(score) for score in (*outcome.examples, *metric)]


def _values_around(score: float) -> list[float]:
    return [
        score,
        math.nextafter(score, -math.inf),
        math.nextafter(score, math.inf),
        score - 0.3,
        score + 0.3,
    ]
