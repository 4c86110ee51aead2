"""Which soups of a report become versions, and in which order."""

import math
from collections.abc import Iterable, Sequence

from stockpot.entities import PublishedSoup, Register, ReportRow, SoupReport
from stockpot.workflow.publishing.verdict import Verdict, clause, judge


def left_out(row: ReportRow, report: SoupReport) -> str:
    """Why this soup is not registered; empty where it is."""
    request = report.request
    if math.isnan(row.scores[request.select_on]):
        return f"it has no score on split {request.select_on}"
    verdict = judge(row, request.report_on)
    wanted = {
        Register.ALL: True,
        Register.NOT_WORSE: verdict is not Verdict.WORSE,
        Register.BETTER: verdict is Verdict.BETTER,
    }[request.register]
    if wanted:
        return ""
    others = "--register all" if verdict is Verdict.WORSE else "--register not_worse"
    return f"{clause(row, request.report_on, report.unit)}. To register it all the same: {others}"


def stands_in(report: SoupReport, soups: Iterable[PublishedSoup]) -> bool:
    """Whether the best single candidate is registered in a soup's place: the request says so, and none of
    these has a version.
    """
    averages = {row.recipe.digest for row in report.rows if row.recipe.is_soup}
    return report.request.or_best_single and not any(soup.uri and soup.recipe in averages for soup in soups)


def best_last(rows: Sequence[ReportRow], held_out: str) -> list[ReportRow]:
    """In the order of registration: by held-out score, of equal ones the first method's last."""

    def score(row: ReportRow) -> float:
        value = row.scores[held_out]
        return -math.inf if math.isnan(value) else value

    return sorted(rows, key=score, reverse=True)[::-1]
