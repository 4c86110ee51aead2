from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.test_heads import ranked_sweep

from stockpot.entities import Accept, Contender, Recipe, Score, Trial, digest_of_bytes
from stockpot.errors import BadRequest, NothingToSoup
from stockpot.selection import is_around_base
from stockpot.selection.model_stock import ModelStock
from stockpot.selection.uniform import Uniform
from stockpot.testing.tiny import weights
from stockpot.workflow.selecting.search import around_base, require_base

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


def test_where_all_candidates_but_one_are_the_base_the_other_methods_go_on(tmp_path: Path) -> None:
    supply, ranking = ranked_sweep(tmp_path, [weights("dense", seed=seed) for seed in range(2)])
    based = replace(ranking, base=ranking.candidates[1])
    both = {"uniform": Uniform, "model-stock": ModelStock}
    left, (note,) = around_base(both, based, supply)
    assert left == {"uniform": Uniform}
    assert note == "nothing by model-stock: all candidates but 1 are the base tune-1 itself"
    with pytest.raises(NothingToSoup, match="all candidates but 1 are the base tune-1 itself"):
        around_base({"model-stock": ModelStock}, based, supply)
    assert around_base({"uniform": Uniform}, based, supply) == ({"uniform": Uniform}, ())
    require_base({"uniform": Uniform}, None)
    with pytest.raises(BadRequest, match="model-stock needs a base"):
        require_base(both, None)
