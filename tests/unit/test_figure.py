"""The figure shows what is worth seeing."""

from dataclasses import replace

import pytest

from stockpot import figure
from stockpot.entities import Curve, CurvePoint, SoupReport
from stockpot.figure import Dot, draw, limits
from stockpot.testing.store_values import report, soup

HOSTILE = {
    "formula": "$50_$100",
    "half a formula": "x^{$",
    "command": r"\frac{ $\nope$",
    "control characters": "a\x00b\x1b[31m\tc\ud800",
    "end of line": "one\ntwo\r\nthree",
    "very long": "w" * 5000,
    "emoji": "fog \U0001f32b\ufe0f \U0001f468\u200d\U0001f469",
    "right to left": "\u05e2\u05e8\u05e4\u05dc \u202edlo",
    "nothing to see": "\u200b",
}


def _named(name: str) -> SoupReport:
    """A report whose split and method have this name; a soup lies outside of what the axes hold."""
    split = name.replace("\x00", "").replace("\ud800", "")  # those a request refuses
    made = report(soup("a", "b"), soup("c", "d"), select_on="validation", report_on=split)
    scores = {"validation": 0.5, split: 0.5}
    near, far = made.rows
    rows = (
        replace(near, label=f"{name} soup", scores=scores),
        replace(far, label=f"{name} and uniform soup", scores={**scores, split: 0.9}),
    )
    points = [replace(c, report=0.5 + 0.01 * i) for i, c in enumerate(made.candidates * 4)]
    way = tuple(CurvePoint(share, far.recipe.digest, scores) for share in (0.0, 1.0))
    base = replace(near, label="base", methods=(), scores=scores)
    return replace(made, rows=rows, candidates=tuple(points), base=base, curve=Curve(f"{name} soup", way))


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_name_is_drawn_as_it_is_written_whatever_it_holds(name: str) -> None:
    drawn = draw(_named(name))
    assert drawn.startswith(b"\x89PNG")
    assert drawn != draw(_named("a plain name")), "the name is on the paper"


def test_a_figure_that_is_shown_twice_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[SoupReport] = []

    def counted(one: SoupReport) -> bytes:
        drawn.append(one)
        return str(len(drawn)).encode()

    monkeypatch.setattr(figure, "draw", counted)
    once, (first, other) = figure.DrawnOnce(), (_named("one"), _named("another"))
    assert [once(one) for one in (first, _named("one"), other, first)] == [b"1", b"1", b"2", b"3"]


def _shown(dot: Dot, dots: list[Dot]) -> bool:
    across, up = limits(dots)
    return across[0] < dot[0] < across[1] and up[0] < dot[1] < up[1]


def test_a_soup_that_is_better_than_every_candidate_is_on_the_paper() -> None:
    candidates = [(89.9, 70.4), (90.2, 68.7), (90.4, 68.9), (90.8, 69.3), (91.0, 70.1), (91.1, 69.5)]
    soup, collapsed = (91.38, 69.79), (9.87, 9.87)
    dots = [*candidates, soup, collapsed]
    assert all(_shown(dot, dots) for dot in (*candidates, soup))
    assert not _shown(collapsed, dots), "it would squeeze all others into a corner"


def test_scores_that_have_no_bounds_are_drawn_as_they_are() -> None:
    made = _named("test")
    assert draw(replace(made, unit="nats")) != draw(replace(made, unit="")) != draw(made)


def test_small_differences_of_scores_in_their_own_unit_fill_the_paper() -> None:
    dots = [(0.0010, 0.0020), (0.0011, 0.0021), (0.0012, 0.0023)]
    across, up = limits(dots, "mm")
    assert across[1] - across[0] < 0.001
    assert all(_shown(dot, dots) for dot in dots)
    assert up[1] - up[0] < 0.001


def test_the_way_from_the_base_stands_beside_the_figure() -> None:
    made = _named("test")
    width = {
        key: int.from_bytes(png[16:20])
        for key, png in (("two", draw(made)), ("one", draw(replace(made, curve=None))))
    }
    assert width["two"] == 2 * width["one"]
    assert made.curve is not None
    lower = replace(made.curve.points[0], scores=dict.fromkeys(made.curve.points[0].scores, 0.1))
    assert draw(replace(made, curve=replace(made.curve, points=(lower, *made.curve.points[1:])))) != draw(
        made
    )
