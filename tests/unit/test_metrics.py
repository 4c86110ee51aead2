"""Metrics that are no mean over examples: their blocks, and how sure their differences are."""

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stockpot.entities import Metric, Score
from stockpot.statistics import blocks, compare, compare_mean, compare_mixture
from stockpot.statistics.jackknife import BLOCKS

Outputs = Any
"""An array ``[n]``: a model's score of each example for the positive class."""
Measure = Callable[[Outputs, Any], float]


def area_under_curve(outputs: Outputs, labels: Any) -> float:
    positive = labels == 1
    count = positive.sum()
    ranks = stats.rankdata(outputs)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(labels) - count)))


def f1(outputs: Outputs, labels: Any) -> float:
    called = outputs > 0.5
    return float(2 * (called & (labels == 1)).sum() / (called.sum() + (labels == 1).sum()))


def mean(outputs: Outputs, _labels: Any) -> float:
    return math.fsum(outputs) / len(outputs)


def measured(
    measure: Measure,
    outputs: Outputs,
    labels: Any,
    groups: Sequence[Hashable] | None = None,
    count: int = BLOCKS,
) -> Score:
    """The score as an evaluator makes it: the metric of all, and without each block."""
    everything = np.arange(len(outputs))
    rest = [np.delete(everything, block) for block in blocks(len(outputs), groups, count)]
    without = tuple(measure(outputs[kept], labels[kept]) for kept in rest)
    return Score((0.0,) * len(outputs), Metric(measure(outputs, labels), without))


def pair(seed: int, n: int = 300, gain: float = 0.3) -> tuple[Score, Score]:
    """Two means as metrics of the same normal examples."""
    draw = np.random.default_rng(seed)
    baseline = draw.normal(size=n)
    challenger = baseline + draw.normal(gain, 1.0, n)
    return measured(mean, baseline, baseline), measured(mean, challenger, challenger)


def half_width(baseline: Score, challenger: Score) -> float:
    found = compare("t", baseline, challenger)
    return (found.high - found.low) / 2


def test_the_difference_is_that_of_the_metrics_and_mcnemar_says_nothing_of_it() -> None:
    labels, outputs = np.array([0, 1] * 10), np.linspace(0, 1, 20)
    before, after = measured(f1, outputs, labels), measured(f1, outputs + labels, labels)
    found = compare("test", before, after)
    assert (found.split, found.n, found.mcnemar_p) == ("test", 20, None)
    assert found.difference == f1(outputs + labels, labels) - f1(outputs, labels)
    assert found.low < found.difference < found.high


def test_leaving_out_one_example_at_a_time_gives_the_textbook_interval_of_a_mean() -> None:
    draw = np.random.default_rng(1)
    baseline, challenger = draw.normal(size=80), draw.normal(0.3, 2.0, 80)
    scores = [measured(mean, outputs, outputs, count=80) for outputs in (baseline, challenger)]
    expected = stats.ttest_rel(challenger, baseline).confidence_interval(0.95)
    found = compare("t", *scores)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


@pytest.mark.slow
def test_for_a_mean_the_jackknife_is_as_wide_as_the_bootstrap() -> None:
    """Fifty blocks tell a width to 10 % in one data set; over thirty, the two agree."""
    ratios = []
    for seed in range(30):
        draw = np.random.default_rng(seed)
        baseline = draw.normal(size=300)
        challenger = baseline + draw.normal(0.3, 1.0, 300)
        plain = [Score(tuple(outputs.tolist())) for outputs in (baseline, challenger)]
        blocked = [measured(mean, outputs, outputs) for outputs in (baseline, challenger)]
        bootstrap, jackknife = compare("t", *plain), compare("t", *blocked)
        assert jackknife.difference == pytest.approx(bootstrap.difference)
        ratios.append((jackknife.high - jackknife.low) / (bootstrap.high - bootstrap.low))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.05)
    assert min(ratios) > 0.65
    assert max(ratios) < 1.35


def test_the_interval_turns_with_the_sign() -> None:
    baseline, challenger = pair(3)
    there, back = compare("t", baseline, challenger), compare("t", challenger, baseline)
    assert (back.difference, back.low, back.high) == pytest.approx(
        (-there.difference, -there.high, -there.low)
    )


LEFT_OPEN = 1 - 0.025 ** (1 / 80)
"""Of all examples, the share that 80 which agree leave open."""


def of_80(value: float, *examples: float) -> Score:
    """A metric that no block changes."""
    return Score(examples or (0.5,) * 80, Metric(value, (value,) * 50))


@pytest.mark.parametrize(
    ("before", "after", "range_"),
    [
        (of_80(0.75), of_80(0.75), 1.0),
        (of_80(1.5), of_80(1.5), 1.5),
        (of_80(1.5, -1.0, 1.5, *(0.5,) * 78), of_80(1.5), 2.5),
        (of_80(-5.0), of_80(-2.0), 5.0),
        (of_80(-5.0), of_80(4.0), 9.0),
        (of_80(1.5, *(math.nan,) * 80), of_80(1.5, *(math.nan,) * 80), 1.5),
    ],
)
def test_equal_differences_on_every_block_leave_open_what_so_many_examples_leave(
    before: Score, after: Score, range_: float
) -> None:
    """Others differ by 1 at most, where the metric is a share as F1 is; else by as much as it is, or as
    scores were seen to.
    """
    found = compare("t", before, after)
    gain = found.difference
    assert found.method == "unmet"
    assert found.low == pytest.approx(gain - LEFT_OPEN * (range_ + gain))
    assert found.high == pytest.approx(gain + LEFT_OPEN * (range_ - gain))


