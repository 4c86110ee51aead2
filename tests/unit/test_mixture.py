"""Comparisons where examples come from several domains: on the mixture, on each, and on the worst."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stockpot.entities import Metric, Score
from stockpot.statistics import (
    compare,
    compare_domains,
    compare_mixture,
    pairs_by_domain,
    routed,
    simultaneous,
)
from stockpot.statistics.comparison import Pair, origins_apart
from stockpot.statistics.intervals import RESAMPLES, Origins, tango, unmet


def score(examples: Sequence[float]) -> Score:
    return Score(tuple(map(float, examples)))


def graded(n: int, gain: float, spread: float, seed: int, groups: Sequence[Hashable] | None = None) -> Pair:
    """Scores as of log likelihoods, that all differ a little."""
    rng = np.random.default_rng(seed)
    before = rng.uniform(-3, -2, n)
    after = before + np.clip(rng.normal(gain, spread, n), gain - 3 * spread, gain + 3 * spread)
    return score(before.tolist()), score(after.tolist()), groups


def right_or_wrong(n: int, gained: int = 0, lost: int = 0) -> Pair:
    same = [float(place % 2) for place in range(n - gained - lost)]
    before, after = [0.0] * gained + [1.0] * lost + same, [1.0] * gained + [0.0] * lost + same
    return score(before), score(after), None


@pytest.mark.parametrize(
    "pair",
    [right_or_wrong(60, 9, 3), graded(80, 0.1, 0.2, 1), graded(80, 0.1, 0.2, 1, [n // 2 for n in range(80)])],
    ids=["right or wrong", "graded", "in groups"],
)
def test_a_mixture_of_one_domain_is_what_compare_finds(pair: Pair) -> None:
    before, after, groups = pair
    alone = compare("mixture", before, after, groups=groups)
    found = compare_mixture("mixture", {"a": pair, "b": right_or_wrong(5)}, {"a": 0.3, "b": 0})
    assert found == alone, "a domain of weight zero has no part"


@given(
    st.lists(st.tuples(st.lists(st.floats(-5, 5), min_size=1), st.integers(0, 9)), min_size=1).filter(
        lambda rows: any(weight for _, weight in rows)
    )
)
@settings(max_examples=40, deadline=None)
def test_the_difference_is_the_weighted_mean_of_the_domains_means(
    rows: list[tuple[list[float], int]],
) -> None:
    pairs: dict[str, Pair] = {
        str(k): (score([0.0] * len(values)), score(values), None) for k, (values, _) in enumerate(rows)
    }
    found = compare_mixture("m", pairs, {str(k): weight for k, (_, weight) in enumerate(rows)})
    expected = sum(weight * np.mean(values) for values, weight in rows) / sum(weight for _, weight in rows)
    assert found.difference == pytest.approx(expected, abs=1e-9)
    assert found.n == sum(len(values) for values, weight in rows if weight)
    assert found.low <= found.difference + 1e-9
    assert found.difference - 1e-9 <= found.high


def test_domains_of_one_length_are_other_examples_and_each_has_its_weight() -> None:
    pairs = {"a": graded(300, 0.1, 0.2, 1), "b": graded(300, -0.3, 0.05, 2)}
    found = compare_mixture("m", pairs, {"a": 2, "b": 1})
    differences = [np.subtract(after.examples, before.examples) for before, after, _ in pairs.values()]
    a, b = (d.std() / math.sqrt(300) for d in differences)
    reach = 1.96 * math.sqrt((2 * a) ** 2 + b**2) / 3
    assert (found.n, found.method) == (600, "bootstrap")
    assert found.difference - found.low == pytest.approx(reach, rel=0.05)
    assert found.high - found.difference == pytest.approx(reach, rel=0.05)
    scaled = compare_mixture("m", pairs, {"a": 20, "b": 10})
    assert (scaled.low, scaled.high) == pytest.approx((found.low, found.high))


def test_every_resample_holds_as_many_origins_of_each_domain_as_there_are() -> None:
    origins = origins_apart({"a": right_or_wrong(12, 3), "b": right_or_wrong(40, 1, 2)})
    drawn = origins.drawn(origins.kinds[0])
    assert drawn.shape == (RESAMPLES, 4)
    assert (drawn[:, 2:] == [12, 40]).all()
    assert len(np.unique(drawn[:, 0])) > 3


def spanning(*counts: tuple[int, int, int]) -> Origins:
    """So many origins that have so many examples in each of two domains."""
    sizes = [column for count, *column in counts for _ in range(count)]
    return Origins(np.zeros((2, len(sizes))), np.array(sizes, float).T, [1.0, 1.0])


def test_strata_are_of_the_same_domains_and_small_ones_are_drawn_together() -> None:
    def sizes(origins: Origins) -> list[int]:
        return sorted(np.bincount(origins.strata).tolist())

    assert sizes(spanning((20, 1, 0), (30, 0, 2), (25, 1, 1), (10, 3, 1))) == [20, 30, 35]
    assert sizes(spanning((20, 1, 0), (30, 0, 2), (9, 1, 1))) == [29, 30], "too few go with the next larger"
    assert sizes(spanning((6, 1, 0), (50, 0, 1), (5, 1, 1))) == [11, 50]
    assert sizes(spanning((3, 1, 0), (3, 0, 1))) == [6]


def test_an_origin_in_two_domains_is_drawn_with_both() -> None:
    a, b = graded(200, 0.1, 0.2, 1), graded(200, 0.1, 0.2, 1)
    apart = compare_mixture("m", {"a": a, "b": b}, {"a": 1, "b": 1})
    names = tuple(range(200))
    shared = compare_mixture("m", {"a": (*a[:2], names), "b": (*b[:2], names)}, {"a": 1, "b": 1})
    assert (apart.n, shared.n) == (400, 200)
    alone = compare("m", *a[:2])
    assert (shared.low, shared.high) == pytest.approx((alone.low, alone.high)), "the same gains at once"
    assert apart.high - apart.low == pytest.approx((alone.high - alone.low) / math.sqrt(2), rel=0.05)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (0, 2)])
def test_labels_that_weigh_as_many_as_they_are_cost_nothing(gained: int, lost: int) -> None:
    """Rare differences in a split of 800 leave as much open as they do without labels."""
    pairs = {str(k): right_or_wrong(100, gained if k < 1 else 0, lost if k < 1 else 0) for k in range(8)}
    found = compare_mixture("m", pairs, dict.fromkeys(pairs, 1))
    assert found.method == "tango"
    assert (found.low, found.high) == pytest.approx(tango(gained, lost, 800, 0.95), abs=1e-9)


def halved(pair: Pair) -> Pair:
    """No scores of 0 and 1 any more."""
    before, after, groups = pair
    return score([x / 2 for x in before.examples]), score([x / 2 for x in after.examples]), groups


def test_labels_that_weigh_as_many_as_they_are_cost_other_scores_nothing_either() -> None:
    same = {str(k): halved(right_or_wrong(100)) for k in range(8)}
    found = compare_mixture("m", same, dict.fromkeys(same, 1))
    assert (found.low, found.high, found.method) == (*unmet(0.0, 800, 0.5, 0.95), "unmet")
    rare = {**same, "0": halved(right_or_wrong(100, 1))}
    found = compare_mixture("m", rare, dict.fromkeys(rare, 1))
    assert found.method == "widened"
    assert (found.low, found.high) == pytest.approx([end / 2 for end in tango(1, 0, 800, 0.95)], abs=1e-9)


def test_a_domain_where_all_differ_alike_is_not_known_to_the_last_bit() -> None:
    before = score([-2 - place / 64 for place in range(60)])
    alike: Pair = (before, score([one + 0.125 for one in before.examples]), None)
    pairs = {"alike": alike, "other": graded(80, 0.1, 0.2, 1), "third": halves(300, 1)}
    found = compare_mixture("m", pairs, dict.fromkeys(pairs, 1))
    assert found.method == "widened"
    alone = compare("alike", *alike[:2])
    assert found.difference - found.low > (alone.difference - alone.low) / 3 > 0.01
    assert [one.method for one in simultaneous(pairs).values()] == ["unmet", "maximum", "maximum"]


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_what_a_small_domain_did_not_show_stays_open_however_much_others_show(scale: float) -> None:
    """Of 60 examples that do not differ, up to 6 % may: half of it counts, as the domain does."""
    pairs: dict[str, Pair] = {}
    for name, (before, after, _) in (("small", right_or_wrong(60)), ("large", right_or_wrong(3000, 40, 20))):
        scaled = [score([scale * x for x in side.examples]) for side in (before, after)]
        pairs[name] = (scaled[0], scaled[1], None)
    found = compare_mixture("m", pairs, {"small": 1, "large": 1})
    assert found.low < -0.02 * scale
    assert compare_mixture("m", pairs, {"small": 0, "large": 1}).low > 0


def test_one_domain_whose_difference_few_carry_widens_the_interval_by_its_own_part() -> None:
    tame = {str(k): graded(200, 0.0, 0.05, k) for k in range(7)}
    before = score([-2.0 - place / 200 for place in range(200)])
    few: Pair = (before, score([0.0, *before.examples[1:]]), None)
    weights = dict.fromkeys([*tame, "few"], 1)
    found = compare_mixture("m", {**tame, "few": few}, weights)
    alone, others = compare("few", *few[:2]), compare_mixture("m", tame, dict.fromkeys(tame, 1))
    assert (found.method, alone.method, others.method) == ("widened", "widened", "student")
    part = math.hypot((alone.difference - alone.low) / 8, (others.difference - others.low) * 7 / 8)
    assert found.difference - found.low == pytest.approx(part, rel=0.05)


def test_domains_that_share_their_origins_are_widened_as_if_wrong_together() -> None:
    names = tuple(range(200))
    before = score([-2.0 - place / 200 for place in names])
    few: Pair = (before, score([-1.0, *before.examples[1:]]), names)
    found = compare_mixture("m", {"a": few, "b": few}, {"a": 1, "b": 1})
    alone = compare("m", *few[:2])
    assert (found.method, found.n) == ("widened", 200)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), rel=0.02)


def test_the_jackknife_of_metrics_weighs_the_domains() -> None:
    rng = np.random.default_rng(0)

    def measured() -> Score:
        return Score((0.0,) * 100, Metric(0.5, tuple(rng.normal(0.5, 0.01, 50).tolist())))

    pairs: dict[str, Pair] = {"a": (measured(), measured(), None), "b": (measured(), measured(), None)}
    a, b = (compare(name, *pairs[name][:2]) for name in pairs)
    found = compare_mixture("m", pairs, {"a": 3, "b": 1})
    assert found.method == "jackknife"
    assert found.high == pytest.approx(math.hypot(3 * a.high, b.high) / 4)


def test_a_domain_of_too_few_origins_leaves_the_mixture_without_interval() -> None:
    pairs = {"a": graded(80, 0.1, 0.2, 1), "b": graded(5, 0.1, 0.2, 2)}
    found = compare_mixture("m", pairs, {"a": 1, "b": 1})
    assert (found.method, found.low, found.high) == ("none", -math.inf, math.inf)
    assert found.difference == pytest.approx(0.1, abs=0.1)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"a": 1.0}, "cannot weigh"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, "cannot weigh"),
        ({"a": 1.0, "b": -1.0}, "zero or more"),
        ({"a": 1.0, "b": math.nan}, "zero or more"),
        ({"a": 1.0, "b": math.inf}, "zero or more"),
        ({"a": 0.0, "b": 0.0}, "one is more"),
    ],
)
def test_weights_that_weigh_nothing_are_refused(weights: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        compare_mixture("m", {"a": right_or_wrong(60), "b": right_or_wrong(60)}, weights)


def test_a_domain_of_fewer_than_30_origins_has_a_difference_and_no_verdict() -> None:
    pairs = {
        "few": right_or_wrong(29, gained=29),
        "many": right_or_wrong(100, gained=30),
        "same": right_or_wrong(90),
    }
    twice = (*right_or_wrong(58, gained=58)[:2], [place // 2 for place in range(58)])
    found, shown = compare_domains({**pairs, "in groups": twice})
    assert list(found) == ["few", "many", "same", "in groups"]
    for name in ("few", "in groups"):
        few = found[name]
        assert (few.n, few.difference, few.low, few.high, few.method) == (
            29,
            1.0,
            -math.inf,
            math.inf,
            "none",
        )
    assert shown == {"many"}
    assert found["many"].low == compare("many", *pairs["many"][:2], level=1 - 0.05 / 2).low, (
        "of two, not four"
    )
    assert found["same"].high == compare("same", *pairs["same"][:2]).high, "the last one's level is the whole"


def test_a_domain_of_30_origins_is_judged() -> None:
    found, shown = compare_domains({"enough": right_or_wrong(30, gained=20)})
    assert found["enough"] == compare("enough", *right_or_wrong(30, gained=20)[:2])
    assert shown == {"enough"}


def test_a_domain_is_shown_to_be_worse_as_well_and_none_of_none() -> None:
    assert compare_domains({"a": right_or_wrong(100, lost=30), "b": right_or_wrong(90)})[1] == {"a"}
    assert compare_domains({}) == ({}, frozenset())


def test_disjoint_domains_hold_at_once_with_the_quantile_of_independent_ones() -> None:
    domains = 6
    pairs = {str(k): graded(2000, 0.0, 0.1, k) for k in range(domains)}
    found = simultaneous(pairs)
    by_hand = stats.norm.ppf((1 - 0.025) ** (1 / domains))
    for domain, (before, after, _) in pairs.items():
        error = np.std(np.subtract(after.examples, before.examples)) / math.sqrt(2000)
        one = found[domain]
        assert (one.method, one.level, one.n) == ("maximum", 0.95, 2000)
        assert (one.difference - one.low) / error == pytest.approx(by_hand, rel=0.03)
        assert (one.high - one.difference) / error == pytest.approx(by_hand, rel=0.03)


@pytest.mark.parametrize("size", [1, 5])
def test_domains_that_are_drawn_together_have_each_its_own_freedom(size: int) -> None:
    """Of origins, however many examples these have."""
    n = 60 * size
    pairs = {str(k): graded(n, 0.5, 0.1, k, [(k, i // size) for i in range(n)]) for k in range(20)}
    by_hand = stats.t.ppf((1 - 0.025) ** (1 / 20), 59)
    for domain, one in simultaneous(pairs).items():
        before, after, _ = pairs[domain]
        gains = np.subtract(after.examples, before.examples).reshape(60, size).mean(axis=1)
        error = np.std(gains) / math.sqrt(60)
        assert one.method == "maximum"
        assert (one.difference - one.low) / error == pytest.approx(by_hand, rel=0.02)


def test_where_differences_have_a_long_tail_the_interval_is_longer_on_its_side() -> None:
    def tailed(seed: int, side: int) -> Pair:
        gains = np.random.default_rng(seed).exponential(1, 200)
        return score([0.0] * 200), score((side * gains).tolist()), None

    for side in (1, -1):
        for one in simultaneous({str(k): tailed(k, side) for k in range(3)}).values():
            below, above = one.difference - one.low, one.high - one.difference
            assert one.method == "maximum"
            assert (above / below) ** side > 1.2


def halves(n: int, seed: int, groups: Sequence[Hashable] | None = None) -> Pair:
    rng = np.random.default_rng(seed)
    before, after = (score((rng.integers(0, 3, n) / 2).tolist()) for _ in range(2))
    return before, after, groups


def test_resampled_domains_hold_at_once_as_drawn_ones_do() -> None:
    domains = 4
    found = simultaneous({str(k): halves(300, k) for k in range(domains)})
    by_hand = stats.norm.ppf((1 - 0.025) ** (1 / domains))
    for one in found.values():
        error = math.sqrt(1 / 3 / 300)
        assert one.method == "maximum"
        assert (one.high - one.low) / 2 / error == pytest.approx(by_hand, rel=0.12)


@pytest.mark.parametrize("n", [300, 2000])
def test_domains_of_the_same_origins_pay_less_than_disjoint_ones(n: int) -> None:
    """In the extreme, domains that agree in everything are one."""
    one = halves(n, 1, tuple(range(n))) if n < 1000 else graded(n, 0.0, 0.1, 1, tuple(range(n)))
    found = simultaneous({"a": one, "b": one, "c": one})
    alone = compare("a", *one[:2])
    assert found["a"].low <= alone.low
    assert found["a"].high - found["a"].low == pytest.approx(alone.high - alone.low, rel=0.03)


def test_domains_that_tell_too_little_are_held_apart() -> None:
    pairs = {
        "a": halves(300, 1),
        "b": halves(300, 2),
        "few": graded(20, 0.1, 0.2, 3),
        "rare": right_or_wrong(200, 2),
    }
    broken: Pair = (score([0.0] * 60), score([math.nan] * 60), None)
    found = simultaneous({**pairs, "broken": broken})
    assert [one.method for one in found.values()] == ["maximum", "maximum", "student", "tango", "none"]
    for name in ("few", "rare"):
        own = compare(name, *pairs[name][:2], level=1 - 0.05 / 5)
        assert (found[name].low, found[name].high, found[name].level) == (own.low, own.high, 0.95)
    two = simultaneous({name: pairs[name] for name in ("a", "b")})
    assert found["a"].low < two["a"].low < compare("a", *pairs["a"][:2]).low, (
        "the rest of the level is theirs"
    )


def test_one_domain_alone_holds_at_once() -> None:
    assert simultaneous({"a": halves(300, 1)})["a"] == compare("a", *halves(300, 1)[:2])
    assert simultaneous({}) == {}


def test_each_example_is_routed_to_its_domains_specialist() -> None:
    scores = {"python": score([1, 2, 3, 4]), "man": score([10, 20, 30, 40]), "unused": score([0])}
    found = routed(scores, ["man", "python", "python", "man"])
    assert found == score([10, 2, 3, 40])
    hinted = {name: Score(one.examples, gaps=one.examples) for name, one in scores.items()}
    assert routed(hinted, ["man"] * 4).gaps is None, "of several models none is a hint"


@pytest.mark.parametrize(
    ("domains", "told"),
    [
        (["a", "b"], "specialist for b"),
        (["a"], "2 examples of a for 1"),
        ([], "no examples"),
        (["m", "m"], "metric"),
    ],
)
def test_what_cannot_be_routed_is_refused(domains: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        routed({"a": score([1, 2]), "m": Score((1.0, 2.0), Metric(0.5, ()))}, domains)


def test_a_split_is_told_apart_by_its_labels() -> None:
    before, after = score([1, 2, 3, 4]), score([5, 6, 7, 8])
    found = pairs_by_domain(before, after, ["b", "a", "b", "a"], ["x", "y", "y", "z"])
    assert list(found) == ["a", "b"]
    assert found["a"] == (score([2, 4]), score([6, 8]), ("y", "z"))
    assert found["b"] == (score([1, 3]), score([5, 7]), ("x", "y"))
    assert pairs_by_domain(before, after, ["a"] * 4)["a"] == (before, after, None)


@pytest.mark.parametrize(
    ("domains", "groups", "told"), [(["a"], None, "2 examples"), (["a", "b"], ["x"], "1 groups for 2 labels")]
)
def test_labels_of_another_number_are_refused(
    domains: list[str], groups: list[str] | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        pairs_by_domain(score([1, 2]), score([1, 2]), domains, groups)
    with pytest.raises(ValueError, match="metric"):
        pairs_by_domain(Score((1.0,), Metric(0.5, ())), score([1]), ["a"])


def test_a_router_with_one_worse_specialist_is_worse_there_and_on_the_mixture() -> None:
    rng = np.random.default_rng(0)
    domains = ["a"] * 200 + ["b"] * 100
    generalist = score(rng.uniform(-3, -2, 300).tolist())
    worse = score(
        [
            value - 0.2 + noise
            for value, noise in zip(generalist.examples, rng.normal(0, 0.1, 300), strict=True)
        ]
    )
    pairs = pairs_by_domain(generalist, routed({"a": generalist, "b": worse}, domains), domains)
    found, shown = compare_domains(pairs)
    assert shown == {"b"}
    assert found["a"].difference == 0.0
    mixture = compare_mixture("m", pairs, {"a": 1, "b": 1})
    assert mixture.difference == pytest.approx(-0.1, abs=0.02)
    assert simultaneous(pairs)["b"].high < 0
