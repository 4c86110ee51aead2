"""The outcome in words: what the terminal, the version's page and the flow's artifact open with."""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Candidate,
    Comparison,
    EnsembleRow,
    ReportRow,
    SoupReport,
    SoupRequest,
    Step,
)

POINT = 0.01
INGREDIENTS = "\n\n**Ingredients**\n"
"""Opens the last part of a version's description, which is cut where it is too long."""
"""Differences are told in points: hundredths of a score; of accuracy, percentage points."""

COLLAPSE = 0.1
"""A uniform soup that loses more than this share of the best single's held-out score collapses."""

BESIDE_SCORES = ("models", "inference cost")
"""Columns between a row's label and its scores. The cost is in forward passes per input."""


class Verdict(StrEnum):
    """What the paired interval on the report split says."""

    BETTER = "better than the best single candidate"
    WORSE = "worse than the best single candidate"
    NOT_BETTER = "not shown to be better than the best single candidate"
    NO_SOUP = "no soup: the best single candidate alone"


def row_of(report: SoupReport, method: str) -> ReportRow | None:
    """The row that this method ended in."""
    return next((row for row in report.rows if method in row.methods), None)


def judge(row: ReportRow, report_on: str) -> Verdict:
    """Compare with zero: the interval lies above, below, or holds it."""
    if not row.recipe.is_soup:
        return Verdict.NO_SOUP
    gain = row.versus_best[report_on]
    if gain.low > 0:
        return Verdict.BETTER
    return Verdict.WORSE if gain.high < 0 else Verdict.NOT_BETTER


def earns_alias(row: ReportRow, request: SoupRequest) -> bool:
    """Whether a soup may be called challenger: its interval's lower end lies above the margin."""
    return row.recipe.is_soup and row.versus_best[request.report_on].low > request.margin * POINT


def sentence(row: ReportRow, report_on: str) -> str:
    """The verdict in one line."""
    verdict = judge(row, report_on)
    if verdict is Verdict.NO_SOUP:
        return f"{row.label}: {verdict}"
    return f"{row.label}: {verdict}: {gain(row.versus_best[report_on])} on split {report_on}"


def gain(comparison: Comparison) -> str:
    """A difference with its interval and n; McNemar's p where the scores are right or wrong."""
    low, high = points(comparison.low), points(comparison.high)
    p = comparison.mcnemar_p
    mcnemar = f", McNemar p = {p:.2g}" if p is not None else ""
    return (
        f"{points(comparison.difference)} points "
        f"({comparison.level:.0%} interval {low} to {high}, n = {comparison.n}{mcnemar})"
    )


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
    yield f"greedy kept {sum(step.kept for step in tried)} of {len(tried)} further candidates"
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
    return [row.label, str(len(row.recipe.ingredients)), f"{row.inference_cost} x", *scores]


def markdown_table(report: SoupReport, splits: Sequence[str]) -> str:
    """The table for a page that shows Markdown, in points, and what is missing from it."""
    request = report.request
    head = ["", *BESIDE_SCORES, *splits, f"gain on {request.report_on}"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in report.table:
        comparison = row.versus_best.get(request.report_on)
        gained = (
            f"{points(comparison.difference)} [{points(comparison.low)}, {points(comparison.high)}]"
            if comparison
            else ""
        )
        lines.append("| " + " | ".join([*cells(row, splits), gained]) + " |")
    return "\n".join([*lines, *(f"\n{note}" for note in report.notes)])


def description(report: SoupReport, row: ReportRow, ingredients: Sequence[Candidate], figure: str) -> str:
    """A version's description: the verdict, a short table, a figure, and the ingredients as links.

    ``{run_id}`` is left in for the soup's own run. MLflow allows 5000 characters: ingredients that do
    not fit are counted.
    """
    request = report.request
    short_splits = [s for s in (request.select_on, request.report_on, MEAN_OF_SHIFTS) if s in row.scores]
    rule = next((s.rule for s in report.selections if s.method in row.methods and s.rule), "")
    how = (
        f"The average of {len(row.recipe.ingredients)} fine-tuned models, selected by "
        f"{' and '.join(row.methods)}{f' ({rule})' if rule else ''} on split {request.select_on}. "
        "The comparison was declared before anything was measured."
        if row.recipe.is_soup
        else f"The best of {len(report.candidates)} candidates on split {request.select_on}."
    )
    parts = [
        f"**{sentence(row, request.report_on)}.**",
        how,
        markdown_table(report, short_splits),
        f"![candidates and soups](/get-artifact?path={figure}&run_uuid={{run_id}})",
        f"More: `stockpot show models:/{request.model}/VERSION`, and stockpot.json beside the weights.",
    ]
    text = "\n\n".join(parts) + INGREDIENTS
    return text + _ingredient_links(ingredients, room=4500 - len(text))


def _ingredient_links(ingredients: Sequence[Candidate], room: int) -> str:
    lines: list[str] = []
    for place, candidate in enumerate(ingredients):
        run = candidate.run
        line = f"- [{run.name}](/#/experiments/{run.experiment_id}/runs/{run.run_id})\n"
        if room < len(line):
            lines.append(f"- and {len(ingredients) - place} more, in stockpot.json\n")
            break
        room -= len(line)
        lines.append(line)
    return "".join(lines)
