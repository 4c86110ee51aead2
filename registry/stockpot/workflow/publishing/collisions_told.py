"""Which domain's runs cost which other domain, in words and as tables."""

from collections.abc import Iterator
from dataclasses import dataclass

from stockpot.entities import Comparison, SoupReport
from stockpot.prose import counted
from stockpot.workflow.publishing.verdict import gain, interval, is_open, row_of
from stockpot.workflow.selecting.rows import GENERALIST

COSTS_ARE = "above zero, the runs that were left out cost that domain; all of a table at once, by Holm"


@dataclass(frozen=True, slots=True)
class CollisionTable:
    """Of one split: a line for each domain left out, a column for each that is scored."""

    split: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]
    """Each domain left out, and its cells: a difference with its interval, or why there is none."""

    @property
    def head(self) -> tuple[str, ...]:
        """Above the lines."""
        return (f"{self.split}, without the runs of", *self.columns)


def collision_tables(report: SoupReport) -> list[CollisionTable]:
    """That of the report split, then that of the held-out one, on which the soup was chosen. None where the
    request does not compare all.
    """
    return [
        _table(report, split)
        for split in (report.request.report_on, report.request.select_on)
        if report.collisions and (split == report.request.report_on or _cells(report, split))
    ]


def _table(report: SoupReport, split: str) -> CollisionTable:
    known = sorted({scored for _, scored, _ in _cells(report, split)})
    columns = tuple(known or (report.mixture.examples if report.mixture else ()))
    lines = []
    for one in report.collisions or ():
        costs = one.costs.get(split, {})
        cells = [one.why or (interval(costs[name], report.unit) if name in costs else "") for name in columns]
        lines.append((one.domain, tuple(cells)))
    return CollisionTable(split, columns, tuple(lines))


def collision_sentences(report: SoupReport) -> Iterator[str]:
    """Which domain costs which other most on the report split, or that none is seen to; and what is not known
    of that.
    """
    if not report.collisions:
        return
    split, generalist = report.request.report_on, row_of(report, GENERALIST)
    name = generalist.label if generalist else GENERALIST
    cells = [(left, scored, cost) for left, scored, cost in _cells(report, split) if left != scored]
    judged = [cost for _, _, cost in _cells(report, split) if not is_open(cost)]
    costly = [cell for cell in cells if cell[2].low > 0]
    if costly:
        left, scored, cost = max(costly, key=lambda cell: cell[2].difference)
        yield (
            f"the runs of {left} cost {scored} most: without them, the {name} scores "
            f"{gain(cost, report.unit)} there on split {split}; of {counted(len(judged), 'difference')} at "
            "once, by Holm"
        )
    elif known := [cell for cell in cells if not is_open(cell[2])]:
        left, scored, cost = max(known, key=lambda cell: cell[2].difference)
        yield (
            f"no domain's runs are seen to cost another in the {name}: the greatest difference, on {scored} "
            f"without the runs of {left}, is {gain(cost, report.unit)} on split {split}; of "
            f"{counted(len(judged), 'difference')} at once, by Holm"
        )
    elif cells:
        yield f"whether a domain's runs cost another is not known: too few origins on split {split}"
    for one in report.collisions:
        if one.why:
            yield f"the {name} without the runs of {one.domain} is not measured: {one.why}"


def _cells(report: SoupReport, split: str) -> list[tuple[str, str, Comparison]]:
    """The domain left out, the one that is scored, and the difference."""
    return [
        (one.domain, scored, cost)
        for one in report.collisions or ()
        for scored, cost in one.costs.get(split, {}).items()
    ]
