"""Where lines, dots and colours of the page's pictures are: numbers for the template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stockpot.entities import SoupReport
from stockpot.workflow.publishing.domains_told import (
    NOT_DOMINATED,
    WORST,
    domain_cells,
    domain_columns,
    domain_rows,
    domain_values,
)
from stockpot.workflow.publishing.verdict import signed
from stockpot.workflow.reporting.searches import Attempt, Search
from stockpot.workflow.reporting.version_page import VersionPage
from stockpot.workflow.selecting.rows import POINT, score

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 40
"""Room around the lines, for numbers and words."""
BELOW, ABOVE = (179, 88, 6), (33, 102, 172)
"""Orange and blue: people who see no red or no green tell them apart (ColorBrewer's PuOr and RdBu)."""
DARK = 0.6
"""From this share of the full colour on, numbers are white."""
LEAST = 0.01
"""The difference that has the full colour at least, as a share of the scores: less may be noise."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One trial."""

    x: float
    y: float
    kind: str
    """kept, rejected, bound (its score is at most this), or outside (far below what the axis holds)."""
    told: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A number at an axis."""

    at: float
    told: str


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The trials of a search, from left to right."""

    width: int
    height: int
    left: int
    right: int
    """The axes' ends."""
    top: int
    bottom: int
    dots: tuple[Dot, ...]
    line: str
    """The incumbent's score, as an SVG path."""
    up: tuple[Tick, ...]
    across: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A number on its colour."""

    told: str
    title: str
    style: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A difference as a bar to the left or right of the middle."""

    start: float
    """In percent of the whole width."""
    length: float
    kind: str


def trajectory(search: Search, unit: str | None) -> Trajectory:
    """Scores up, trials across. A trial far below the others lies at the lower edge, and says so."""
    values = [search.start, *(one.incumbent for one in search.attempts)]
    low, high = _range(values, [found for one in search.attempts if (found := _value(one)) is not None])
    last = max(1, len(search.attempts))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(number: float) -> float:
        return round(LEFT + (right - LEFT) * number / last, 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - TOP) * (min(max(value, low), high) - low) / (high - low), 1)

    start = f"{search.start_name}: {score(search.start, unit)}, {search.start_told}"
    dots = [Dot(x(0), y(search.start), "kept", start)]
    path = [f"M{x(0)} {y(search.start)}"]
    for number, one in enumerate(search.attempts, 1):
        value = _value(one)
        kind = "kept" if one.kept else "bound" if one.score is None else "rejected"
        if value is None or value < low:
            kind = "outside"
        dots.append(Dot(x(number), y(low if value is None else value), kind, _told(number, one, unit)))
        path.append(f"H{x(number)}V{y(one.incumbent)}")
    return Trajectory(
        WIDTH,
        HEIGHT,
        LEFT,
        right,
        TOP,
        bottom,
        tuple(dots),
        "".join(path),
        tuple(Tick(y(value), score(value, unit)) for value in _ticks(low, high)),
        tuple(Tick(x(value), f"{value:g}") for value in _ticks(0, last, whole=True)),
    )


def by_domain(report: SoupReport) -> list[tuple[str, list[Cell]]]:
    """Each line of the table by domain: its label, and scores on the colour of their gain."""
    lines, names = domain_rows(report), domain_columns(report)
    if not lines:
        return []
    values = [domain_values(row, report) for row in lines]
    best = domain_values(report.rows[0], report)
    gains = [{name: found[name] - best[name] for name in found if name in best} for found in values]
    full = _full([gain for each in gains for gain in each.values()], [*best.values()])

    def cell(row: int, name: str) -> Cell:
        if name not in values[row]:
            return Cell("", f"{lines[row].label} on {name}: not known", "", "unknown")
        gain = gains[row].get(name)
        title = f"{lines[row].label} on {name}"
        if gain is not None:
            title += f": {signed(gain, report.unit)} compared with the best single"
        style = "" if gain is None else _colour(gain / full)
        return Cell(score(values[row][name], report.unit), title, style)

    return [
        (domain_cells(row, report)[0], [cell(place, name) for name in names])
        for place, row in enumerate(lines)
    ]


