import json
import math
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.evaluation import compare, compare_mean

SCORES = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=30)


def right_or_wrong(*, both: int = 0, gained: int = 0, lost: int = 0) -> tuple[list[float], list[float]]:
    baseline = [1.0] * both + [0.0] * gained + [1.0] * lost
    challenger = [1.0] * both + [1.0] * gained + [0.0] * lost
    return baseline, challenger


def test_the_difference_is_the_mean_of_the_pairs() -> None:
    found = compare("test", [0.25, 0.5, 0.0], [0.5, 0.5, 0.5])
    assert (found.split, found.n, found.difference, found.level) == ("test", 3, 0.25, 0.95)


def test_the_interval_of_two_pairs_is_known_by_hand() -> None:
    # Four equally likely resamples of (0, 1): means 0, 1/2, 1/2, 1, and 0 and 1 are 1/4 each.
    wide = compare("test", [0.0, 0.0], [0.0, 1.0])
    assert (wide.low, wide.high) == (0.0, 1.0)
    narrow = compare("test", [0.0, 0.0], [0.0, 1.0], level=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_the_interval_is_the_normal_one_for_many_pairs() -> None:
    challenger = np.random.default_rng(1).normal(0.3, 1.0, 2000)
    found = compare("test", [0.0] * 2000, challenger.tolist())
    half_width = 1.96 * challenger.std() / math.sqrt(2000)
    assert found.low == pytest.approx(challenger.mean() - half_width, abs=0.1 * half_width)
    assert found.high == pytest.approx(challenger.mean() + half_width, abs=0.1 * half_width)


def test_equal_differences_give_a_point() -> None:
    found = compare("test", [0.25, 0.5], [0.5, 0.75])
    assert (found.difference, found.low, found.high) == (0.25, 0.25, 0.25)


def test_one_unit_says_nothing_about_its_spread() -> None:
    found = compare("test", [0.0, 0.0], [1.0, 1.0], groups=["a", "a"])
    assert (found.n, found.low, found.high) == (1, -math.inf, math.inf)


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_a_score_that_is_not_finite_gives_no_interval(broken: float) -> None:
    found = compare("test", [0.0, 0.0, 0.5], [0.5, 0.0, broken])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert not math.isfinite(found.difference)


def test_examples_of_one_origin_are_one_unit() -> None:
    found = compare("test", [0.0] * 5, [1.0, 0.0, 0.0, 0.0, 1.0], groups=["a", "b", "a", "a", "b"])
    assert (found.n, found.difference) == (2, (1 / 3 + 1 / 2) / 2)
    assert (found.low, found.high) == (1 / 3, 1 / 2)


def test_groups_of_one_change_nothing() -> None:
    baseline, challenger = right_or_wrong(both=20, gained=9, lost=3)
    assert compare("t", baseline, challenger, groups=range(32)) == compare("t", baseline, challenger)


def test_repeating_every_example_in_its_group_leaves_the_interval_as_it_is() -> None:
    baseline, challenger = right_or_wrong(both=20, gained=9, lost=3)
    once = compare("t", baseline, challenger)
    thrice = compare("t", baseline * 3, challenger * 3, groups=[*range(32)] * 3)
    assert (thrice.n, thrice.difference, thrice.low, thrice.high) == (
        32,
        once.difference,
        once.low,
        once.high,
    )


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(5, 0, 2 / 2**5), (0, 4, 2 / 2**4), (3, 1, 10 / 16), (7, 7, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_is_exact(gained: int, lost: int, p: float) -> None:
    found = compare("test", *right_or_wrong(both=10, gained=gained, lost=lost))
    assert found.mcnemar_p == pytest.approx(p, rel=1e-12)


def test_mcnemar_needs_independent_examples_that_are_right_or_wrong() -> None:
    assert compare("test", [0.0, 0.5], [1.0, 1.0]).mcnemar_p is None
    assert compare("test", [0.0, 1.0], [1.0, 1.0], groups=["a", "a"]).mcnemar_p is None
    assert compare("test", [0.0, 1.0], [1.0, math.nan]).mcnemar_p is None


@pytest.mark.parametrize(
    ("baseline", "challenger", "groups"),
    [([], [], None), ([1.0], [1.0, 0.0], None), ([1.0], [1.0], ["a", "b"])],
)
def test_pairs_that_are_none_are_refused(
    baseline: Sequence[float], challenger: Sequence[float], groups: Sequence[str] | None
) -> None:
    with pytest.raises(ValueError, match="one length"):
        compare("test", baseline, challenger, groups=groups)


@given(SCORES)
@settings(max_examples=25, deadline=None)
def test_the_interval_holds_the_difference_and_turns_with_the_sign(scores: list[tuple[float, float]]) -> None:
    baseline, challenger = zip(*scores, strict=True)
    there, back = compare("t", baseline, challenger), compare("t", challenger, baseline)
    assert there.low <= there.difference + 1e-12
    assert there.difference - 1e-12 <= there.high
    assert back.difference == -there.difference
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-9)


def test_the_mean_over_splits_averages_an_origin_before_it_resamples() -> None:
    flat, zero = [0.5, 0.5], [0.0, 0.0]
    pairs = {"noise": (zero, [1.0, 0.0], ["a", "b"]), "blur": (zero, [1.0, 0.0], ["b", "a"])}
    found = compare_mean("mean of shifts", pairs)
    assert (found.split, found.n, found.difference) == ("mean of shifts", 2, 0.5)
    assert (found.low, found.high) == (0.5, 0.5), "each origin gained once: its mean over the splits is 1/2"
    apart = compare_mean("mean of shifts", {**pairs, "blur": (zero, flat, ["a", "b"])})
    assert (apart.low, apart.high) == (0.25, 0.75)


def test_splits_weigh_the_same_within_an_origin_whatever_their_sizes() -> None:
    pairs = {
        "noise": ([0.0] * 4, [1.0, 1.0, 0.0, 0.0], ["a", "a", "a", "b"]),
        "blur": ([0.0] * 2, [0.0, 1.0], ["a", "b"]),
    }
    found = compare_mean("mean", pairs)
    assert found.difference == ((2 / 3 + 0) / 2 + (0 + 1) / 2) / 2


def test_without_groups_the_place_in_the_split_is_the_origin() -> None:
    zero = [0.0] * 3
    named = {"noise": (zero, [1.0, 0.0, 0.0], range(3)), "blur": (zero, [0.0, 1.0, 1.0], range(3))}
    unnamed = {split: (a, b, None) for split, (a, b, _) in named.items()}
    assert compare_mean("mean", unnamed) == compare_mean("mean", named)


def test_the_mean_over_no_splits_is_refused() -> None:
    with pytest.raises(ValueError, match="no splits"):
        compare_mean("mean", {})


def test_the_same_scores_give_the_same_interval_in_another_process() -> None:
    baseline, challenger = right_or_wrong(both=40, gained=9, lost=3)
    code = "import sys, json; from registry.evaluation import compare\n"
    code += "found = compare('t', *json.load(sys.stdin)); print(json.dumps([found.low, found.high]))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([baseline, challenger]),
        capture_output=True,
        text=True,
        check=True,
    )
    here = compare("t", baseline, challenger)
    assert json.loads(answer.stdout) == [here.low, here.high]


@pytest.mark.slow
@pytest.mark.parametrize("group_size", [1, 4])
def test_intervals_cover_the_truth_as_often_as_they_say(group_size: int) -> None:
    """400 experiments with 100 origins each: 95 % coverage has a standard error of 1.1 points."""
    rng = np.random.default_rng(7)
    origins, truth, covered = 100, 0.1, 0
    for _ in range(400):
        shared = rng.normal(truth, 1.0, origins).repeat(group_size)
        challenger = shared + rng.normal(0.0, 0.2, len(shared))
        groups = np.arange(origins).repeat(group_size).tolist()
        found = compare("t", [0.0] * len(shared), challenger.tolist(), groups=groups)
        covered += found.low <= truth <= found.high
    assert 0.91 < covered / 400 < 0.98
