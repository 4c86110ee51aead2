import pytest

from stockpot.entities import Accept, Contender, Recipe, Score, Trial, digest_of_bytes
from stockpot.selection import is_around_base
from stockpot.selection.model_stock import ModelStock
from stockpot.selection.uniform import Uniform

CONTENDERS = [Contender(digest_of_bytes(bytes([place])), f"run-{place}", place) for place in range(4)]
BASE, FILE = digest_of_bytes(b"base"), digest_of_bytes(b"coefficients")


def test_model_stock_measures_all_contenders_in_canonical_order_and_the_base_once() -> None:
    method = ModelStock(CONTENDERS, accept=Accept.BETTER, base=BASE, coefficients=FILE)
    recipe = Recipe.by_tensor([*sorted(c.checkpoint for c in CONTENDERS), BASE], FILE)
    assert method.ask() == [Trial(recipe)]
    method.tell(method.ask()[0], Score((0.25, 0.75)))
    assert method.ask() == []
    found = method.result()
    assert (found.method, found.recipe, found.score, found.rule) == ("model-stock", recipe, 0.5, "")


def test_a_contender_that_is_the_base_itself_has_no_update() -> None:
    base = CONTENDERS[2].checkpoint
    (trial,) = ModelStock(CONTENDERS, accept=Accept.BETTER, base=base, coefficients=FILE).ask()
    assert trial.recipe.checkpoints.count(base) == 1
    assert trial.recipe.checkpoints[-1] == base


def test_it_alone_needs_to_know_where_the_sweep_started() -> None:
    assert is_around_base(ModelStock)
    assert not is_around_base(Uniform)
    with pytest.raises(TypeError, match="base"):
        ModelStock(CONTENDERS, accept=Accept.BETTER)  # type: ignore[call-arg]  # that is the point
