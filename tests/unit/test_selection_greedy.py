"""Greedy against a plain transcription of the published loop, and its promises one by one."""

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.entities import (
    Accept,
    Bound,
    Composition,
    Contender,
    Digest,
    Ensemble,
    Recipe,
    Score,
    Selection,
    Step,
    Threshold,
    Trial,
    digest_of_bytes,
)
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy, GreedyEnsemble
from stockpot.testing.evaluators import TableEvaluator

Examples = Callable[[Composition], tuple[float, ...]]
PlainStep = tuple[tuple[Digest, ...], float, bool]
N = 6


def contender(place: int, started: int = 0) -> Contender:
    return Contender(digest_of_bytes(b"weights %d" % place), f"run-{place:03}", started)


def published_greedy(
    contenders: Sequence[Contender], score: Callable[[Sequence[Digest]], float], accept: Accept
) -> tuple[tuple[Digest, ...], float, list[PlainStep]]:
    """Recipe 1 of Wortsman et al. 2022, line by line."""
    alone = {c: score([c.checkpoint]) for c in contenders}
    numbers = sorted(
        (c for c in contenders if not math.isnan(alone[c])), key=lambda c: (-alone[c], c.started, c.run_id)
    )
    nans = sorted((c for c in contenders if math.isnan(alone[c])), key=lambda c: (c.started, c.run_id))
    best = (numbers + nans)[0]
    steps: list[PlainStep] = [((c.checkpoint,), alone[c], c is best and c in numbers) for c in contenders]
    soup, held_out = [best.checkpoint], alone[best]
    for c in numbers[1:]:
        tried = [*soup, c.checkpoint]
        value = score(tried)
        better = value > held_out if accept is Accept.BETTER else value >= held_out
        steps.append((tuple(tried), value, better))
        if better:
            soup, held_out = tried, value
    return tuple(soup), held_out, steps


