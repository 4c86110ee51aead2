"""Recipes, digests and requests."""

import math
from dataclasses import asdict, fields, replace
from itertools import permutations
from typing import Any

import pytest

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Arithmetic,
    Conditions,
    Digest,
    Ensemble,
    EvaluationProtocol,
    Ingredient,
    OverlayRule,
    Question,
    Recipe,
    Score,
    SoupRequest,
    Threshold,
    digest_of_document,
)
from stockpot.errors import BadRequest

A, B, C, D = (Digest(f"sha256:{letter * 64}") for letter in "abcd")


def test_a_uniform_recipe_has_one_digest_whatever_the_order() -> None:
    assert len({Recipe.uniform(order).digest for order in permutations([A, B, C])}) == 1


def test_a_greedy_recipe_keeps_the_order_of_acceptance() -> None:
    assert Recipe.mean([B, A]).checkpoints == (B, A)
    assert Recipe.mean([B, A]).digest != Recipe.mean([A, B]).digest


def test_the_digest_of_a_recipe_never_changes() -> None:
    # Rebuilding in a year stands on this: a changed value here is a changed name of every soup.
    expected = "sha256:4904657eb177e673b21b70ff029f61f4afe3fb962edee94fe4cb084451bb716c"
    assert Recipe.mean([A, B]).digest == expected


def test_the_digest_of_an_ensemble_never_changes_and_is_no_recipes() -> None:
    expected = "sha256:a3b4efdec97dec80907754da67c716f046777f7324b8c73745a60052c8576883"
    assert Ensemble.of([A, B]).digest == expected
    assert Ensemble.of([A]).digest != Recipe.mean([A]).digest


def test_each_ensemble_has_one_name() -> None:
    members = (Recipe.mean([A]), Recipe.mean([B, C]))
    assert Ensemble(members).checkpoints == (A, B, C)
    names = [Ensemble(members), Ensemble(members[::-1]), Ensemble(members, (1, 2)), Ensemble(members, (2, 1))]
    assert len({ensemble.digest for ensemble in names}) == 4


@pytest.mark.parametrize(
    ("members", "weights"),
    [
        ([], ()),
        ([A, A], ()),
        ([A, B], (1,)),
        ([A, B], (1, 0)),
        ([A, B], (1, 1)),
        ([A, B], (2, 4)),
        ([A], (1,)),
    ],
    ids=["none", "twice", "too few", "zero", "equal", "not reduced", "one"],
)
def test_an_ensemble_that_has_another_name_or_means_nothing_is_refused(
    members: list[Digest], weights: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"ensemble|weights"):
        Ensemble(tuple(Recipe.mean([member]) for member in members), weights)


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


def test_a_linear_recipe_has_reduced_ratios_and_a_name_of_its_own() -> None:
    # As above: a changed value here is a changed name.
    expected = "sha256:93194201969fd06da1e3f3bfa377f470314e90eeaefee2099e702e92bf221b00"
    task_arithmetic = Recipe.linear({A: (2, 2), B: (6, 20), C: (-3, 10)})
    assert task_arithmetic.digest == expected
    assert task_arithmetic == Recipe.linear({A: (1, 1), B: (3, 10), C: (3, -10)})
    assert task_arithmetic.factors == (1.0, 0.3, -0.3)
    assert (task_arithmetic.sums, Recipe.mean([A, B]).sums) == (((range(3), 1.0),), ((range(2), 0.5),))
    assert Recipe.mean([A, B]).factors == (1, 1)
    assert Recipe.linear({A: (1, 2), B: (1, 2)}).digest != Recipe.mean([A, B]).digest, "other last bits"


def test_coefficients_for_each_tensor_are_a_part_of_the_name() -> None:
    by_tensor = replace(Recipe.linear({A: (1, 1), B: (1, 1)}), coefficients=C)
    assert len({by_tensor.digest, replace(by_tensor, coefficients=None).digest}) == 2


@pytest.mark.parametrize(
    ("coefficients", "by_tensor"),
    [
        (((1, 1),), None),
        (((1, 2), (0, 1)), None),
        (((1, 2), (2, 4)), None),
        (((1, 2), (1, -2)), None),
        ((0.5, 0.5), None),
        (((1, 2), 0.5), None),
        (((1, 2), (1, 2)), C),
    ],
    ids=["one", "zero", "not reduced", "negative below", "numbers", "mixed", "twice"],
)
def test_a_linear_recipe_that_has_another_name_or_means_nothing_is_refused(
    coefficients: tuple[float | tuple[int, int], ...], by_tensor: Digest | None
) -> None:
    ingredients = tuple(Ingredient(*pair) for pair in zip((A, B), coefficients, strict=False))
    with pytest.raises(ValueError, match=r"linear/1|each tensor"):
        Recipe(ingredients, Arithmetic.LINEAR_1, coefficients=by_tensor)


