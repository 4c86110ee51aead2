"""Grouped: each domain counts alike in the weights."""

import math
from collections.abc import Mapping, Sequence

import pytest

from stockpot.entities import Accept, Bound, Contender, Digest, Recipe, Score, Selection, digest_of_bytes
from stockpot.selection import run_selection
from stockpot.selection.grouped import Grouped
from stockpot.testing.evaluators import TableEvaluator

A, B, C, D, E = (digest_of_bytes(name.encode()) for name in "abcde")
GROUPS = {"man": [A, B], "python": [C, D]}
ALONE = {A: 0.5, B: 0.6, C: 0.4, D: 0.3}
START = [[B], [C]]


def contenders(*checkpoints: Digest) -> list[Contender]:
    return [Contender(one, f"run-{place}", place) for place, one in enumerate(checkpoints)]


def searched(
    together: Mapping[tuple[tuple[Digest, ...], tuple[Digest, ...]], float],
    alone: Mapping[Digest, float] = ALONE,
    *,
    accept: Accept = Accept.NOT_WORSE,
    greatest: float | None = None,
) -> tuple[Selection, TableEvaluator]:
    known = {Recipe.mean([one]).digest: score for one, score in alone.items()}
    known |= {Recipe.grouped(groups).digest: score for groups, score in together.items()}
    evaluator = TableEvaluator(lambda recipe: [known.get(recipe.digest, 0.0)] * 4, n=4, greatest=greatest)
    found = run_selection(Grouped(contenders(A, B, C, D), accept=accept, groups=GROUPS), evaluator)
    return found, evaluator


def test_it_begins_with_each_groups_best_and_adds_the_others_best_first() -> None:
    found, evaluator = searched({((B,), (C,)): 0.7, ((B, A), (C,)): 0.6, ((B,), (C, D)): 0.7})
    assert found.recipe == Recipe.grouped([[B], [C, D]])
    assert found.score == 0.7
    assert [step.kept for step in found.steps] == [False] * 4 + [True, False, True]
    assert len(evaluator.trials) == 4 + 2 * (2 - 1) + 1
    assert (evaluator.trials[4].must_reach, found.rule) == (None, "not_worse")


def test_what_must_rise_is_not_kept_where_it_stays() -> None:
    found, _ = searched({((B,), (C,)): 0.7, ((B,), (C, D)): 0.7}, accept=Accept.BETTER)
    assert found.recipe == Recipe.grouped(START)


def test_a_bound_rejects_and_the_recipe_is_the_same() -> None:
    told = {((B,), (C,)): 0.7, ((B, A), (C,)): 0.8, ((B, A), (C, D)): 0.1}
    plain, bounded = searched(told)[0], searched(told, greatest=1.0)[0]
    assert plain.recipe == bounded.recipe == Recipe.grouped([[B, A], [C]])
    assert (plain.steps[-1].score, bounded.steps[-1].score) == (0.1, None)


def test_a_score_that_is_no_number_is_never_in_it() -> None:
    found, _ = searched({((B,), (C,)): 0.7}, {**ALONE, D: math.nan})
    assert found.recipe == Recipe.grouped(START)
    assert all(D not in step.tried for step in found.steps[4:])
    found, _ = searched({((B,), (C,)): math.nan})
    assert found.recipe == Recipe.mean([B]), "the best alone, where the start has no score"


def test_one_that_stands_for_several_groups_or_none_is_not_used() -> None:
    method = Grouped(contenders(A, B, C, D, E), accept=Accept.NOT_WORSE, groups=GROUPS)
    assert len(method.ask()) == 4
    assert method.most_soups == 3


@pytest.mark.parametrize("groups", [{"man": [A, B]}, {"man": [A], "python": []}, {"man": [A], "python": [A]}])
def test_groups_that_are_none_are_refused(groups: Mapping[str, Sequence[Digest]]) -> None:
    with pytest.raises(ValueError, match="two or more groups"):
        Grouped(contenders(A, B), accept=Accept.NOT_WORSE, groups=groups)


def test_it_takes_outcomes_of_what_it_asked_for_alone() -> None:
    method = Grouped(contenders(A, B, C, D), accept=Accept.NOT_WORSE, groups=GROUPS)
    with pytest.raises(ValueError, match="no outcome"):
        method.result()
    assert method.foresee(3) == []
    for trial in method.ask():
        method.tell(trial, Score((ALONE[trial.recipe.checkpoints[0]],)))
    (start,) = method.ask()
    with pytest.raises(ValueError, match="measured in full"):
        method.tell(start, Bound(0.1))
    method.tell(start, Score((0.7,)))
    (first,), (second,) = method.ask(), method.foresee(3)
    assert (first.recipe.checkpoints, second.recipe.checkpoints) == ((B, A, C), (B, C, D))
    with pytest.raises(ValueError, match="told the outcome of"):
        method.tell(second, Score((0.7,)))
