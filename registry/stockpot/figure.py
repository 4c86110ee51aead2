"""The paper's first figure: candidates and soups, report score against the mean over shifts."""

import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from stockpot.entities import MEAN_OF_SHIFTS, Curve, SoupReport
from stockpot.workflow.publishing.markdown import folded
from stockpot.workflow.selecting.rows import POINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "*", "P", "D", "X")
COLOURS = ("#1b1b1b", "#0b6fb8", "#d1495b", "#3b8f5a", "#8a5fbf")
GREY = "#7a8793"
MOST = 40
"""Characters that are shown of a name: there is room for no more."""

Dot = tuple[float, float]
Range = tuple[float, float]


class DrawnOnce:
    """Draws, and keeps what was drawn last: a version's description and its page show the same figure."""

    def __init__(self) -> None:
        self._last: tuple[SoupReport, bytes] | None = None

    def __call__(self, report: SoupReport) -> bytes:
        """As `draw`."""
        if self._last is None or self._last[0] != report:
            self._last = report, draw(report)
        return self._last[1]


def draw(report: SoupReport) -> bytes:
    """Draw the figure as PNG, in points or the task's own unit. Without shifted splits it is report against
    held-out score. Beside it stands the way from the base to the soup, where that was measured.

    A candidate that diverged, or a soup that collapsed, would squeeze all others into a corner: the axes hold
    the bulk of them all, and a line of text tells what lies outside. Names of splits and methods are drawn as
    they are written, in one line, whatever they hold.

    Source: Wortsman et al. 2022, figure 1.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    request = report.request
    across = request.report_on if request.shifts else request.select_on
    up = MEAN_OF_SHIFTS if request.shifts else request.report_on
    size, unit = (POINT, "points") if report.unit is None else (1.0, report.unit)
    candidates = _candidates(report, size)
    soups = {
        f"{folded(row.label, MOST)} ({len(row.recipe.ingredients)})": (
            row.scores[across] / size,
            row.scores[up] / size,
        )
        for row in (*report.rows, *([report.base] if report.base else []))
    }
    panels = 1 if report.curve is None else 2
    figure = Figure(figsize=(6.4 * panels, 4.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(1, panels, 1)
    if report.curve is not None:
        _curve(figure.add_subplot(1, panels, 2), report, report.curve, size, unit)
    _scatter(axes, candidates, soups)
    dots = [*candidates, *_finite(soups.values())]
    if dots:
        horizontal, vertical = limits(dots, report.unit)
        axes.set_xlim(horizontal)
        axes.set_ylim(vertical)
        missing = _outside(candidates, soups, horizontal, vertical)
        axes.set_title(f"outside: {missing}" if missing else "", loc="left", fontsize=9, color=GREY)
    axes.set_xlabel(_with_unit(across, unit))
    axes.set_ylabel(_with_unit(up, unit))
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=9)
    return _png(figure)


def _curve(axes: "Axes", report: SoupReport, curve: Curve, size: float, unit: str) -> None:
    """Scores on the way from the base to the soup, on the splits that it was measured on: the held-out one,
    and the mean of the shifted ones where there are several.
    """
    shifts = report.request.shifts
    for place, split in enumerate((report.request.select_on, *([MEAN_OF_SHIFTS] if shifts else []))):
        shares = [point.share for point in curve.points]
        values = [point.scores[split] / size for point in curve.points]
        axes.plot(shares, values, marker="o", markersize=4, color=COLOURS[place], label=folded(split, MOST))
    axes.set_xlabel(f"share of the {folded(curve.label, MOST)}; 0 is the base")
    axes.set_ylabel(_with_unit("score", unit))
    axes.grid(alpha=0.25)
    axes.legend(loc="best", fontsize=9)


def _png(figure: "Figure") -> bytes:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a $ in a name is no formula
    png = io.BytesIO()
    with warnings.catch_warnings():
        # No font has every character: it draws a box for those that it lacks.
        warnings.filterwarnings("ignore", message="Glyph ", category=UserWarning)
        figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _candidates(report: SoupReport, size: float) -> list[Dot]:
    """Those that have a score on the untouched splits, in units of this size."""
    shifts = report.request.shifts
    pairs = ((c.report, c.mean_of_shifts) if shifts else (c.held_out, c.report) for c in report.candidates)
    return _finite((x / size, y / size) for x, y in pairs if x is not None and y is not None)


def _with_unit(split: str, unit: str) -> str:
    return ", ".join(filter(None, (folded(split, MOST), folded(unit, MOST))))


def _finite(dots: Iterable[Dot]) -> list[Dot]:
    """A score that is NaN or infinite has no place on paper."""
    return [dot for dot in dots if all(map(math.isfinite, dot))]


def _scatter(axes: "Axes", candidates: Sequence[Dot], soups: Mapping[str, Dot]) -> None:
    axes.scatter(*_columns(candidates), s=28, color=GREY, alpha=0.75, label="candidates", zorder=2)
    for place, (label, dot) in enumerate(soups.items()):
        colour = COLOURS[place % len(COLOURS)]
        axes.scatter(
            *dot,
            s=190 if place else 110,
            marker=MARKERS[place % len(MARKERS)],
            facecolors=colour if place else "none",
            edgecolors=colour,
            linewidths=1.6,
            label=label,
            zorder=3,
        )


def _outside(candidates: Sequence[Dot], soups: Mapping[str, Dot], across: Range, up: Range) -> str:
    """What the axes do not hold."""

    def hidden(dot: Dot) -> bool:
        return not (across[0] <= dot[0] <= across[1] and up[0] <= dot[1] <= up[1])

    named = [f"{label} at {dot[0]:.4g}, {dot[1]:.4g}" for label, dot in soups.items() if hidden(dot)]
    count = sum(map(hidden, candidates))
    return "; ".join([*named, *([f"{count} candidate{'s' * (count > 1)}"] if count else [])])


def _columns(dots: Sequence[Dot]) -> tuple[list[float], list[float]]:
    return [x for x, _ in dots], [y for _, y in dots]


def limits(dots: Sequence[Dot], unit: str | None = None) -> tuple[Range, Range]:
    """What the axes hold, across and up: candidates and soups without far outliers."""
    across, up = (_bulk(values, 1.0 if unit is None else _grain(values)) for values in _columns(dots))
    return across, up


def _grain(values: Sequence[float]) -> float:
    """A difference that is worth seeing, of scores in whatever unit."""
    return max(map(abs, values)) / 1000 or 1.0


def _bulk(values: Sequence[float], grain: float) -> Range:
    """The range of the values without far outliers (Tukey's outer fences), with some room."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    fence = 3 * max(high - low, 0.1 * grain)
    inside = [value for value in ordered if low - fence <= value <= high + fence]
    room = 0.12 * max(inside[-1] - inside[0], grain)
    return inside[0] - room, inside[-1] + room
