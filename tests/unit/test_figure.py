"""The figure shows what is worth seeing."""

from stockpot.figure import Dot, limits


def _shown(dot: Dot, dots: list[Dot]) -> bool:
    across, up = limits(dots)
    return across[0] < dot[0] < across[1] and up[0] < dot[1] < up[1]


def test_a_soup_that_is_better_than_every_candidate_is_on_the_paper() -> None:
    candidates = [(89.9, 70.4), (90.2, 68.7), (90.4, 68.9), (90.8, 69.3), (91.0, 70.1), (91.1, 69.5)]
    soup, collapsed = (91.38, 69.79), (9.87, 9.87)
    dots = [*candidates, soup, collapsed]
    assert all(_shown(dot, dots) for dot in (*candidates, soup))
    assert not _shown(collapsed, dots), "it would squeeze all others into a corner"
