"""Messages are right for one and for several, and names in them are not obeyed."""

import pytest

from stockpot.errors import StockpotError
from stockpot.prose import counted, one_line, visible


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (12345, "12,345 runs")]
)
def test_a_number_goes_with_its_noun(number: int, told: str) -> None:
    assert counted(number, "run") == told


def test_a_noun_may_have_a_plural_of_its_own() -> None:
    assert [counted(number, "pass", "passes") for number in (1, 2)] == ["1 pass", "2 passes"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\x1b[2J\x1b]0;owned\a", r"\x1b[2J\x1b]0;owned\x07"),
        ("tune\n2026-01-01 00:00:00 rank: done", r"tune\n2026-01-01 00:00:00 rank: done"),
        ("\u202eenut\ud800", r"\u202eenut\ud800"),
        ("学習率 é 👩‍🔬 [red]", "学習率 é 👩‍🔬 [red]"),
    ],
)
def test_what_a_name_holds_stays_in_its_line_and_is_not_obeyed(text: str, told: str) -> None:
    assert one_line(text) == told


def test_ends_of_lines_stay_where_a_text_may_have_several() -> None:
    assert visible("two\nlines\r\x1b") == "two\nlines\\r\\x1b"
    assert visible("refused\n\tIs the server running?") == "refused\n  Is the server running?"


def test_an_error_carries_no_control_characters_whoever_logs_it() -> None:
    error = StockpotError("run \x1b[2J", mend="rename \x9b", faults=["\u202eenut"])
    assert (error.what, error.mend, error.faults) == (r"run \x1b[2J", r"rename \x9b", (r"\u202eenut",))
    assert "\x1b" not in str(error)
