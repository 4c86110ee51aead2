"""Forecasts, and the order that is made of them."""

import math

import numpy as np
import pytest

from stockpot.entities import Aim
from stockpot.evaluation.outputs import Remembered
from stockpot.evaluation.rejection.forecast import (
    CAUTION,
    Forecast,
    Forecaster,
    Lead,
    acceptance,
    lead,
    next_batch,
    next_examples,
)
from stockpot.evaluation.rejection.tally import Rough

RNG = np.random.default_rng(0)
NONE = np.zeros(8, dtype=bool)


def remembered(margins: list[float]) -> Remembered:
    found = np.array(margins)
    return Remembered((found > 0).astype(float), np.abs(found), None)


def forecast(margins: list[float], ingredients: int = 2) -> Forecast:
    running = [margin - 0.5 for margin in margins]
    candidate = [margin + 0.5 for margin in margins]
    return Forecaster((0.0, 1.0)).forecast(remembered(running), remembered(candidate), ingredients)


MARGINS = [4.0, -4.0, 1.0, -1.0, 0.1, -0.1, 3.0, -3.0]


def test_a_soups_margin_is_the_average_of_its_ingredients() -> None:
    running, candidate = remembered([1.0, -2.0, 0.5]), remembered([-3.0, 2.0, 0.5])
    found = Forecaster((0.0, 1.0)).forecast(running, candidate, 4)
    assert found.values.tolist() == [0.0, -1.0, 0.5]
    assert found.mean[0] == 0.5
    assert found.mean[1] < 0.05
    assert found.mean[2] > 0.5


def test_scores_that_are_no_right_or_wrong_are_averaged() -> None:
    scores = np.array([0.2, 0.8]), np.array([0.4, 0.8])
    parts = [Remembered(part, np.ones(2), None) for part in scores]
    found = Forecaster((0.0, 1.0)).forecast(parts[0], parts[1], 2)
    assert found.mean.tolist() == pytest.approx([0.3, 0.8])
    assert found.deficit.tolist() == pytest.approx([0.7, 0.2])


def test_the_swing_leads_with_what_may_turn_and_the_proof_with_what_is_wrong() -> None:
    known = forecast(MARGINS)
    assert sorted(next_examples(known, ~NONE, Lead.SWING, 2)) == [4, 5]
    assert next_examples(known, ~NONE, Lead.LOW, 3).tolist() == [1, 7, 3]
    seen = NONE.copy()
    seen[1] = True
    assert next_examples(known, ~seen, Lead.LOW, 2).tolist() == [7, 3]


def test_the_canonical_batch_that_falls_shortest_comes_first() -> None:
    known, left = forecast(MARGINS), np.ones(4, dtype=bool)
    assert next_batch(known, ~NONE, left, 2) in (0, 3)
    seen = NONE.copy()
    seen[[1, 7]] = True
    left[2] = False
    assert next_batch(known, ~seen, left, 2) == 1
    assert next_batch(None, ~NONE, left, 2) == 0


def test_a_batch_that_is_not_left_never_comes_again() -> None:
    """Not even where nothing falls short any more, or the average of greatest scores exceeds them."""
    left = np.array([False, False, True, False])
    assert next_batch(forecast(MARGINS), NONE, left, 2) == 2
    greatest = 0.1 * 2**60
    parts = [Remembered(np.array([greatest] * 7 + [low]), np.ones(8), None) for low in (0.5, 0.25)]
    known = Forecaster((0.0, greatest)).forecast(parts[0], parts[1], 3)
    assert known.deficit[0] < -1
    assert next_batch(known, ~NONE, left, 2) == 2


def test_what_has_scored_nan_is_not_accepted() -> None:
    scores = np.array([math.nan, *[1.0] * 7])
    assert acceptance(forecast(MARGINS), scores, ~NONE, 4.0) == 0.0
    seen = NONE.copy()
    seen[0] = True
    assert acceptance(forecast(MARGINS), scores, seen, 0.0) == 0.0


