"""Entities as JSON, and back."""

import json
import math

import pytest

from registry.documents import from_document, to_document
from registry.entities import Accept, Digest, Recipe, Selection, SoupRequest, Step
from registry.errors import StockpotError

A, B = Digest("sha256:a"), Digest("sha256:b")


def test_an_entity_survives_json_nan_included() -> None:
    recipe = Recipe.mean([A, B])
    steps = (
        Step(recipe.digest, (A, B), math.nan, None, kept=False),
        Step(recipe.digest, (A,), None, 0.5, kept=True),
    )
    selection = Selection("greedy", "not_worse", steps, recipe, math.inf)
    text = json.dumps(to_document(selection), allow_nan=False)
    back = from_document(Selection, json.loads(text))
    assert math.isnan(back.steps[0].score or 0.0)
    assert (back.steps[1], back.recipe, back.score) == (steps[1], recipe, math.inf)
    assert back.recipe.digest == recipe.digest


def test_a_request_from_outside_is_checked_field_by_field() -> None:
    request = SoupRequest(model="m", task="t", sweep="s", accept=Accept.BETTER, shifts=("fog",))
    assert from_document(SoupRequest, to_document(request)) == request
    with pytest.raises(StockpotError, match="no SoupRequest") as caught:
        from_document(SoupRequest, {"model": 3, "task": "t", "sweep": "s", "colour": "red"})
    assert {fault.split(":")[0] for fault in caught.value.faults} == {"model", "colour"}
