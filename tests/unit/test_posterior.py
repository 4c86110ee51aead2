"""Experts that answer together, against the definition: position by position."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from stockpot.statistics.posterior import (
    BATCH,
    STEPS,
    cached_prior,
    kinds,
    likeliest,
    posterior,
    together,
    uniform,
)

Positions = Sequence[Sequence[float]]
"""Log probabilities of one text: of each expert, those of its positions."""


def by_prefix(text: Positions, prior: Sequence[float]) -> float:
    """The published definition: p(x_t | x_<t) = sum_j p_j(x_t | x_<t) p(j | x_<t)."""
    weights, total = np.array(prior), 0.0
    for logs in zip(*text, strict=True):
        likely = np.exp(np.array(logs))
        mixed = float(weights @ likely)
        total += math.log(mixed)
        weights = weights * likely / mixed
    return total


def sums(texts: Sequence[Positions]) -> list[list[float]]:
    """Of each expert, those of all texts."""
    return [list(of_expert) for of_expert in zip(*([sum(p) for p in text] for text in texts), strict=True)]


def test_two_experts_by_hand() -> None:
    text = [[math.log(1 / 2), math.log(1 / 4)], [math.log(1 / 4), math.log(1 / 2)]]
    # The first position: 3/8. Then they weigh 2/3 and 1/3, and the second one: 2/3 x 1/4 + 1/3 x 1/2 = 1/3.
    assert together(sums([text]), uniform(2)) == [pytest.approx(math.log(3 / 8 * 1 / 3), abs=1e-15)]
    assert by_prefix(text, uniform(2)) == pytest.approx(math.log(1 / 8), abs=1e-15)
    first = [[math.log(1 / 2)], [math.log(1 / 4)]]
    assert posterior([sum(p) for p in first], uniform(2)) == pytest.approx((2 / 3, 1 / 3), abs=1e-15)


@pytest.mark.parametrize("seed", range(20))
def test_the_likelihood_of_a_text_is_that_of_its_positions(seed: int) -> None:
    draw = np.random.default_rng(seed)
    experts, n = int(draw.integers(2, 6)), int(draw.integers(1, 40))
    text = (-draw.gamma(1.0, 2.0, (experts, n))).tolist()
    prior = draw.dirichlet(np.ones(experts)).tolist()
    (found,) = together(sums([text]), prior)
    assert found == pytest.approx(by_prefix(text, prior), abs=1e-9)


def test_an_expert_with_all_of_the_prior_answers_alone() -> None:
    assert together([[-3.7, -900.1], [math.nan, -1.0], [-1.0, -2.0]], (0.0, 0.0, 1.0)) == [-1.0, -2.0]


def test_what_is_impossible_or_unknown() -> None:
    nothing = -math.inf
    assert together([[nothing, nothing], [-1.0, nothing]], uniform(2)) == [-1.0 + math.log(0.5), nothing]
    assert math.isnan(together([[math.nan], [-1.0]], uniform(2))[0])
    assert posterior([nothing, nothing], uniform(2)) is None
    assert posterior([math.nan, -1.0], uniform(2)) is None
    assert cached_prior([[math.nan, nothing], [-1.0, nothing]]) == uniform(2)
    assert cached_prior([[], [], []]) == uniform(3)


def test_a_cached_prior_is_a_moving_average_of_posteriors_under_itself() -> None:
    own = [[math.log(0.3), math.log(0.2), math.log(0.2)], [math.log(0.1), math.log(0.3), math.log(0.1)]]
    first = 0.7 * 0.5 + 0.3 * (3 / 4 + 2 / 5) / 2  # of two examples, a batch
    second = 0.7 * first + 0.3 * (first * 0.2 / (first * 0.2 + (1 - first) * 0.1))
    assert BATCH == 2
    assert cached_prior(own) == pytest.approx((second, 1 - second), abs=1e-15)


def test_a_cached_prior_is_frozen_and_rules_nobody_out() -> None:
    enough = STEPS * BATCH
    far = [[-1000.0] * enough + [0.0] * 50, [0.0] * enough + [-1000.0] * 50]
    prior = cached_prior(far)
    assert 0 < prior[0] < 1e-12, "what comes later has no part"
    assert cached_prior([each[-enough:] for each in far])[0] > 0.99, (
        "and what was unlikely for long may return"
    )


def test_the_likeliest_experts_keep_their_proportion() -> None:
    assert likeliest((0.1, 0.4, 0.3, 0.2), 2) == pytest.approx((0.0, 4 / 7, 3 / 7, 0.0))
    assert likeliest((0.25, 0.25, 0.25, 0.25), 2) == (0.5, 0.5, 0.0, 0.0)
    assert likeliest((0.6, 0.4), 2) == pytest.approx((0.6, 0.4))


def test_of_what_kind_examples_are_is_the_mean_of_posteriors_in_whatever_order() -> None:
    own = [[0.0, math.log(3), math.nan, math.log(0.5)], [0.0, 0.0, 0.0, 0.0]]
    wanted = (1 / 2 + 3 / 4 + 1 / 3) / 3
    assert kinds(own) == pytest.approx((wanted, 1 - wanted), abs=1e-15)
    assert kinds([logs[::-1] for logs in own]) == kinds(own)
    assert kinds([[math.nan], [0.0]]) == kinds([[], []]) == uniform(2)
