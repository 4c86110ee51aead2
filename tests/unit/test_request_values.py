"""A request from a program: what is near the right type is taken, the rest is refused in one message."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stockpot.entities import Accept, Direction, SoupRequest
from stockpot.errors import BadRequest


def _request(**fields: Any) -> SoupRequest:
    return SoupRequest(**{"model": "birds", "task": "arrays", "sweep": "1f0c", **fields})


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"task_args": {"folder": Path("/data")}}, {"task_args": {"folder": "/data"}}),
        ({"task_args": {"n": 24, "rate": 0.5}}, {"task_args": {"n": "24", "rate": "0.5"}}),
        ({"accept": "better", "direction": "min"}, {"accept": Accept.BETTER, "direction": Direction.MIN}),
        ({"shifts": "shifted", "methods": ["greedy"]}, {"shifts": ("shifted",), "methods": ("greedy",)}),
        ({"max_seconds": np.int64(60), "margin": np.float32(-1)}, {"max_seconds": 60.0, "margin": -1.0}),
        ({"top": np.int64(8), "by": "accuracy"}, {"top": 8, "by": "accuracy"}),
    ],
)
def test_what_is_near_becomes_the_same_request(given: dict[str, Any], taken: dict[str, Any]) -> None:
    made = _request(**given)
    assert made == _request(**taken)
    for name, value in taken.items():
        assert type(getattr(made, name)) is type(value)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"task_args": {"n": None}}, "task_args must be a mapping of texts to texts, numbers or paths"),
        ({"task_args": {"on": True}}, "task_args must be"),
        ({"task_args": [("n", "24")]}, "task_args must be"),
        ({"accept": "worse"}, "accept must be one of not_worse, better, got 'worse'"),
        ({"shifts": {"fog", "night"}}, "shifts must be a tuple of texts"),
        ({"methods": (print,)}, "methods must be a tuple of texts"),
        ({"top": 2.5, "by": "accuracy"}, "top must be a whole number or None, got 2.5"),
        ({"top": True, "by": "accuracy"}, "top must be a whole number or None, got True"),
        ({"margin": "half"}, "margin must be a number, or a percentage such as '-1%', got 'half'"),
        ({"margin": "5%%"}, "margin must be a number, or a percentage"),
        ({"margin": None}, "margin must be a number or a text, got None"),
        ({"any_base": "no"}, "any_base must be True or False, got 'no'"),
        ({"model": None}, "model must be a text, got None"),
        ({"sweep": 17}, "sweep must be a text or None, got 17"),
    ],
)
def test_what_is_not_near_is_refused_by_name(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(BadRequest, match=fault.replace("(", r"\(")):
        _request(**given)


@pytest.mark.parametrize("text", ["a\0b", "a\ud800"], ids=["NUL", "half a character"])
@pytest.mark.parametrize(
    "field", ["model", "task", "sweep", "filter", "weights", "report_on", "shifts", "methods", "task_args"]
)
def test_a_text_that_no_database_takes_is_refused_by_name(field: str, text: str) -> None:
    for value in ({"a": text}, {text: "a"}) if field == "task_args" else (text,):
        with pytest.raises(BadRequest, match=f"{field} holds 'a") as caught:
            _request(**{field: value})
        str(caught.value).encode()


@pytest.mark.parametrize(
    "named", [{"shifts": ""}, {"shifts": ("fog", " ")}, {"select_on": ""}, {"report_on": ""}]
)
def test_a_split_has_a_name(named: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="the name of a split is empty"):
        _request(**named)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(BadRequest, match="model must be a text") as caught:
        _request(model=3, top="8", shifts=0)
    assert str(caught.value).count(" must be ") == 3
