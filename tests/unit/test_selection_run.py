import pytest

from stockpot.entities import Accept, Contender, Recipe, digest_of_bytes
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.testing.evaluators import TableEvaluator

CONTENDERS = [Contender(digest_of_bytes(bytes([place])), f"run-{place}", place) for place in range(4)]


def more_is_better(recipe: Recipe) -> tuple[float, ...]:
    return (len(recipe.ingredients) / 10,)


@pytest.fixture
def evaluator() -> TableEvaluator:
    return TableEvaluator(more_is_better, n=1)


def test_an_unstopped_search_is_complete(evaluator: TableEvaluator) -> None:
    selection = run_selection(Greedy(CONTENDERS, accept=Accept.BETTER), evaluator)
    assert selection.complete
    assert len(selection.recipe.checkpoints) == 4


def test_a_stop_from_the_start_still_ranks_every_contender(evaluator: TableEvaluator) -> None:
    selection = run_selection(Greedy(CONTENDERS, accept=Accept.BETTER), evaluator, stop=lambda: True)
    assert not selection.complete
    assert len(selection.steps) == len(evaluator.trials) == len(CONTENDERS)
    assert selection.recipe == Recipe.mean([CONTENDERS[0].checkpoint])


def test_a_stopped_search_returns_the_best_recipe_until_then(evaluator: TableEvaluator) -> None:
    selection = run_selection(
        Greedy(CONTENDERS, accept=Accept.BETTER), evaluator, stop=lambda: len(evaluator.trials) > 5
    )
    assert not selection.complete
    assert len(selection.recipe.checkpoints) == 3


def test_a_stop_after_the_last_trial_leaves_the_search_complete(evaluator: TableEvaluator) -> None:
    method = Greedy(CONTENDERS, accept=Accept.BETTER)
    assert run_selection(method, evaluator, stop=lambda: len(evaluator.trials) == 7).complete
