"""`verify_exact` finds every kind of difference, and blames whom it should."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from stockpot.entities import (
    Accept,
    Bound,
    Composition,
    Contender,
    Outcome,
    Recipe,
    Score,
    Trial,
    digest_of_bytes,
)
from stockpot.errors import BadTask, NotExact
from stockpot.ports import Wanted, always
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.testing.evaluators import TableEvaluator
from stockpot.workflow.selecting.exactness import Agreement, require_same_scores, require_same_search

DIGESTS = [digest_of_bytes(b"weights %d" % place) for place in range(6)]
CONTENDERS = [Contender(digest, f"run-{place}", place) for place, digest in enumerate(DIGESTS)]
N = 10


def scores(recipe: Composition) -> list[float]:
    """Runs 0 to 2 help each other; any further one breaks the soup."""
    places = [DIGESTS.index(digest) for digest in recipe.checkpoints]
    right = 7 - places[0] + len(places) if max(places) <= 2 else 2
    return [1.0] * right + [0.0] * (N - right)


class Told(TableEvaluator):
    """Knows what it answered."""

    def __init__(self, *, greatest: float | None = None) -> None:
        super().__init__(scores, n=N, greatest=greatest)
        self.outcomes: dict[Trial, Outcome] = {}

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        outcomes = super().evaluate(trials, then=then, wanted=wanted)
        self.outcomes |= dict(zip(trials, outcomes, strict=True))
        return outcomes


class Searches:
    """A fast search, its plain counterpart, and all that they were told: to be tampered with."""

    def __init__(self) -> None:
        fast, plain = Told(greatest=1.0), Told()
        self.fast = run_selection(Greedy(CONTENDERS, accept=Accept.NOT_WORSE), fast)
        self.plain = run_selection(Greedy(CONTENDERS, accept=Accept.NOT_WORSE), plain)
        self.outcomes = fast.outcomes
        self.scores = {t.recipe: s for t, s in plain.outcomes.items() if isinstance(s, Score)}

    def compare(self) -> Agreement:
        return require_same_search(self.fast, self.plain, self.outcomes, self.scores, name)

    def bounded(self) -> Trial:
        return next(trial for trial, outcome in self.outcomes.items() if isinstance(outcome, Bound))

    def change_step(self, number: int, **fields: object) -> None:
        steps = list(self.plain.steps)
        steps[number] = replace(steps[number], **fields)  # type: ignore[arg-type]  # each has its field's type
        self.plain = replace(self.plain, steps=tuple(steps))


def name(recipe: Composition) -> str:
    return "+".join(str(DIGESTS.index(digest)) for digest in recipe.checkpoints)


@pytest.fixture
def searches() -> Searches:
    return Searches()


def test_what_agrees_is_counted(searches: Searches) -> None:
    agreement = searches.compare()
    bounds = sum(step.bound is not None for step in searches.fast.steps)
    assert bounds > 0
    assert agreement == Agreement(steps=11, scores=11 - bounds, examples=(11 - bounds) * N, bounds=bounds)
    assert "11 steps" in str(agreement)


def test_a_bound_for_what_scores_nan_is_no_fault_since_both_reject_it(searches: Searches) -> None:
    before = searches.compare()
    searches.scores[searches.bounded().recipe] = Score((*[1.0] * (N - 1), math.nan))
    assert searches.compare() == before


Tamper = Callable[[Searches], None]


def another_order(s: Searches) -> None:
    first, second, *others = s.plain.steps
    s.plain = replace(s.plain, steps=(second, first, *others))


def another_decision(s: Searches) -> None:
    s.change_step(6, kept=not s.plain.steps[6].kept)


def another_recipe(s: Searches) -> None:
    s.change_step(7, recipe=digest_of_bytes(b"another"))


def another_value(s: Searches) -> None:
    s.change_step(3, score=math.nextafter(s.plain.steps[3].score or 0.0, 1.0))


def one_step_fewer(s: Searches) -> None:
    s.plain = replace(s.plain, steps=s.plain.steps[:-1])


def one_step_more(s: Searches) -> None:
    s.plain = replace(s.plain, steps=(*s.plain.steps, s.plain.steps[-1]))


def another_result(s: Searches) -> None:
    s.plain = replace(s.plain, recipe=Recipe.mean(DIGESTS[:2]))


def another_final_score(s: Searches) -> None:
    s.plain = replace(s.plain, score=math.nextafter(s.plain.score, 0.0))


def another_rule(s: Searches) -> None:
    s.plain = replace(s.plain, rule="better")


def no_end(s: Searches) -> None:
    s.plain = replace(s.plain, complete=False)


def a_bound_below_the_score(s: Searches) -> None:
    s.outcomes[s.bounded()] = Bound(math.nextafter(s.scores[s.bounded().recipe].value, 0.0))


def a_bound_that_is_nan(s: Searches) -> None:
    s.outcomes[s.bounded()] = Bound(math.nan)


def a_bound_that_does_not_exclude_acceptance(s: Searches) -> None:
    threshold = s.bounded().must_reach
    assert threshold is not None
    s.outcomes[s.bounded()] = Bound(threshold.value)


def a_bound_without_a_threshold(s: Searches) -> None:
    s.outcomes[Trial(s.bounded().recipe)] = s.outcomes[s.bounded()]


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (another_order, "step 1: "),
        (another_decision, "step 7: "),
        (another_recipe, "step 8: "),
        (another_value, "step 4: "),
        (one_step_fewer, "in the plain search there is none"),
        (one_step_more, "step 12: there is none"),
        (another_result, "the result: 0+1+2 at"),
        (another_final_score, "the result: "),
        (another_rule, "rule 'better'"),
        (no_end, "incomplete"),
        (a_bound_below_the_score, "bounded by"),
        (a_bound_that_is_nan, "can be met"),
        (a_bound_that_does_not_exclude_acceptance, "can be met"),
        (a_bound_without_a_threshold, "None can be met"),
    ],
)
def test_every_other_difference_is_named_and_is_our_fault(
    searches: Searches, tamper: Tamper, told: str
) -> None:
    tamper(searches)
    with pytest.raises(NotExact, match="although every score agrees") as raised:
        searches.compare()
    assert any(told in fault for fault in raised.value.faults), raised.value.faults
    assert "fault of Stockpot" in raised.value.mend


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ((0.0, 1.0, 0.5), (0.0, 1.0, 0.25), "0+1: example 2 scores 0.5 at first, 0.25 in the plain pass"),
        (
            (0.0, 1.0, 0.5),
            (1.0, 1.0, 0.0),
            "example 0 scores 0.0 at first, 1.0 in the plain pass, and 1 more",
        ),
        ((0.1,), (math.nextafter(0.1, 1),), "example 0 scores 0.1 at first, 0.10000000000000002 in"),
        ((0.0,), (-0.0,), "example 0 scores 0.0 at first, -0.0 in"),
        ((1.0, math.nan), (1.0, 0.0), "example 1 scores nan at first, 0.0 in"),
        ((1.0,), (1.0, 0.0), "example 1 scores None at first, 0.0 in"),
    ],
)
def test_unequal_scores_are_the_tasks_fault_with_example_and_values(
    first: tuple[float, ...], second: tuple[float, ...], told: str
) -> None:
    with pytest.raises(BadTask, match="not get the same scores") as raised:
        require_same_scores([(Recipe.mean(DIGESTS[:2]), Score(first), Score(second))], name)
    (fault,) = raised.value.faults
    assert told in fault
    for suspect in ("dropout", "random augmentation", "shuffles"):
        assert suspect in raised.value.mend


@pytest.mark.parametrize("examples", [(0.1, 0.2), (math.nan, -0.0), (1, 0)])
def test_equal_scores_are_no_fault_and_nan_is_one(examples: tuple[float, ...]) -> None:
    require_same_scores([(Recipe.mean(DIGESTS[:2]), Score(examples), Score(tuple(examples)))], name)


def test_a_long_list_of_faults_is_cut_and_counted() -> None:
    recipes = [Recipe.mean([digest_of_bytes(b"%d" % place)]) for place in range(25)]
    with pytest.raises(BadTask) as raised:
        require_same_scores([(r, Score((0.0,)), Score((1.0,))) for r in recipes], lambda r: r.digest)
    assert len(raised.value.faults) == 11
    assert raised.value.faults[-1] == "and 15 more"