def instance(seed: int) -> tuple[list[Contender], Examples]:
    """Contenders with ties in start time, and scores with ties and, in some instances, NaN."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    contenders = [contender(place, dice.randrange(3)) for place in range(dice.randint(1, 9))]
    dice.shuffle(contenders)
    levels = dice.choice([2, 3, 11])
    nan_rate = dice.choice([0.0, 0.0, 0.05, 0.3])

    def examples(recipe: Composition) -> tuple[float, ...]:
        own = random.Random(f"{seed} {recipe.digest}")  # noqa: S311 - no secret
        drawn = tuple(own.randrange(levels) / (levels - 1) for _ in range(N))
        return (math.nan, *drawn[1:]) if own.random() < nan_rate else drawn

    return contenders, examples


def equal(a: float | None, b: float | None) -> bool:
    return str(a) == str(b)


def assert_agrees(
    selection: Selection, contenders: Sequence[Contender], examples: Examples, accept: Accept
) -> int:
    """Compare with the published loop. Returns how many steps ended early."""
    recipe, value, steps = published_greedy(
        contenders, lambda tried: Score(examples(Recipe.mean(tried))).value, accept
    )
    assert selection.recipe == Recipe.mean(recipe)
    assert equal(selection.score, value)
    assert selection.rule == accept.value
    assert [(step.tried, step.kept) for step in selection.steps] == [
        (tried, kept) for tried, _, kept in steps
    ]
    for step, (tried, score, kept) in zip(selection.steps, steps, strict=True):
        assert step.recipe == Recipe.mean(tried).digest
        if step.bound is None:
            assert equal(step.score, score)
        else:
            assert step.score is None
            assert not kept
            assert step.bound >= score
    return sum(step.bound is not None for step in selection.steps)


@pytest.mark.parametrize("greatest", [None, 1.0], ids=["full passes", "early rejection"])
@pytest.mark.parametrize("accept", list(Accept))
def test_greedy_is_the_published_loop_on_thousands_of_instances(
    accept: Accept, greatest: float | None
) -> None:
    stopped_early = 0
    for seed in range(1000):
        contenders, examples = instance(seed)
        selection = run_selection(
            Greedy(contenders, accept=accept), TableEvaluator(examples, n=N, greatest=greatest)
        )
        stopped_early += assert_agrees(selection, contenders, examples, accept)
    assert (stopped_early > 100) == (greatest is not None)


@given(
    table=st.lists(st.floats(allow_infinity=False), min_size=32, max_size=32),
    order=st.permutations(range(5)),
    accept=st.sampled_from(Accept),
)
@settings(max_examples=200, deadline=None)
def test_greedy_is_the_published_loop_for_any_table_of_scores(
    table: Sequence[float], order: Sequence[int], accept: Accept
) -> None:
    contenders = [contender(place) for place in order]
    place_of = {c.checkpoint: place for c, place in zip(contenders, order, strict=True)}

    def examples(recipe: Composition) -> tuple[float, ...]:
        return (table[sum(1 << place_of[digest] for digest in recipe.checkpoints)],)

    selection = run_selection(Greedy(contenders, accept=accept), TableEvaluator(examples, n=1))
    assert_agrees(selection, contenders, examples, accept)


def told(scores: Sequence[float], accept: Accept = Accept.NOT_WORSE) -> Greedy:
    """A greedy search whose contenders are ranked."""
    method = Greedy([contender(place) for place in range(len(scores))], accept=accept)
    for trial, score in zip(method.ask(), scores, strict=True):
        method.tell(trial, Score((score,)))
    return method


@pytest.mark.parametrize("accept", list(Accept))
def test_a_greedy_ensemble_is_the_published_loop_with_ensembles_in_place_of_soups(accept: Accept) -> None:
    for seed in range(300):
        contenders, examples = instance(seed)

        def score(tried: Sequence[Digest], examples: Examples = examples) -> float:
            return Score(examples(Ensemble.of(tried) if len(tried) > 1 else Recipe.mean(tried))).value

        members, value, steps = published_greedy(contenders, score, accept)
        found = run_selection(GreedyEnsemble(contenders, accept=accept), TableEvaluator(examples, n=N))
        assert found.recipe == (Ensemble.of(members) if len(members) > 1 else Recipe.mean(members))
        assert equal(found.score, value)
        assert [(s.tried, str(s.score), s.kept) for s in found.steps] == [
            (tried, str(score), kept) for tried, score, kept in steps
        ]


def test_every_contender_is_first_measured_alone_and_in_full() -> None:
    contenders = [contender(place) for place in range(3)]
    trials = Greedy(contenders, accept=Accept.BETTER).ask()
    assert trials == [Trial(Recipe.mean([c.checkpoint])) for c in contenders]


def test_asking_again_without_telling_asks_for_the_same() -> None:
    method = told([0.5, 0.7, 0.6])
    assert method.ask() == method.ask() != []


def test_partly_told_ranking_asks_for_the_rest() -> None:
    method = Greedy([contender(place) for place in range(3)], accept=Accept.BETTER)
    first, *rest = method.ask()
    method.tell(first, Score((0.5,)))
    assert method.ask() == rest


@pytest.mark.parametrize(("accept", "strict"), [(Accept.NOT_WORSE, False), (Accept.BETTER, True)])
def test_a_trial_says_what_it_must_reach(accept: Accept, strict: bool) -> None:  # noqa: FBT001 - a parameter
    (trial,) = told([0.5, 0.7, 0.6], accept).ask()
    assert trial.must_reach == Threshold(0.7, strict=strict)
    assert trial.recipe == Recipe.mean([contender(1).checkpoint, contender(2).checkpoint])


def test_an_equal_score_is_kept_by_not_worse_only() -> None:
    for accept, kept in [(Accept.NOT_WORSE, True), (Accept.BETTER, False)]:
        method = told([0.5, 0.5], accept)
        (trial,) = method.ask()
        method.tell(trial, Score((0.5,)))
        assert method.result().steps[-1].kept is kept
        assert method.result().recipe.is_soup is kept


def test_ties_go_to_the_earlier_run_and_then_to_the_lower_run_id() -> None:
    contenders = [contender(3, started=2), contender(2, started=1), contender(1, started=1)]
    method = Greedy(contenders, accept=Accept.NOT_WORSE)
    for trial in method.ask():
        method.tell(trial, Score((0.5,)))
    assert method.result().recipe == Recipe.mean([contender(1).checkpoint])
    (trial,) = method.ask()
    assert trial.recipe.checkpoints[-1] == contender(2).checkpoint


def test_a_contender_scored_nan_is_never_tried_in_a_soup() -> None:
    method = told([math.nan, 0.5])
    assert method.ask() == []
    assert method.result().recipe == Recipe.mean([contender(1).checkpoint])


def test_a_sweep_of_nan_ends_in_its_first_run_with_nothing_kept() -> None:
    method = told([math.nan, math.nan])
    assert method.ask() == []
    assert math.isnan(method.result().score)
    assert not any(step.kept for step in method.result().steps)


def test_a_bound_is_a_rejection_on_record() -> None:
    method = told([0.5, 0.7])
    (trial,) = method.ask()
    method.tell(trial, Bound(0.6))
    last = method.result().steps[-1]
    assert last == Step(trial.recipe.digest, trial.recipe.checkpoints, None, 0.6, kept=False)
    assert method.ask() == []


@pytest.mark.parametrize(
    ("accept", "upper"), [(Accept.NOT_WORSE, 0.7), (Accept.BETTER, 0.71), (Accept.BETTER, math.nan)]
)
def test_a_bound_that_does_not_exclude_acceptance_is_refused(accept: Accept, upper: float) -> None:
    method = told([0.5, 0.7], accept)
    (trial,) = method.ask()
    with pytest.raises(ValueError, match="does not exclude"):
        method.tell(trial, Bound(upper))
    assert list(method.ask()) == [trial]


def test_a_bound_on_a_contender_alone_is_refused() -> None:
    method = Greedy([contender(0)], accept=Accept.BETTER)
    with pytest.raises(ValueError, match="measured in full"):
        method.tell(method.ask()[0], Bound(0.5))


def test_telling_what_was_not_asked_is_refused() -> None:
    method = Greedy([contender(0), contender(1)], accept=Accept.BETTER)
    with pytest.raises(ValueError, match="was asked for"):
        method.tell(method.ask()[1], Score((0.5,)))
    over = told([0.5])
    with pytest.raises(ValueError, match="nothing was asked for"):
        over.tell(Trial(Recipe.mean([contender(0).checkpoint])), Score((0.5,)))


def test_equal_checkpoints_are_refused() -> None:
    with pytest.raises(ValueError, match="same checkpoint"):
        Greedy([contender(0), contender(0, started=1)], accept=Accept.BETTER)
    with pytest.raises(ValueError, match="at least one"):
        Greedy([], accept=Accept.BETTER)


def test_there_is_no_result_before_any_outcome() -> None:
    with pytest.raises(ValueError, match="no outcome"):
        Greedy([contender(0)], accept=Accept.BETTER).result()


def test_the_result_of_half_a_ranking_is_the_best_until_then() -> None:
    method = Greedy([contender(place) for place in range(3)], accept=Accept.BETTER)
    for trial, score in zip(method.ask()[:2], [0.5, 0.7], strict=True):
        method.tell(trial, Score((score,)))
    result = method.result()
    assert result.recipe == Recipe.mean([contender(1).checkpoint])
    assert [step.kept for step in result.steps] == [False, True]


def test_what_is_foreseen_is_what_is_asked_for_as_long_as_nothing_is_accepted() -> None:
    method = told([0.9, 0.8, 0.7, 0.6])
    foreseen = [*method.ask(), *method.foresee(9)]
    assert [trial.recipe.checkpoints[-1] for trial in foreseen] == [
        contender(i).checkpoint for i in (1, 2, 3)
    ]
    assert list(method.foresee(1)) == foreseen[1:2]
    for trial in foreseen:
        assert list(method.ask()) == [trial]
        method.tell(trial, Score((0.1,)))
    assert not method.ask()
    assert not method.foresee(9)


def test_nothing_is_foreseen_before_the_ranking_is_known() -> None:
    assert not Greedy([contender(0), contender(1)], accept=Accept.BETTER).foresee(9)
