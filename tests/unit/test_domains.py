"""Domains of examples and of runs: labels, what scores are aimed at, and which domains count."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.cli.options import weights
from stockpot.entities import (
    Aim,
    Objective,
    Recipe,
    Run,
    Score,
    SoupRequest,
    Threshold,
    Trial,
    digest_of_bytes,
)
from stockpot.entities.domain import label_faults, normalised
from stockpot.errors import BadRequest, BadTask
from stockpot.evaluation.rejection.tally import Tally
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.workflow.selecting.compared import compared
from stockpot.workflow.selecting.domains import Domains, domains_of
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

if TYPE_CHECKING:
    from stockpot.ports import Bench

DOMAINS = ("man", "python", "man", "man", "python", "fish", "man")
N = len(DOMAINS)
scores = st.lists(st.floats(0.0, 1.0) | st.sampled_from([0.0, 1.0, 0.1, 1 / 3]), min_size=N, max_size=N)
aims = st.builds(
    Aim,
    st.just(DOMAINS),
    st.fixed_dictionaries({"man": st.floats(0.1, 9.0), "python": st.floats(0.0, 9.0)}),
    worst=st.booleans(),
)
REQUEST = SoupRequest(model="m", task="t", sweep="s")


def aim(*, worst: bool = False, **of: float) -> Aim:
    return Aim(DOMAINS, of or {"man": 1.0, "python": 1.0}, worst=worst)


def test_each_domain_counts_alike_however_many_examples_it_has() -> None:
    examples = (1.0, 0.0, 0.5, 0.0, 0.5, 99.0, 0.5)
    assert aim().value(examples) == (0.5 + 0.25) / 2
    assert aim(man=3.0, python=1.0).value(examples) == (3 * 0.5 + 0.25) / 4
    assert aim(worst=True).value(examples) == 0.25
    assert aim(man=1.0, python=0.0).value(examples) == 0.5


def test_a_nan_counts_where_its_domain_does() -> None:
    examples = [0.5] * N
    examples[5] = math.nan  # a fish
    assert aim().value(examples) == 0.5
    examples[0] = math.nan
    assert math.isnan(aim().value(examples))
    assert math.isnan(aim(worst=True).value(examples))


@pytest.mark.parametrize(
    ("of", "told"),
    [
        ({"man": -1.0}, "zero or more"),
        ({"man": math.nan}, "zero or more"),
        ({"man": 0.0}, "no domain has a weight"),
        ({"owls": 1.0}, "no example is of the domain owls"),
    ],
)
def test_weights_that_mean_nothing_are_refused(of: Mapping[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Aim(DOMAINS, of)


@given(aims, scores, st.permutations(range(N)), st.floats(0.0, 1.0) | st.none(), st.booleans())
def test_a_bound_is_never_below_what_the_examples_are_aimed_at(
    found: Aim,
    examples: list[float],
    order: list[int],
    value: float | None,
    strict: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    full = found.value(examples)
    threshold = Threshold(full if value is None else value, strict=strict, aim=found)
    tally = Tally(N, greatest=1.0, threshold=threshold)
    for place in order:
        tally.add([place], np.array([examples[place]]), np.zeros(1), canonical=True)
        bound = tally.bound()
        if bound is not None:
            assert bound.upper >= full
            assert not threshold.met_by(bound.upper)
    assert (tally.bound() is None) == threshold.met_by(full)


def test_scores_serve_every_aim_and_bounds_their_own() -> None:
    low = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    store, inner = MemoryStore(), TableEvaluator(lambda _: low, n=N, greatest=1.0)
    recipe = Recipe.mean([digest_of_bytes(b"a"), digest_of_bytes(b"b")])
    reached = Trial(recipe, Threshold(0.8, strict=False))
    by_mean, by_python = (SharedEvaluator(inner, store, aim=one) for one in (aim(), aim(python=1.0)))
    (bound,) = by_mean.evaluate([reached])
    assert not isinstance(bound, Score)
    assert bound.upper < 0.8
    assert by_mean.evaluate([reached]) == [bound]
    assert len(inner.trials) == 1, "it answers its own aim the second time"
    (score,) = by_python.evaluate([reached])
    assert isinstance(score, Score)
    assert score.value == 1.0
    (again,) = by_mean.evaluate([reached])
    assert isinstance(again, Score)
    assert again.value == 0.5, "a score that is known answers, whatever it was measured for"
    assert len(inner.trials) == 2


@pytest.mark.parametrize("of", [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 7.0}, {"a": 0.0, "b": 1.0}])
def test_a_comparison_is_of_what_the_scores_are_aimed_at(of: Mapping[str, float]) -> None:
    draw = np.random.default_rng(0)
    labels = ("a",) * 400 + ("b",) * 100
    before, after = (tuple(draw.random(500).round().tolist()) for _ in range(2))
    mixed = Aim(labels, of)
    found = compared("test", Score(before, aim=mixed), Score(after, aim=mixed))
    assert found.difference == pytest.approx(mixed.value(after) - mixed.value(before), abs=1e-12)
    assert found.low < found.difference < found.high
    assert compared("test", Score(before), Score(after)).difference != found.difference


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        (["python", "Python"], "would all be 'python'"),
        (["a b", "a-b"], "would all be 'a-b'"),
        ([""], "empty"),
        (["x" * 65], "65 characters"),
        (["a,b"], "comma"),
        (["*"], "all domains"),
        (["\N{SNOWMAN}"], "no letter or digit"),
        (["a\tb"], "control character"),
    ],
)
def test_labels_that_nobody_can_use_are_told(told: list[str], fault: str) -> None:
    (found,) = label_faults(told)
    assert fault in found


def test_labels_are_normalised_for_aliases() -> None:
    assert not [*label_faults(["python", "C++ headers", "x" * 64, "Über"])]
    assert (normalised("C++ headers"), normalised("Über  Prosa!")) == ("c-headers", "uber-prosa")


@pytest.mark.parametrize("text", ["python", "python=2,python=1", "python=x", "=2", ""])
def test_a_mix_that_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(BadRequest, match="--mix"):
        weights(text)


def test_a_mix_is_read() -> None:
    assert weights("python=2, C=D=0.5") == {"python": 2.0, "C=D": 0.5}
    assert weights(None) is None


class Found:
    """What a task tells of its examples."""

    measures_whole = False

    def __init__(self, **splits: Sequence[str] | None) -> None:
        self._splits = splits

    def domains(self, split: str) -> Sequence[str] | None:
        return self._splits[split]

    def groups(self, _split: str) -> None:
        """No examples share an origin."""


class Broken(Found):
    """It knows no origins of examples."""

    def groups(self, split: str) -> None:
        raise BadTask(f"groups({split!r})", mend="return one origin per example")


def told(*tags: str, bench: Any = None, **request: Any) -> Domains:
    runs = [
        Run(
            str(i), f"run-{i}", "1", "FINISHED", i, {"kind": tag}, {}, {"stockpot.domain": tag} if tag else {}
        )
        for i, tag in enumerate(tags)
    ]
    bench = bench or Found(validation=["a", "b", "b"], test=["b", "a", "c"])
    return domains_of(replace(REQUEST, **request), cast("Bench", bench), runs)


def test_the_domains_of_runs_count_alike_and_others_are_unseen() -> None:
    found = told("a", "b", "b")
    assert found.aims["validation"].weights == {"a": 1.0, "b": 1.0}
    assert found.aims["test"].domains == ("b", "a", "c")
    assert (found.unseen, found.notes) == (("c",), ())
    assert told("a", "a,b").runs == {"0": "a", "1": "a,b"}
    assert told("a", "*").aims["validation"].counting == ("a",), "all data is no domain of its own"
    found = told("", "", objective="mean")
    assert found.aims["validation"].counting == ("a", "b"), "nobody tells: all count"
    assert (found.unseen, found.runs) == ((), {})


def test_the_datasets_that_runs_logged_may_tell_their_domain() -> None:
    runs = [Run(str(i), f"run-{i}", "1", "FINISHED", i, {}, {}, {}) for i in range(3)]
    asked = replace(REQUEST, domain_from="inputs")
    bench = cast("Bench", Found(validation=["a", "b"], test=["a", "b"]))
    found = domains_of(asked, bench, runs, {"0": ("a", "b"), "1": ("b",)})
    assert found.runs == {"0": "a,b", "1": "b", "2": "*"}


def test_a_run_that_tells_nothing_among_others_counts_as_one_of_all_data_and_is_told() -> None:
    found = told("a", "b", "")
    assert found.runs == {"0": "a", "1": "b", "2": "*"}
    assert found.notes == ("these runs tell no domain, and count as runs of all data: run-2",)


def test_a_domain_of_runs_without_examples_is_told() -> None:
    assert told("a", "b", "owls").notes == ("no example is of owls: no specialist of 1 run of that",)


def test_the_worst_is_what_is_selected_by_and_the_mean_what_is_reported() -> None:
    found = told("a", "b", objective=Objective.WORST)
    assert (found.aims["validation"].worst, found.aims["test"].worst) == (True, False)


@pytest.mark.parametrize("runs", [("", ""), ("owls", "mice")])
@pytest.mark.parametrize("reported", [["a"], ["a", "b"], None])
def test_labels_that_nobody_asked_about_change_nothing(
    runs: tuple[str, ...], reported: Sequence[str] | None
) -> None:
    found = told(*runs, bench=Found(validation=["a", "A", ""], test=reported))
    assert not found
    (note,) = found.notes
    assert "each example counts alike" in note
    assert "--objective mean" in note


def test_one_domain_or_none_is_as_without() -> None:
    for labels in (None, ["a", "a"]):
        assert not told("a", bench=Found(validation=labels, test=["a"])).notes
        (note,) = told("a", "b", bench=Found(validation=labels, test=["a"])).notes
        assert note.startswith(
            f"runs are of a, b, and the task tells {'only a' if labels else 'none'} of its"
        )
        assert "domains(split)" in note


@pytest.mark.parametrize(
    ("request_", "bench", "error", "said"),
    [
        ({"mix": {"owls": 1.0}}, None, BadRequest, "mix names owls"),
        ({"mix": {"a": 1.0}}, Found(validation=None, test=None), BadRequest, "the task tells none"),
        ({"objective": "worst"}, Found(validation=["a"], test=["a"]), BadRequest, "tells only a"),
        ({"target": "far"}, Found(validation=["a"], test=["a"]), BadRequest, "target are about several"),
        (
            {"target": "far", "objective": "mean"},
            Found(validation=["c", "d"], test=["c", "d"]),
            BadRequest,
            "no run tells one of c, d",
        ),
        ({"compare_all": True}, Found(validation=["a"], test=["a"]), BadRequest, "tells only a"),
        ({}, Found(validation=["a", "b"], test=["a"]), BadTask, "split test has no examples of b"),
        ({}, Found(validation=["a", "b"], test=None), BadTask, "no examples of a, b"),
        (
            {},
            Found(validation=["a", "b", "B"], test=["a", "B"]),
            BadRequest,
            "labels of domains cannot be used",
        ),
        ({"mix": {"B": 1}}, Found(validation=["b", "B"], test=["b"]), BadRequest, "labels of domains"),
        (
            {},
            Found(validation=["a", "b", ""], test=["b", "a"]),
            BadRequest,
            "no label: 1 example of split validation",
        ),
    ],
)
def test_what_cannot_be_is_told(
    request_: dict[str, Any], bench: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        told("a", "b", bench=bench, **request_)


@pytest.mark.parametrize(
    ("tags", "said"),
    [(("a", "a"), "runs are of a alone"), (("", "*"), "no run tells"), (("a", "*"), "a alone")],
)
def test_where_runs_are_not_of_several_domains_there_is_nothing_to_compare(
    tags: Sequence[str], said: str
) -> None:
    with pytest.raises(BadRequest, match=said):
        told(*tags, compare_all=True)
    told(*tags)  # which is no fault by itself


def test_what_is_wrong_with_origins_of_the_held_out_split_is_told_before_any_work() -> None:
    broken = Broken(validation=["a", "b"], test=["a", "b"])
    assert told("a", "b", bench=broken), "nobody else asks for them"
    with pytest.raises(BadTask, match="groups\\('validation'\\)"):
        told("a", "b", bench=broken, compare_all=True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"domain_from": "kind"}, "domain_from must be params.NAME, tags.NAME or inputs"),
        ({"mix": {"a": -1}}, "zero or more"),
        ({"mix": {"a": 0}}, "no weight above zero"),
        ({"mix": {"a": 1e308, "b": 1e308}}, "from 1e-15 to 1e\\+15"),
        ({"mix": {"a": 5e-324}}, "from 1e-15 to 1e\\+15"),
        ({"mix": {"a": "x"}}, "mix must be"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        replace(REQUEST, **fields)