def test_a_lost_example_never_raises_an_end() -> None:
    right = np.ones(80)
    ends = []
    for lost in range(12):
        other = np.concatenate([np.zeros(lost), np.ones(80 - lost)])
        found = compare("t", measured(mean, right, right), measured(mean, other, other))
        ends.append((found.low, found.high))
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == pytest.approx((-LEFT_OPEN, LEFT_OPEN))


def test_rare_losses_of_a_small_domain_are_not_known_from_a_large_one() -> None:
    draw = np.random.default_rng(0)
    small, large = np.ones(40), np.ones(1000)
    other = (draw.random(1000) > 0.05).astype(float)
    pairs = {
        "small": (measured(mean, small, small), measured(mean, small, small), None),
        "large": (measured(mean, large, large), measured(mean, other, other), None),
    }
    found = compare_mixture("m", pairs, {"small": 1.0, "large": 1.0})
    assert found.difference < -0.02
    assert found.high > 0
    assert found.low < found.difference - (1 - 0.025 ** (1 / 40)) / 2


@pytest.mark.parametrize(
    "metric",
    [
        Metric(math.nan, (0.5,) * 10),
        Metric(0.5, (0.5,) * 9 + (math.nan,)),
        Metric(0.5, (0.5,) * 9 + (math.inf,)),
        Metric(math.inf, (0.5,) * 10),
    ],
    ids=str,
)
def test_a_metric_that_is_undefined_somewhere_has_no_interval(metric: Metric) -> None:
    sound = Score((0.0,) * 10, Metric(0.25, tuple(place / 10 for place in range(10))))
    found = compare("t", sound, Score((0.0,) * 10, metric))
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.difference == pytest.approx(metric.value - 0.25, nan_ok=True)


@pytest.mark.parametrize("replicates", [0, 1])
def test_without_two_replicates_there_is_no_interval(replicates: int) -> None:
    scores = [Score((0.0,) * 10, Metric(value, (value,) * replicates)) for value in (0.25, 0.5)]
    found = compare("t", *scores)
    assert (found.difference, found.low, found.high) == (0.25, -math.inf, math.inf)


def test_too_few_origins_give_no_interval() -> None:
    groups = [place % 5 for place in range(300)]
    draw = np.random.default_rng(5)
    scores = [measured(mean, draw.normal(size=300), np.zeros(300), groups) for _ in range(2)]
    found = compare("t", *scores, groups=groups)
    assert (found.n, found.low, found.high) == (5, -math.inf, math.inf)


def test_what_cannot_be_paired_is_refused() -> None:
    score, other = pair(6)
    plain = Score(score.examples)
    fewer = measured(mean, np.zeros(300), np.zeros(300), count=40)
    for baseline, challenger in ((score, plain), (plain, other)):
        with pytest.raises(ValueError, match="mean over its examples"):
            compare("t", baseline, challenger)
    with pytest.raises(ValueError, match="same blocks"):
        compare("t", score, fewer)
    with pytest.raises(ValueError, match="same blocks"):
        compare_mean("mean", {"metric": (score, other, None), "mean": (plain, plain, None)})


def test_the_same_examples_in_two_splits_are_no_more_evidence_than_in_one() -> None:
    baseline, challenger = pair(7)
    alone = compare("noise", baseline, challenger)
    both = compare_mean("mean", dict.fromkeys(("noise", "blur"), (baseline, challenger, None)))
    assert both.n == 300
    assert both.difference == pytest.approx(alone.difference)
    assert (both.low, both.high) == pytest.approx((alone.low, alone.high))


def test_opposite_gains_of_the_same_examples_cancel() -> None:
    baseline, challenger = pair(8)
    both = compare_mean("mean", {"noise": (baseline, challenger, None), "blur": (challenger, baseline, None)})
    left_open = 1 - 0.025 ** (1 / both.n)  # by others, of which none was met
    assert (both.difference, both.low, both.high) == pytest.approx((0.0, -left_open, left_open), abs=1e-12)


def test_splits_without_a_common_origin_are_independent() -> None:
    long, short = pair(9, n=300), pair(10, n=200)
    found = compare_mean("mean", {"long": (*long, None), "short": (*short, None)})
    assert found.n == 500
    expected = math.hypot(half_width(*long), half_width(*short)) / 2
    assert (found.high - found.low) / 2 == pytest.approx(expected)


def test_splits_that_share_some_origins_get_the_widest_interval_that_may_be_true() -> None:
    first, second = pair(11, n=300), pair(12, n=300)
    some = {"noise": (*first, range(300)), "blur": (*second, range(100, 400))}
    found = compare_mean("mean", some)
    assert found.n == 400
    assert (found.high - found.low) / 2 == pytest.approx((half_width(*first) + half_width(*second)) / 2)


