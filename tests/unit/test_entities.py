"""Recipes, digests and requests."""

import math
from itertools import permutations
from typing import Any

import pytest

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Digest,
    EvaluationProtocol,
    Ingredient,
    Recipe,
    Score,
    SoupRequest,
    Threshold,
    digest_of_document,
)
from stockpot.errors import BadRequest

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")


def test_a_uniform_recipe_has_one_digest_whatever_the_order() -> None:
    assert len({Recipe.uniform(order).digest for order in permutations([A, B, C])}) == 1


def test_a_greedy_recipe_keeps_the_order_of_acceptance() -> None:
    assert Recipe.mean([B, A]).checkpoints == (B, A)
    assert Recipe.mean([B, A]).digest != Recipe.mean([A, B]).digest


def test_the_digest_of_a_recipe_never_changes() -> None:
    # Rebuilding in a year stands on this: a changed value here is a changed name of every soup.
    expected = "sha256:4904657eb177e673b21b70ff029f61f4afe3fb962edee94fe4cb084451bb716c"
    assert Recipe.mean([A, B]).digest == expected


@pytest.mark.parametrize(
    "ingredients",
    [
        (),
        (Ingredient(A, 0.5), Ingredient(A, 0.5)),
        (Ingredient(A, 0.4), Ingredient(B, 0.6)),
        (Ingredient(A, math.nan),),
    ],
    ids=["none", "twice", "unequal", "nan"],
)
def test_a_recipe_that_means_nothing_is_refused(ingredients: tuple[Ingredient, ...]) -> None:
    with pytest.raises(ValueError, match=r"recipe|coefficients"):
        Recipe(ingredients)


def test_a_document_has_one_digest_however_it_was_written() -> None:
    assert digest_of_document({"a": 1, "b": [0.1]}) == digest_of_document({"b": [0.1], "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_of_document({"a": math.nan})


def test_a_score_is_an_exact_sum() -> None:
    assert Score((1e16, 1.0, -1e16)).value == 1 / 3
    assert math.isnan(Score((1.0, math.nan)).value)


def test_nan_reaches_no_threshold() -> None:
    for strict in (True, False):
        assert not Threshold(-math.inf, strict=strict).met_by(math.nan)
    assert Threshold(0.5, strict=False).met_by(0.5)
    assert not Threshold(0.5, strict=True).met_by(0.5)


def test_every_field_of_a_protocol_is_part_of_its_name() -> None:
    fields = {
        "task": "t",
        "task_version": "1",
        "task_args": (("k", "v"),),
        "split": "s",
        "dataset": A,
        "n": 3,
        "dtype": "float32",
        "tf32": False,
        "batch_size": 2,
        "device": "cpu",
        "torch_version": "2",
    }
    changed: dict[str, object] = {
        **{k: f"{v}x" for k, v in fields.items()},
        "n": 4,
        "tf32": True,
        "batch_size": 3,
    }
    later = {"modules": (("own", "1"),), "distributions": (("numpy", "2"),), "software": (("CUDA", "12"),)}
    changed |= later
    reference = EvaluationProtocol(**fields).digest  # type: ignore[arg-type]  # a dict of mixed values
    for name, value in changed.items():
        other = EvaluationProtocol(**{**fields, name: value}).digest  # type: ignore[arg-type]  # as above
        assert other != reference, name
    assert reference == digest_of_document(fields), "protocols without the later fields keep their names"


def test_all_faults_of_a_request_are_told_at_once() -> None:
    with pytest.raises(BadRequest, match="different splits") as caught:
        SoupRequest(model=" ", task="", methods=(), report_on="validation", top=3)
    text = str(caught.value)
    faults = ("model is empty", "task is empty", "sweep or experiment", "methods is empty", "top and by")
    assert all(fault in text for fault in faults)


@pytest.mark.parametrize("wrong", [{"max_seconds": math.nan}, {"max_seconds": 0.0}, {"margin": math.nan}])
def test_what_is_no_limit_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadRequest, match="must be"):
        SoupRequest(model="m", task="t", sweep="s", **wrong)  # type: ignore[arg-type]  # one at a time


@pytest.mark.parametrize("shifts", [("validation",), ("test",), ("fog", "fog")])
def test_no_split_serves_two_purposes(shifts: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest, match="different splits"):
        SoupRequest(model="m", task="t", sweep="s", shifts=shifts)


@pytest.mark.parametrize("named", [{"shifts": (MEAN_OF_SHIFTS, "fog")}, {"report_on": MEAN_OF_SHIFTS}])
def test_no_split_has_the_name_of_the_reports_own_column(named: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="no split may be named 'mean of shifts'"):
        SoupRequest(model="m", task="t", sweep="s", **named)


@pytest.mark.parametrize("examples", [(-1.5e308, -1.5e308), (math.inf, -math.inf)])
def test_a_score_beyond_the_floats_is_nan_and_never_accepted(examples: tuple[float, ...]) -> None:
    score = Score(examples)
    assert math.isnan(score.value)
    assert not Threshold(-math.inf, strict=False).met_by(score.value)
