import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stockpot.errors import BadTask
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.dataset_digest import digest_of_examples
from stockpot.testing import tiny

EXAMPLE = {"x": torch.arange(4.0), "y": (1, "cat", [np.float32(0.5), True]), "z": np.zeros((2, 2))}
PLAIN = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


def digest(*examples: Any) -> str:
    return digest_of_examples(examples, "test")


def test_equal_content_has_one_digest() -> None:
    assert digest(EXAMPLE, EXAMPLE) == digest(copy.deepcopy(EXAMPLE), copy.deepcopy(EXAMPLE))
    assert digest(torch.arange(6).reshape(2, 3).T) == digest(torch.tensor([[0, 3], [1, 4], [2, 5]]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.float16)),
        (torch.zeros(2), np.zeros(2, dtype=np.float32)),
        (np.zeros(2), np.array([0.0, 1.0])),
        (1, 1.0),
        (1, True),
        ("1", 1),
        ((1, 2), [1, 2]),
        (["ab", "c"], ["a", "bc"]),
        ([[1], 2], [[1, 2]]),
        ({"a": 1}, [("a", 1)]),
        ([], ()),
    ],
)
def test_other_content_has_another_digest(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


@given(PLAIN, PLAIN)
def test_digests_agree_exactly_where_the_content_does(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (repr(one) == repr(other))


def test_the_order_of_examples_counts() -> None:
    assert digest(1, 2) != digest(2, 1)


def test_what_has_no_content_is_refused_with_its_place() -> None:
    with pytest.raises(
        BadTask, match=r"example 1 of split 'test' holds something of type object(?s:.*)digest\(split\)"
    ):
        digest(EXAMPLE, {"x": object()})
    with pytest.raises(BadTask, match="example 0"):
        digest(np.array([object()], dtype=object))


class Drawn(Sequence[float]):
    """Examples that are drawn when they are read."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: Any) -> Any:
        return self._draw()


def test_examples_drawn_from_torchs_generator_have_one_name() -> None:
    drawn = Drawn(lambda: torch.rand(()).item())
    torch.manual_seed(3)
    before = torch.get_rng_state()
    name = digest_of_examples(drawn, "test")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert digest_of_examples(drawn, "test") == name


class Opened(tiny.TinyTask):
    """Draws some of its examples when a split is opened."""

    def __init__(self, draw: Callable[[int], Sequence[int]]) -> None:
        super().__init__(n="20")
        self._draw = draw

    def examples(self, split: str) -> Any:
        found = super().examples(split)
        return [found[int(place)] for place in self._draw(len(found))]


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: torch.randperm(n)[:9],
        lambda n: np.random.permutation(n)[:9],  # noqa: NPY002
        lambda n: random.sample(range(n), 9),
    ],
)
def test_a_split_that_is_drawn_when_it_is_opened_has_one_name(draw: Callable[[int], Sequence[int]]) -> None:
    def name() -> str:
        task = CheckedTask(Opened(draw), "birds:Birds")
        return task.digest("test", task.examples("test"))

    before = random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    first = name()
    after = random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after, "the generators of the program around are left alone"
    draw(100)
    assert name() == first


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: np.random.default_rng().permutation(n)[:9],
        lambda n: random.SystemRandom().sample(range(n), 9),
        lambda n: range(random.SystemRandom().randrange(1, n)),
    ],
)
def test_a_split_that_is_another_each_time_it_is_opened_is_refused(
    draw: Callable[[int], Sequence[int]],
) -> None:
    task = CheckedTask(Opened(draw), "birds:Birds")

    def name() -> None:
        for _ in range(10):  # the same number may be drawn twice
            task.digest("test", task.examples("test"))

    with pytest.raises(BadTask, match="others each time they are read"):
        name()


@pytest.mark.parametrize("draw", [random.random, np.random.default_rng(1).random], ids=["python", "numpy"])
def test_examples_drawn_otherwise_are_refused_with_what_to_change(draw: Callable[[], float]) -> None:
    with pytest.raises(BadTask, match="others each time they are read") as error:
        digest_of_examples(Drawn(draw), "test")
    assert "seeded anew with each example's index" in error.value.mend
