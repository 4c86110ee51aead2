"""The one place where a rejection is decided."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.entities import Bound, Score, Threshold
from stockpot.evaluation.rejection.tally import Tally
from stockpot.ports import OrderDependent

N = 7
scores = st.lists(st.floats(0.0, 1.0) | st.sampled_from([0.0, 1.0, 0.1, 1 / 3]), min_size=N, max_size=N)


def seen(tally: Tally, places: list[int], examples: list[float], *, canonical: bool = True) -> None:
    found = np.array([examples[place] for place in places])
    tally.add(places, found, np.zeros(len(places)), canonical=canonical)


@given(scores, st.permutations(range(N)), st.floats(0.0, 1.0) | st.none(), st.booleans())
def test_a_bound_is_never_below_the_full_score_and_never_met(
    examples: list[float],
    order: list[int],
    value: float | None,
    strict: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    full = Score(tuple(examples))
    threshold = Threshold(full.value if value is None else value, strict=strict)
    tally = Tally(N, greatest=1.0, threshold=threshold)
    for place in order:
        seen(tally, [place], examples)
        bound = tally.bound()
        if bound is not None:
            assert bound.upper >= full.value
            assert not threshold.met_by(bound.upper)
            assert not threshold.met_by(full.value)
    assert tally.score() == full
    assert (tally.bound() is None) == threshold.met_by(full.value)


def test_a_rejection_comes_with_the_first_example_that_makes_it_certain() -> None:
    tally = Tally(10, greatest=1.0, threshold=Threshold(0.8, strict=False))
    for count in range(1, 4):
        assert tally.bound() is None
        seen(tally, [count], [0.0] * 10, canonical=False)
    assert tally.bound() == Bound(0.7, mixed=True)
    seen(tally, [1, 2], [0.0] * 10)
    assert tally.bound() == Bound(0.7, mixed=True)
    seen(tally, [3], [0.0] * 10)
    assert tally.bound() == Bound(0.7), "every example was seen in its own batch too"
    strict = Tally(10, greatest=1.0, threshold=Threshold(0.8, strict=True))
    seen(strict, [4, 9], [0.0] * 10)
    assert strict.bound() == Bound(0.8), "reaching it is not enough"


def test_an_example_counts_once_however_often_it_is_seen() -> None:
    tally = Tally(4, greatest=1.0, threshold=Threshold(0.7, strict=False))
    for canonical in (False, True, False):
        seen(tally, [2], [0.0] * 4, canonical=canonical)
    assert tally.bound() is None
    assert tally.scores.tolist() == [1.0, 1.0, 0.0, 1.0]


def test_a_score_is_made_of_canonical_batches_only() -> None:
    tally = Tally(2, greatest=1.0, threshold=Threshold(0.0, strict=False))
    seen(tally, [0, 1], [1.0, 0.5], canonical=False)
    assert tally.score() is None
    seen(tally, [0], [1.0, 0.5])
    assert tally.score() is None
    seen(tally, [1], [1.0, 0.5])
    assert tally.score() == Score((1.0, 0.5))


@pytest.mark.parametrize(("score", "gap"), [(0.5, 2.0), (1.0, 2.0 + 2**-40), (math.nan, 2.0)])
def test_an_example_that_changes_with_its_batch_is_told(score: float, gap: float) -> None:
    tally = Tally(3, greatest=1.0, threshold=Threshold(0.5, strict=False))
    tally.add([1], np.array([1.0]), np.array([2.0]), canonical=False)
    tally.add([1], np.array([1.0]), np.array([2.0]), canonical=True)
    with pytest.raises(OrderDependent, match="example 1"):
        tally.add([0, 1], np.array([0.0, score]), np.array([1.0, gap]), canonical=True)


def test_nan_is_the_same_as_nan_and_is_measured_in_full() -> None:
    tally = Tally(3, greatest=1.0, threshold=Threshold(0.9, strict=False))
    for canonical in (False, True):
        seen(tally, [0, 1], [math.nan, 0.0, 0.0], canonical=canonical)
    assert tally.bound() is None, "a Bound would not be a number"
    seen(tally, [2], [math.nan, 0.0, 0.0])
    score = tally.score()
    assert score is not None
    assert math.isnan(score.value)


def test_minus_infinity_rejects_at_once() -> None:
    tally = Tally(3, greatest=0.0, threshold=Threshold(-5.0, strict=False))
    seen(tally, [1], [0.0, -math.inf, 0.0])
    assert tally.bound() == Bound(-math.inf)
