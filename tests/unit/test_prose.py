"""Messages are right for one and for several."""

import pytest

from stockpot.prose import counted


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (12345, "12,345 runs")]
)
def test_a_number_goes_with_its_noun(number: int, told: str) -> None:
    assert counted(number, "run") == told


def test_a_noun_may_have_a_plural_of_its_own() -> None:
    assert [counted(number, "pass", "passes") for number in (1, 2)] == ["1 pass", "2 passes"]
