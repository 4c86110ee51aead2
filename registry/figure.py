"""The paper's first figure: candidates and soups, report score against the mean over shifts."""

import io

from registry.entities import MEAN_OF_SHIFTS, SoupReport

MARKERS = ("*", "P", "D", "X")


def draw(report: SoupReport) -> bytes:
    """Draw the figure as PNG. Without shifted splits the horizontal axis is the held-out score.

    Source: Wortsman et al. 2022, figure 1.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    request = report.request
    across = request.report_on if request.shifts else request.select_on
    up = MEAN_OF_SHIFTS if request.shifts else request.report_on
    figure = Figure(figsize=(6.4, 4.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [
        (c.report, c.mean_of_shifts) if request.shifts else (c.held_out, c.report) for c in report.candidates
    ]
    drawn = [(x, y) for x, y in points if x is not None and y is not None]
    if drawn:
        xs, ys = zip(*drawn, strict=True)
        axes.scatter(xs, ys, s=28, color="#7a8793", alpha=0.75, label="candidates", zorder=2)
    colours = ("#1b1b1b", "#0b6fb8", "#d1495b", "#3b8f5a")
    for place, row in enumerate(report.rows):
        axes.scatter(
            row.scores[across],
            row.scores[up],
            s=190 if place else 90,
            marker=MARKERS[(place - 1) % len(MARKERS)] if place else "o",
            facecolors="none" if not place else colours[place % len(colours)],
            edgecolors=colours[place % len(colours)],
            linewidths=1.6,
            label=f"{row.label} ({len(row.recipe.ingredients)})",
            zorder=3,
        )
    axes.set_xlabel(f"score on {across}")
    axes.set_ylabel(f"score, {up}" if request.shifts else f"score on {up}")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()