def front(report: SoupReport) -> Trajectory | None:
    """Each of those lines as a dot: up its worst domain, across the mixture. None where there are none."""
    values = [(row, domain_values(row, report)) for row in domain_rows(report)]
    split = report.request.report_on
    known = [
        (domain_cells(row, report)[0], row.scores[split], found[WORST])
        for row, found in values
        if WORST in found and math.isfinite(row.scores.get(split, math.nan) + found[WORST])
    ]
    if not known:
        return None
    left, right_most = _around([mixture for _, mixture, _ in known])
    low, high = _around([worst for _, _, worst in known])
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(value: float) -> float:
        return round(LEFT + (right - LEFT) * (value - left) / (right_most - left), 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - TOP) * (value - low) / (high - low), 1)

    def told(label: str, mixture: float, worst: float) -> str:
        return f"{label}: {score(mixture, report.unit)}, worst domain {score(worst, report.unit)}"

    dots = [
        Dot(
            x(mixture),
            y(worst),
            "kept" if label.endswith(NOT_DOMINATED) else "rejected",
            told(label, mixture, worst),
        )
        for label, mixture, worst in known
    ]
    up = tuple(Tick(y(value), score(value, report.unit)) for value in _ticks(low, high))
    across = tuple(Tick(x(value), score(value, report.unit)) for value in _ticks(left, right_most))
    return Trajectory(WIDTH, HEIGHT, LEFT, right, TOP, bottom, tuple(dots), "", up, across)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """All of them, and some room."""
    low, high = min(values), max(values)
    room = 0.08 * max(high - low, max(map(abs, values)) / 1000, 1e-6)
    return low - room, high + room


def _value(one: Attempt) -> float | None:
    value = one.bound if one.score is None else one.score
    return value if value is not None and math.isfinite(value) else None


def _told(number: int, one: Attempt, unit: str | None) -> str:
    value = "no score" if one.bound is None else f"at most {score(one.bound, unit)}"
    if one.score is not None:
        value = score(one.score, unit)
    return f"{number}. {one.what}: {value}, {'accepted' if one.kept else 'rejected'}"


def _range(incumbents: Sequence[float], tried: Sequence[float]) -> tuple[float, float]:
    """All of the incumbents, and of the trials those that are no far outliers: Tukey's outer fence below."""
    ordered = sorted([*incumbents, *tried])
    quarter, three = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]
    grain = max(map(abs, incumbents)) / 1000 or 1e-6
    fence = quarter - 3 * max(three - quarter, grain)
    inside = [value for value in ordered if value >= min(fence, *incumbents)]
    room = 0.08 * max(inside[-1] - inside[0], grain)
    return inside[0] - room, inside[-1] + room


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers between the two, four to nine of them."""
    size = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(size * times for times in (1, 2, 5, 10) if (high - low) / (size * times) <= 8)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def heat(page: VersionPage, unit: str | None) -> list[list[Cell]]:
    """For each ingredient its own score, behind the barriers to those before it."""
    around, ends = page.neighbourhood, [one.held_out for one in page.ingredients]
    shown = len(page.ingredients) - around.left_out
    if not around.barriers:
        return []
    by_place = {(one.first, one.second): one for one in around.barriers}
    full = _full([one.difference for one in around.barriers], ends)
    rows = []
    for b in range(shown):
        cells = []
        for a in range(b):
            found = by_place[a, b]
            names = f"{page.ingredients[a].name} and {page.ingredients[b].name}"
            if found.difference is None or found.midpoint is None:
                cells.append(Cell("", f"{names}: not evaluated", "", "unknown"))
                continue
            title = f"{names}: {score(found.midpoint, unit)} half-way between them"
            cells.append(Cell(signed(found.difference, unit), title, _colour(found.difference / full)))
        own = ends[b]
        told = "" if own is None else score(own, unit)
        rows.append([*cells, Cell(told, f"{page.ingredients[b].name} by itself", "", "own")])
    return rows


def bars(page: VersionPage) -> list[Bar | None]:
    """Of each ingredient's influence; None where it is not known."""
    found = [one.difference for one in page.neighbourhood.influences]
    full = _full(found, [page.row.scores.get(page.report.request.select_on)], least=LEAST / 4)
    made: list[Bar | None] = []
    for value in found:
        if value is None or not math.isfinite(value):
            made.append(None)
            continue
        length = 50 * min(1.0, abs(value) / full)
        kind = "above" if value >= 0 else "below"
        made.append(Bar(round(50 - length * (value < 0), 2), round(length, 2), kind))
    return made


def _full(differences: Sequence[float | None], scores: Sequence[float | None], least: float = LEAST) -> float:
    """The difference that has the full colour."""
    known = [abs(value) for value in differences if value is not None and math.isfinite(value)]
    sizes = [abs(value) for value in scores if value is not None and math.isfinite(value)]
    return max([*known, least * max(sizes, default=1.0)]) or POINT


def _colour(share: float) -> str:
    """From white to the full colour of its side, with text that can be read on it."""
    if not math.isfinite(share):
        return ""
    strength = min(1.0, abs(share)) ** 0.7  # one deep barrier leaves the others their colour
    colour = BELOW if share < 0 else ABOVE
    mixed = ", ".join(str(round(255 + (part - 255) * strength)) for part in colour)
    return f"background: rgb({mixed}); color: {'#fff' if strength > DARK else '#1b1b1b'}"