def test_ties_names_its_base_first_and_has_a_name_of_its_own() -> None:
    ties = Recipe.ties(A, [B, C])
    # As above: a changed value here is a changed name.
    expected = "sha256:1ab131d810cf9b15aa088508f08da722ca8727601e635f65530bc5f506198287"
    assert ties.digest == expected
    assert ties.checkpoints == ties.files == (A, B, C)
    others = [Recipe.ties(B, [A, C]), Recipe.ties(A, [C, B]), Recipe.linear(dict.fromkeys([A, B, C], (1, 1)))]
    assert len({each.digest for each in (ties, *others)}) == 4
    for wrong in ({"ingredients": Recipe.mean([A, B, C]).ingredients}, {"coefficients": D}):
        with pytest.raises(ValueError, match="ties/1"):
            replace(ties, **wrong)
    with pytest.raises(ValueError, match="two or more"):
        Recipe.ties(A, [B])


def test_a_grouped_recipe_is_flattened_and_has_a_name_of_its_own() -> None:
    # As above: a changed value here is a changed name.
    expected = "sha256:526d650c39ec99611141afcd71cdd101004158dcb0f9d1cd7f5d41de55d860e6"
    grouped = Recipe.grouped([[A, B], [C]])
    assert grouped.digest == expected
    assert [(i.checkpoint, i.coefficient) for i in grouped.ingredients] == [
        (A, (1, 4)),
        (B, (1, 4)),
        (C, (1, 2)),
    ]
    assert list(grouped.sums) == [(range(2), 0.25), (range(2, 3), 0.5)]
    assert list(grouped.factors) == [1, 1, 1]
    others = [Recipe.grouped(g) for g in ([[B, A], [C]], [[C], [A, B]], [[A], [B, C]], [[A], [B], [C]])]
    same = Recipe.linear({A: (1, 4), B: (1, 4), C: (1, 2)})
    assert len({each.digest for each in (grouped, *others, same, Recipe.mean([A, B, C]))}) == 7
    two_and_two, four = (Recipe.grouped(g) for g in ([[A, B], [C, D]], [[A], [B], [C], [D]]))
    assert two_and_two.ingredients == four.ingredients
    assert len({two_and_two.digest, four.digest, Recipe.mean([A, B, C, D]).digest}) == 3, "other last bits"


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([], "at least one ingredient"),
        ([[A, B]], "one group alone is mean/1"),
        ([[A], []], "two or more groups"),
        ([[A, B], [B]], "names each checkpoint once"),
    ],
)
def test_groups_that_mean_nothing_are_refused(groups: list[list[Digest]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Recipe.grouped(groups)


GROUPED = Recipe.grouped([[A, B], [C]])


@pytest.mark.parametrize(
    "other",
    [
        {"groups": None},
        {"groups": (1, 2)},
        {"groups": (2, 2)},
        {"groups": (3,)},
        {"groups": (2, 1, 0)},
        {"arithmetic": Arithmetic.MEAN_1},
        {"arithmetic": Arithmetic.LINEAR_1},
        {"coefficients": D},
        {"ingredients": Recipe.mean([A, B, C]).ingredients},
        {"ingredients": GROUPED.ingredients[::-1]},
    ],
    ids=str,
)
def test_a_grouped_recipe_that_does_not_hold_together_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"/1"):
        replace(GROUPED, **other)


def test_without_an_ingredient_it_stays_a_mean_of_its_kind() -> None:
    grouped = replace(Recipe.grouped([[A, B], [C], [D]]), overlay=A)
    assert grouped.without(0) == Recipe.grouped([[B], [C], [D]])
    assert grouped.without(2) == Recipe.grouped([[A, B], [D]])
    assert GROUPED.without(2) == Recipe.mean([A, B])
    assert Recipe.mean([A, B, C]).without(1) == Recipe.mean([A, C])
    for recipe in (Recipe.mean([A]), Recipe.linear({A: (1, 2), B: (1, 2)})):
        with pytest.raises(ValueError, match="no recipe of its kind"):
            recipe.without(0)


def test_the_ensemble_like_a_soup_lets_its_groups_count_the_same() -> None:
    assert Ensemble.like(Recipe.grouped([[A, B], [C]])).weights == (1, 1, 2)
    assert Ensemble.like(Recipe.grouped([[A, B], [C, D]])) == Ensemble.of([A, B, C, D])
    assert Ensemble.like(Recipe.mean([B, A])) == Ensemble.of([B, A])


def test_a_rule_for_statistics_is_a_part_of_the_name() -> None:
    rules: list[OverlayRule | Digest | None] = [
        OverlayRule("training", 512, "bn/1", B),
        OverlayRule("training", 513, "bn/1", B),
        OverlayRule("training", 512, "bn/1", A),
        A,
        None,
    ]
    recipes = [replace(Recipe.mean([A, B]), overlay=rule) for rule in rules]
    assert len({recipe.digest for recipe in recipes}) == 5
    assert {recipe.average for recipe in recipes} == {recipes[-1]}
    # As above: a changed value here is a changed name.
    assert recipes[0].digest == "sha256:fd62e5576a37befac83b291b77657736902fc55bf4efa5ea37fd696e7bb6fe11"
    with pytest.raises(ValueError, match="at least one example"):
        OverlayRule("training", 0, "bn/1", B)


def test_a_mean_has_no_ratios_and_no_coefficients_for_each_tensor() -> None:
    with pytest.raises(ValueError, match="equal coefficients"):
        Recipe((Ingredient(A, (1, 2)), Ingredient(B, (1, 2))))
    with pytest.raises(ValueError, match="equal coefficients"):
        replace(Recipe.mean([A, B]), coefficients=C)


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


QUESTION = Question(task="t", task_version="1", task_args=(("k", "v"),), split="s", dataset=A, n=3)
CONDITIONS = Conditions(dtype="float32", tf32=False, batch_size=2, device="cpu", torch_version="2")
CHANGED_QUESTION: dict[str, Any] = {
    "task": "u",
    "task_version": "2",
    "task_args": (("k", "w"),),
    "split": "r",
    "dataset": B,
    "n": 4,
    "modules": (("own", "1"),),
    "distributions": (("numpy", "2"),),
    "aim": "mean of a=1, b=1",
}
CHANGED_CONDITIONS: dict[str, Any] = {
    "dtype": "bfloat16",
    "tf32": True,
    "batch_size": 3,
    "device": "NVIDIA H100",
    "torch_version": "3",
    "software": (("CUDA", "12"),),
}


def test_every_field_of_a_protocol_is_part_of_its_name() -> None:
    protocol = EvaluationProtocol(QUESTION, CONDITIONS)
    for part, changed in (("question", CHANGED_QUESTION), ("conditions", CHANGED_CONDITIONS)):
        before = getattr(protocol, part)
        assert {*changed} == {field.name for field in fields(before)}
        for name, value in changed.items():
            other = replace(protocol, **{part: replace(before, **{name: value})})
            assert other.digest != protocol.digest, name
            assert getattr(other, part).digest != before.digest, name
            assert len(protocol.differences(other)) == 1, name


def test_a_protocol_keeps_the_name_that_it_had_before_it_had_two_parts() -> None:
    flat = {**asdict(QUESTION), **asdict(CONDITIONS)}
    empty = {name: flat.pop(name) for name in ("modules", "distributions", "software", "aim")}
    assert not any(empty.values())
    assert EvaluationProtocol(QUESTION, CONDITIONS).digest == digest_of_document(flat)
    question = replace(QUESTION, modules=(("own", "1"),), distributions=(("numpy", "2"),))
    conditions = replace(CONDITIONS, software=(("CUDA", "12"),))
    whole = {**asdict(question), **asdict(conditions)}
    del whole["aim"]  # not set
    assert EvaluationProtocol(question, conditions).digest == digest_of_document(whole)


def test_differences_of_protocols_are_told_one_by_one_in_plain_words() -> None:
    ours = EvaluationProtocol(
        replace(
            QUESTION, task_args=(("data", "one"), ("kind", "dense")), modules=(("own", "1"), ("same", "3"))
        ),
        replace(CONDITIONS, device="NVIDIA H100", software=(("CUDA", "12.4"), ("driver", "550"))),
    )
    theirs = EvaluationProtocol(
        replace(
            QUESTION, task_args=(("data", "two"), ("kind", "dense")), modules=(("same", "3"), ("new", "4"))
        ),
        replace(CONDITIONS, device="NVIDIA A10", tf32=True, software=(("CUDA", "12.4"), ("driver", "535"))),
    )
    assert ours.differences(theirs) == (
        "argument data: one here, two there",
        "module new: none here, 4 there",
        "module own: 1 here, none there",
        "TF32: False here, True there",
        "device: NVIDIA H100 here, NVIDIA A10 there",
        "software driver: 550 here, 535 there",
    )
    assert ours.differences(ours) == ()


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
