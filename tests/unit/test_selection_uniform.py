import math

import pytest

from stockpot.entities import Accept, Bound, Contender, Recipe, Score, Trial, digest_of_bytes
from stockpot.selection.uniform import Uniform

CONTENDERS = [Contender(digest_of_bytes(bytes([place])), f"run-{place}", place) for place in range(4)]
DIGESTS = [contender.checkpoint for contender in CONTENDERS]


def test_uniform_measures_the_mean_of_all_in_canonical_order_once() -> None:
    method = Uniform(CONTENDERS, accept=Accept.BETTER)
    assert method.ask() == method.ask() == [Trial(Recipe.mean(sorted(DIGESTS)))]
    method.tell(method.ask()[0], Score((0.25, 0.75)))
    assert method.ask() == []
    selection = method.result()
    assert (selection.recipe, selection.score, selection.rule) == (Recipe.uniform(DIGESTS), 0.5, "")
    (step,) = selection.steps
    assert (step.score, step.bound, step.kept) == (0.5, None, True)


def test_uniform_of_one_contender_is_that_contender() -> None:
    method = Uniform(CONTENDERS[:1], accept=Accept.BETTER)
    method.tell(method.ask()[0], Score((math.nan,)))
    assert method.result().recipe == Recipe.mean(DIGESTS[:1])
    assert math.isnan(method.result().score)


def test_uniform_takes_no_bound_no_other_trial_and_no_second_outcome() -> None:
    method = Uniform(CONTENDERS, accept=Accept.BETTER)
    (trial,) = method.ask()
    with pytest.raises(ValueError, match="measured in full"):
        method.tell(trial, Bound(0.5))
    with pytest.raises(ValueError, match="was asked for"):
        method.tell(Trial(Recipe.mean(DIGESTS[:1])), Score((0.5,)))
    with pytest.raises(ValueError, match="no outcome"):
        method.result()
    method.tell(trial, Score((0.5,)))
    with pytest.raises(ValueError, match="nothing was asked for"):
        method.tell(trial, Score((0.5,)))


def test_equal_checkpoints_are_refused() -> None:
    with pytest.raises(ValueError, match="same checkpoint"):
        Uniform([CONTENDERS[0], CONTENDERS[0]], accept=Accept.BETTER)
