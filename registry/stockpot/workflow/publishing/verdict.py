"""The outcome in words: what the terminal, the version's page and the flow's artifact open with."""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Comparison,
    EnsembleRow,
    ReportRow,
    SoupReport,
    SoupRequest,
    Step,
)
from stockpot.prose import counted

POINT = 0.01
"""Differences are told in points: hundredths of a score; of accuracy, percentage points."""

COLLAPSE = 0.1
"""A uniform soup that loses more than this share of the best single's held-out score collapses."""

BESIDE_SCORES = ("models", "inference cost")
"""Columns between a row's label and its scores. The cost is in forward passes per input."""


class Verdict(StrEnum):
    """What a paired interval says. The values sort as people filter by them."""

    BETTER = "better"
    NOT_BETTER = "not_better"
    WORSE = "worse"
    NO_SOUP = "no_soup"


PHRASES = {
    Verdict.BETTER: "better",
    Verdict.NOT_BETTER: "not shown to be better",
    Verdict.WORSE: "worse",
}


def row_of(report: SoupReport, method: str) -> ReportRow | None:
    """The row that this method ended in."""
    return next((row for row in report.rows if method in row.methods), None)


def judge(row: ReportRow, split: str) -> Verdict:
    """Compare with zero: the interval lies above, below, or holds it."""
    if not row.recipe.is_soup:
        return Verdict.NO_SOUP
    gain = row.versus_best[split]
    if gain.low > 0:
        return Verdict.BETTER
    return Verdict.WORSE if gain.high < 0 else Verdict.NOT_BETTER


def earns_alias(row: ReportRow, request: SoupRequest) -> bool:
    """Whether a soup may be called challenger: its interval's lower end lies above the margin."""
    return row.recipe.is_soup and row.versus_best[request.report_on].low > request.margin * POINT


def sentence(row: ReportRow, report_on: str) -> str:
    """The verdict in one line: on the report split, and under shift where that was measured."""
    verdict = judge(row, report_on)
    if verdict is Verdict.NO_SOUP:
        return f"{row.label}: no soup: the best single candidate alone"
    told = (
        f"{row.label}: {PHRASES[verdict]} than the best single candidate: "
        f"{gain(row.versus_best[report_on])} on split {report_on}"
    )
    shifted = row.versus_best.get(MEAN_OF_SHIFTS)
    if shifted is None:
        return told
    return (
        f"{told}; {PHRASES[judge(row, MEAN_OF_SHIFTS)]} under shift: {gain(shifted)}, a secondary comparison"
    )


def gain(comparison: Comparison) -> str:
    """A difference with its interval and n; McNemar's p where the scores are right or wrong."""
    p = comparison.mcnemar_p
    mcnemar = f", McNemar p = {p:.2g}" if p is not None else ""
    return (
        f"{points(comparison.difference)} points "
        f"({comparison.level:.0%} interval{':' if _is_open(comparison) else ''} {ends(comparison)}, "
        f"n = {comparison.n}{mcnemar})"
    )


def interval(comparison: Comparison) -> str:
    """A difference and its interval, short, for a table."""
    return f"{points(comparison.difference)} [{ends(comparison, ', ')}]"


def ends(comparison: Comparison, between: str = " to ") -> str:
    """The ends of the interval, in points; why there is none where it has no ends."""
    if _is_open(comparison):
        return "none, too few origins" if math.isfinite(comparison.difference) else "none"
    return between.join(map(points, (comparison.low, comparison.high)))


def _is_open(comparison: Comparison) -> bool:
    return math.isinf(comparison.low) and math.isinf(comparison.high)


def points(difference: float) -> str:
    """A signed difference in points."""
    return f"{difference / POINT:+.2f}"


def reasons(report: SoupReport) -> Iterator[str]:
    """Cheap reasons why the greedy soup is not better, from what was measured anyway."""
    held_out = report.request.select_on
    single = report.rows[0].scores[held_out]
    search = next((s for s in report.selections if s.method == "greedy"), None)
    row = row_of(report, "greedy")
    if search is None or row is None or judge(row, report.request.report_on) is Verdict.BETTER:
        return
    tried = [step for step in search.steps if len(step.tried) > 1]
    if tried:
        yield (
            f"half-way between the two best candidates the held-out score is {score_of(tried[0])}, "
            f"that of the best single is {single:.4f}"
        )
    yield f"greedy kept {sum(step.kept for step in tried)} of {counted(len(tried), 'further candidate')}"
    uniform = row_of(report, "uniform")
    if uniform is not None and single - uniform.scores[held_out] > COLLAPSE * abs(single):
        yield (
            "the uniform soup collapses: some candidates lie behind an error barrier (learning rate too "
            "high, heads not shared, another starting point)"
        )


def score_of(step: Step) -> str:
    """A step's score, or the bound at which its evaluation stopped."""
    if step.score is not None:
        return f"{step.score:.4f}"
    return "unknown" if step.bound is None else f"at most {step.bound:.4f}"


def columns(request: SoupRequest) -> tuple[str, ...]:
    """The table's splits, in order."""
    mean = (MEAN_OF_SHIFTS,) if request.shifts else ()
    return (request.select_on, request.report_on, *request.shifts, *mean)


def cells(row: ReportRow | EnsembleRow, splits: Sequence[str]) -> list[str]:
    """A line of the table: label, `BESIDE_SCORES`, and the scores, in points; empty where unknown."""
    scores = (f"{row.scores[split] / POINT:.2f}" if split in row.scores else "" for split in splits)
    return [row.label, str(len(row.recipe.checkpoints)), f"{row.inference_cost} x", *scores]