GROUPS = st.lists(st.integers(0, 30), max_size=120)


@given(GROUPS, st.integers(1, 60))
def test_blocks_hold_every_place_once_and_keep_groups_together(groups: list[int], count: int) -> None:
    made = blocks(len(groups), groups, count)
    assert sorted(place for block in made for place in block) == list(range(len(groups)))
    assert len(made) == min(count, len(set(groups)))
    assert all(made), "no block is empty"
    assert all(block == sorted(block) for block in made)
    homes = {(groups[place], number) for number, block in enumerate(made) for place in block}
    assert len(homes) == len(set(groups))


@given(st.integers(0, 500), st.integers(1, 60))
def test_blocks_of_single_examples_differ_by_one_at_most(n: int, count: int) -> None:
    sizes = [len(block) for block in blocks(n, count=count)]
    assert not sizes or max(sizes) - min(sizes) <= 1


@given(GROUPS, st.integers(1, 60))
def test_no_block_exceeds_another_by_more_than_a_group(groups: list[int], count: int) -> None:
    sizes = [len(block) for block in blocks(len(groups), groups, count)]
    if sizes:
        assert max(sizes) - min(sizes) <= max(groups.count(group) for group in groups)


def test_blocks_are_the_same_on_every_machine_and_in_every_release() -> None:
    """Metrics are remembered with them: other blocks would pair what does not belong together."""
    assert blocks(12, count=3) == [[0, 2, 4, 9], [1, 3, 6, 8], [5, 7, 10, 11]]
    assert blocks(8, [*"aabbbcdd"], count=3) == [[2, 3, 4], [5, 6, 7], [0, 1]]


@pytest.mark.parametrize("label", [lambda i: i % BLOCKS, lambda i: i // 20], ids=["cycling", "sorted"])
def test_the_order_of_the_data_does_not_show_in_the_blocks(label: Callable[[int], int]) -> None:
    """Twenty examples of each of fifty labels: dealt out, or cut, a block would hold one label only."""
    for block in blocks(1000):
        assert len({label(place) for place in block}) > 10


@pytest.mark.parametrize(("n", "groups", "count"), [(3, None, 0), (3, "ab", 2), (0, "a", 2)])
def test_blocks_that_cannot_be_made_are_refused(n: int, groups: str | None, count: int) -> None:
    with pytest.raises(ValueError, match="cannot make"):
        blocks(n, groups, count)


NORMAL = NormalDist()


def _true_area(distance: float) -> float:
    """Of two normal classes this far apart."""
    return NORMAL.cdf(distance / math.sqrt(2))


def _true_f1(distance: float) -> float:
    """Of the threshold 0.5, with a third of positives."""
    hits, alarms = 1 - NORMAL.cdf(0.5 - distance), 1 - NORMAL.cdf(0.5)
    return 2 * hits / (hits + 2 * alarms + 1)


@pytest.mark.slow
@pytest.mark.parametrize("group_size", [1, 4])
@pytest.mark.parametrize(("measure", "true"), [(area_under_curve, _true_area), (f1, _true_f1)])
def test_intervals_of_metrics_cover_the_truth_as_often_as_they_say(
    measure: Measure, true: Callable[[float], float], group_size: int
) -> None:
    """400 experiments with 400 examples each: 95 % coverage has a standard error of 1.1 points."""
    draw, n, distances, covered = np.random.default_rng(7), 400, (1.0, 1.25), 0
    groups = None if group_size == 1 else (np.arange(n) // group_size).tolist()
    truth = true(distances[1]) - true(distances[0])
    for _ in range(400):
        labels = (draw.random(n) < 1 / 3).astype(int)
        scores = []
        for distance in distances:
            of_origin = draw.normal(size=n // group_size).repeat(group_size)
            outputs = distance * labels + math.sqrt(0.8) * of_origin + math.sqrt(0.2) * draw.normal(size=n)
            scores.append(measured(measure, outputs, labels, groups))
        found = compare("t", *scores, groups=groups)
        covered += found.low <= truth <= found.high
    assert 0.92 < covered / 400 < 0.98


def test_the_split_of_the_fewest_blocks_gives_the_degrees_of_freedom() -> None:
    """Two splits of other origins: variances add up, and the 6 blocks of one tell the quantile."""
    draw, pairs, variance = np.random.default_rng(0), {}, 0.0
    for name, count in (("few", 6), ("many", 50)):
        without = draw.normal(size=count)
        before = Score((0.0,) * count, Metric(0.0, (0.0,) * count))
        after = Score((0.0,) * count, Metric(1.0, tuple(without)))
        pairs[name] = before, after, [f"{name} {place}" for place in range(count)]
        variance += (count - 1) ** 2 / count * float(without.var(ddof=1))
    found = compare_mean("both", pairs)
    expected = stats.t.ppf(0.975, 5) * math.sqrt(variance) / 2
    assert (found.high - found.low) / 2 == pytest.approx(expected)