def test_acceptance_is_sure_when_all_is_seen_and_even_at_the_target() -> None:
    known, scores = forecast(MARGINS), np.array([1.0, 0.0] * 4)
    assert acceptance(known, scores, ~NONE, 4.0) == 1.0
    assert acceptance(known, scores, ~NONE, 4.5) == 0.0
    assert acceptance(known, scores, NONE, float(known.mean.sum())) == pytest.approx(0.5)
    chances = [acceptance(known, scores, NONE, target) for target in (2.0, 3.0, 4.0, 5.0, 6.0)]
    assert chances == sorted(chances, reverse=True)
    assert [lead(chance) for chance in (0.99, 0.5, 0.01)] == [Lead.CANONICAL, Lead.SWING, Lead.LOW]


def test_the_spread_is_learned_from_what_was_seen() -> None:
    """Simulated soups, whose margins differ from the forecast by a known deviation."""
    forecaster = Forecaster((0.0, 1.0))
    truth, n = 0.8, 4000
    for _ in range(12):
        running = RNG.normal(1.0, 2.0, n)
        candidate = running + RNG.normal(0.0, 1.0, n)
        known = forecaster.forecast(remembered(running.tolist()), remembered(candidate.tolist()), 2)
        made = known.values + RNG.normal(0.0, truth, n)
        forecaster.learn(known, (made > 0).astype(float), np.abs(made), np.ones(n, dtype=bool))
        right = float((made > 0).sum())
    known = forecaster.forecast(remembered(running.tolist()), remembered(candidate.tolist()), 2)
    assert float(known.mean.sum()) == pytest.approx(right, abs=4 * math.sqrt(float(known.variance.sum())))
    uncertain = (known.mean > 0.3) & (known.mean < 0.7)
    assert float((made > 0)[uncertain].mean()) == pytest.approx(0.5, abs=0.1)
    deviation = float(np.abs(known.values[(known.mean > 0.82) & (known.mean < 0.86)]).mean())
    assert deviation == pytest.approx(truth, rel=0.2), "one deviation from zero is 84 % sure"


def test_what_is_not_a_number_teaches_nothing() -> None:
    forecaster, known = Forecaster((0.0, 1.0)), forecast(MARGINS)
    forecaster.learn(known, np.full(8, math.nan), np.full(8, math.nan), ~NONE)
    again = forecaster.forecast(remembered(MARGINS), remembered(MARGINS), 2)
    assert np.isfinite(again.mean).all()


def test_examples_lead_by_what_they_weigh() -> None:
    known, weights = forecast(MARGINS), np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 4.0])
    assert next_examples(known, ~NONE, Lead.LOW, 2, weights).tolist() == [7, 3]
    assert next_examples(known, ~NONE, Lead.SWING, 1, weights).tolist() == [5]
    left = np.ones(4, dtype=bool)
    assert next_batch(known, ~NONE, left, 2, weights) == 3
    assert next_batch(known, ~NONE, left, 2, weights[::-1].copy()) == 0


def test_acceptance_is_of_what_examples_weigh() -> None:
    known, scores, weights = forecast(MARGINS), np.array([1.0, 0.0] * 4), np.array([2.0, 0.0] * 4)
    assert acceptance(known, scores, ~NONE, 8.0, weights) == 1.0
    assert acceptance(known, scores, ~NONE, 8.5, weights) == 0.0
    assert acceptance(known, scores, NONE, float(weights @ known.mean), weights) == pytest.approx(0.5)
    spread = math.sqrt(CAUTION * float(weights**2 @ known.variance))
    one_below = acceptance(known, scores, NONE, float(weights @ known.mean) - spread, weights)
    assert one_below == pytest.approx(0.8413, abs=1e-4), "one deviation of the weighted sum"


def test_an_aim_weighs_each_example_and_the_worst_domain_alone() -> None:
    labels = ("a", "a", "a", "b", "b", "c")
    scores = np.array([1.0, 0.0, 1.0, 0.5, 0.0, 1.0])
    aim = Aim(labels, {"a": 1.0, "b": 3.0})
    weights = Rough(6, aim).weights(scores)
    assert weights is not None
    assert weights @ scores / 6 == pytest.approx(aim.value(scores.tolist()))
    assert (weights.sum(), weights[5]) == (pytest.approx(6.0), 0.0)
    worst = Rough(6, Aim(labels, {"a": 1.0, "b": 3.0}, worst=True)).weights(scores)
    assert worst is not None
    assert worst.tolist() == [0, 0, 0, 3, 3, 0]
    assert Rough(6, None).weights(scores) is None
