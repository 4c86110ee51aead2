"""Groups of runs by their scores: planted ones are found, and none where none are."""

import itertools
import math
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np
import pytest

from stockpot.statistics.agreement import adjusted_rand
from stockpot.statistics.clustering import ALONE, MOST, least_silhouette, partition
from stockpot.testing.planted_scores import planted_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST = 600_000
"""No seed of the calibration (``tests/benchmarks/discovery.py``)."""


@pytest.mark.parametrize("domains", range(2, 9))
def test_domains_are_found_in_the_first_sweeps_where_they_are_clear(domains: int) -> None:
    """Unequal numbers of runs, noise, and up to two hyperparameters that cost scores. Clear is what whoever
    knows the answer can tell: each run has the silhouette that is asked of the mean.
    """
    drawn = (planted_scores(seed, domains=domains, examples=300) for seed in count(FIRST))
    for planted in islice((one for one in drawn if one.clarity >= least_silhouette(len(one.domains))), 3):
        found = partition(planted.scores)
        assert found.chosen == domains
        assert adjusted_rand(found.labels, planted.domains) >= 0.95


@pytest.mark.parametrize("examples", [100, 1000])
def test_no_domains_are_found_where_runs_differ_in_hyperparameters_alone(examples: int) -> None:
    nulls = [planted_scores(FIRST + seed, domains=1, examples=examples) for seed in range(20)]
    assert {planted.factors for planted in nulls} == {0, 1, 2}
    assert {planted.leanings for planted in nulls} == {0, 2, 3, 5}
    assert [planted for planted in nulls if partition(planted.scores).chosen] == []


def two_domains(
    runs: int = 4, examples: int = 200, noise: float = 0.3, seed: int = 0
) -> "NDArray[np.float64]":
    """Half of the runs are better by one on the first half of the examples, the others on the second."""
    draw = np.random.default_rng(seed)
    at_home = (np.arange(2 * runs)[:, None] >= runs) == (np.arange(examples) >= examples // 2)
    return np.asarray(at_home + draw.normal(0, noise, at_home.shape))


def test_two_learning_rates_are_no_domains_though_their_runs_fall_into_two_groups() -> None:
    """Each run of the one is worse wherever examples are hard: as clear a cut as two domains leave. On easy
    ones noise makes either the better one.
    """
    draw = np.random.default_rng(0)
    hard = draw.exponential(1, 500) * (draw.random(500) < 0.25)
    scores = draw.normal(0, 0.25, (8, 500)) - np.outer([0, 0, 0, 0, 1, 1, 1, 1], hard)
    found = partition(scores)
    assert found.chosen is None
    assert found.labels == (ALONE,) * 8
    assert "a matter of hyperparameters" in found.why
    assert found.by_number[2] > 0.75
    assert (
        partition(draw.normal(0, 0.1, (8, 500)) + np.outer([1, -1, 1, -1, 1, -1, 1, -1], hard - 1)).chosen
        == 2
    )


def test_a_group_s_typical_examples_are_those_on_which_it_is_ahead() -> None:
    found = partition(two_domains())
    assert found.labels == (0, 0, 0, 0, 1, 1, 1, 1)
    first, second = found.typical
    assert len(first) == len(second) == 10
    assert max(first) < 100 <= min(second)
    assert all(silhouette > 0.8 for silhouette in found.silhouettes)
    assert found.silhouette == pytest.approx(found.by_number[2])
    assert partition(two_domains()) == found, "always the same"


def test_an_example_on_which_two_groups_are_ahead_is_typical_of_the_better_one() -> None:
    at_home = (np.arange(9)[:, None] // 3) == np.arange(300) // 100
    scores = at_home + np.random.default_rng(0).normal(0, 0.1, (9, 300))
    scores[:3, :20] += 5
    scores[3:6, :20] += 8
    first, second, third = partition(scores).typical
    assert min(first) >= 20
    assert max(second) < 20
    assert min(third) >= 200


def test_no_example_is_typical_of_a_group_that_is_not_ahead_on_it() -> None:
    places = np.arange(200)
    one, other = np.where(places < 100, 1.0, 0.5), np.where((places >= 100) & (places < 106), 3.0, 0.0)
    scores = np.repeat([one, other], 4, axis=0) + np.random.default_rng(0).normal(0, 0.05, (8, 200))
    assert sorted(partition(scores).typical[1]) == [100, 101, 102, 103, 104, 105]


def test_the_fewer_runs_the_clearer_must_their_groups_be() -> None:
    few, more = (partition(two_domains(runs=runs, noise=0.4)) for runs in (2, 4))
    assert 0.7 < few.by_number[2] < more.by_number[2] < 0.8
    assert few.chosen is None
    assert "chance brings so few runs up to 0.85" in few.why
    assert more.chosen == 2


def test_each_two_groups_cross_or_are_one() -> None:
    """Two domains, of which the first has runs of two learning rates: three groups are the clearest cut."""
    draw = np.random.default_rng(0)
    second = np.arange(500) >= 250
    hard = draw.exponential(2, 500) * (draw.random(500) < 0.5) * np.where(second, 0.2, 1)
    scores = draw.normal(0, 0.15, (12, 500)) - np.outer([0] * 4 + [1] * 4 + [0] * 4, hard)
    scores += 2 * ((np.arange(12)[:, None] >= 8) == second)
    found = partition(scores)
    assert found.by_number[3] > found.by_number[2]
    assert found.labels == (0,) * 8 + (1,) * 4


def test_groups_are_numbered_in_the_order_of_their_first_runs() -> None:
    scores = two_domains()
    assert partition(scores[[7, 0, 4, 1, 5, 2, 6, 3]]).labels == (0, 1, 0, 1, 0, 1, 0, 1)


def test_a_run_that_diverged_is_in_no_group_and_hides_no_other_run_s_domain() -> None:
    scores = np.insert(two_domains(), 2, np.random.default_rng(1).normal(-50, 20, 200), axis=0)
    assert partition(scores).labels == (0, 0, ALONE, 0, 0, 1, 1, 1, 1)


def test_a_run_that_diverged_does_not_count_among_few_that_are_clear() -> None:
    scores = np.insert(two_domains(runs=2, noise=0.1), 2, np.random.default_rng(1).normal(-50, 20, 200), 0)
    found = partition(scores)
    assert found.labels == (0, 0, ALONE, 1, 1)
    assert found.by_number[2] > least_silhouette(4) > found.silhouette


@pytest.mark.parametrize(("runs", "labels"), [(3, (ALONE,) * 8), (4, (0,) * 4 + (1,) * 4 + (ALONE,) * 2)])
def test_one_run_of_five_may_stand_alone_and_no_more(runs: int, labels: tuple[int, ...]) -> None:
    lone = np.random.default_rng(3).normal(0, 0.1, (2, 200))
    lone[0, 80:100] += 5
    lone[1, 100:120] += 5
    assert partition(np.concatenate([two_domains(runs=runs, noise=0.1), lone])).labels == labels


def test_of_fifteen_runs_three_may_stand_alone_though_each_hides_the_next() -> None:
    """Beside a run that is a hundred times as far all others look alike: each look finds one."""
    draw = np.random.default_rng(4)
    lone = draw.normal(0, 1, (4, 200)) * np.array([[1e8], [1e6], [1e4], [1e2]])
    found = partition(np.concatenate([two_domains(runs=6), lone[1:]]))
    assert found.labels == (0,) * 6 + (1,) * 6 + (ALONE,) * 3
    assert partition(np.concatenate([two_domains(runs=6), lone])).chosen is None


def test_two_runs_are_apart_from_two_others_where_average_linkage_says_so() -> None:
    """The closest two are one group. The others are the second where they are closer to each other than one
    of them is to the first group's two in the mean: not to the nearer, and not to the farther of them.
    """
    told: dict[str, list[bool]] = {"mean": [], "nearer": [], "farther": []}
    found = []
    for seed in range(60):
        scores = np.random.default_rng(seed).normal(0, 1, (4, 100))
        distances = 1 - np.corrcoef(scores - scores.mean(axis=0))
        one, two = min(itertools.combinations(range(4), 2), key=lambda pair: distances[pair])
        others = [run for run in range(4) if run not in {one, two}]
        for name, of in (("mean", np.mean), ("nearer", np.min), ("farther", np.max)):
            reach = min(of([distances[one, run], distances[two, run]]) for run in others)
            told[name].append(bool(distances[others[0], others[1]] < reach))
        found.append(2 in partition(scores).by_number)
    assert found == told["mean"]
    assert told["mean"] not in (told["nearer"], told["farther"])


def test_beside_as_many_groups_as_can_be_runs_may_stand_alone() -> None:
    pairs = np.arange(2 * MOST) // 2
    at_home = 2 * (pairs[:, None] == np.arange(400) // 50)
    lone = np.random.default_rng(5).normal(0, 1, (2, 400))
    scores = np.concatenate([at_home + np.random.default_rng(0).normal(0, 0.1, at_home.shape), lone])
    assert partition(scores).labels == (*pairs, ALONE, ALONE)


def test_the_only_run_of_a_domain_is_in_no_group() -> None:
    scores = np.insert(two_domains(), 8, 0.0, axis=0)
    scores[8, 80:120] += 3
    assert partition(scores).labels == (0, 0, 0, 0, 1, 1, 1, 1, ALONE)


def test_one_strong_run_makes_no_domains_of_runs_that_have_none() -> None:
    draw = np.random.default_rng(2)
    scores = draw.normal(0, 1, (8, 500))
    scores[3] += 5 * draw.exponential(1, 500)
    assert partition(scores).chosen is None


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_run_with_a_score_that_is_no_number_is_in_no_group(wrong: float) -> None:
    scores = two_domains()
    scores[5, 17] = wrong
    found = partition(scores)
    assert found.labels == (0, 0, 0, 0, 1, ALONE, 1, 1)
    assert found.silhouettes[5] == 0


def test_a_run_that_scores_as_the_mean_does_is_in_no_group() -> None:
    """All-data runs may: of equal domains their residuals vanish."""
    scores = two_domains(noise=0.0)
    scores += np.linspace(-0.1, 0.1, 8)[:, None]
    scores = np.insert(scores, 8, scores.mean(axis=0), axis=0)
    assert partition(scores).labels == (0, 0, 0, 0, 1, 1, 1, 1, ALONE)


def test_runs_with_the_same_scores_count_once_and_are_in_one_group() -> None:
    twice = np.repeat(two_domains(runs=2, noise=0.1), 2, axis=0)
    assert partition(twice).labels == (0, 0, 0, 0, 1, 1, 1, 1)
    lone = np.random.default_rng(3).normal(0, 1, (3, 200))
    found = partition(np.repeat(lone, 4, axis=0))
    assert "3 of 12 runs have scores of their own" in found.why, (
        "what is there four times is no group for that"
    )


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ([], "need 4 runs, and 0 of 0"),
        (two_domains()[[0, 1, 7]], "need 4 runs, and 3 of 3"),
        (np.where(np.arange(8)[:, None] < 5, np.nan, two_domains()), "3 of 8 runs have scores of their own"),
        (two_domains(examples=90), "90 examples are too few"),
        (np.ones((6, 200)), "1 of 6 runs have scores of their own"),
        (np.arange(6)[:, None] + np.random.default_rng(0).normal(0, 1, 200), "score all examples alike"),
        (np.random.default_rng(0).normal(0, 1, (6, 1000)), "a mean silhouette of 0.0"),
    ],
)
def test_why_nothing_was_found_is_told(scores: "NDArray[np.float64]", why: str) -> None:
    found = partition(scores)
    assert found.chosen is None
    assert why in found.why
    assert found.labels == (ALONE,) * len(scores)
    assert found.silhouette == 0
    assert found.typical == ()


def test_scores_of_other_numbers_of_examples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores of \[100, 200\] examples"):
        partition([[0.0] * 100, [0.0] * 200])


def test_agreement_of_partitions() -> None:
    assert adjusted_rand("aabb", [1, 1, 0, 0]) == 1
    assert adjusted_rand("abab", [1, 1, 0, 0]) == pytest.approx(-0.5)
    assert adjusted_rand("aaab", [1, 1, 0, 0]) == 0
    assert adjusted_rand("aaaa", "bbbb") == adjusted_rand("abcd", "efgh") == adjusted_rand("", "") == 1
    with pytest.raises(ValueError, match="shorter"):
        adjusted_rand("aab", "ab")
