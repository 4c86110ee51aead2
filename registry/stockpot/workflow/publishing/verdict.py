"""The outcome in words: what the terminal, the version's page and the flow's artifact open with."""

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Comparison,
    Digest,
    EnsembleRow,
    ReferenceRow,
    ReportRow,
    SoupReport,
    SoupRequest,
    Step,
)
from stockpot.prose import counted, listed
from stockpot.workflow.selecting.rows import GENERALIST, POINT, domain_of, domains_of, score

COLLAPSE = 0.2
"""A uniform soup collapses where its held-out score lies below the mean of its ingredients' own by more than
this share of that: an error barrier (Frankle et al., Linear Mode Connectivity, ICML 2020, section 2).
"""

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


def row_that_is(report: SoupReport, recipe: Digest) -> ReportRow:
    """The row of a recipe that has one. The best single candidate has two where a method ended in it: if it
    is a domain's best run as well, the one that tells so.
    """
    rows = [row for row in report.rows if row.recipe.digest == recipe]
    return [*filter(specialties, rows), *rows][0]


def specialties(row: ReportRow) -> tuple[str, ...]:
    """The domains whose specialist this is, whatever else it is, sorted."""
    return tuple(sorted(domains_of(row.methods)))


def is_specialist(row: ReportRow) -> bool:
    """Whether it was found as that alone."""
    return bool(row.methods) and all(map(domain_of, row.methods))


def judged(row: ReportRow, split: str) -> Mapping[str, Comparison]:
    """What a soup is judged by: its gain over the best single candidate, under an empty text; a specialist's
    over the best run of each of its domains, by domain.
    """
    return _own(row) or {"": row.versus_best[split]}


def _own(row: ReportRow) -> Mapping[str, Comparison]:
    """By domain, of a soup that was found as specialist alone; else empty."""
    found = {domain: _versus(row, domain, "") for domain in domains_of(row.methods)}
    return {domain: own for domain, own in found.items() if own is not None and is_specialist(row)}


def _versus(row: ReportRow, domain: str, split: str) -> Comparison | None:
    """With the best run of the domain; with the best single candidate where none is named."""
    if not domain:
        return row.versus_best[split]
    first = domains_of(row.methods)[:1] == [domain]
    return row.own if first else (row.own_beside or {}).get(domain)


def judge(row: ReportRow, split: str) -> Verdict:
    """Compare with zero: the interval lies above, below, or holds it. A specialist is judged on its domain,
    and compared with the best run of that; of several it is better, or worse, where it is on each.
    """
    if not row.recipe.is_soup:
        return Verdict.NO_SOUP
    found = {*map(_verdict, judged(row, split).values())}
    return found.pop() if len(found) == 1 else Verdict.NOT_BETTER


def _verdict(gain: Comparison) -> Verdict:
    if gain.low > 0:
        return Verdict.BETTER
    return Verdict.WORSE if gain.high < 0 else Verdict.NOT_BETTER


def earns_alias(row: ReportRow, report: SoupReport, domain: str = "") -> bool:
    """Whether a soup may have its alias, or that of a domain: its interval's lower end lies above the margin.
    So must that of a generalist among domains compared with the base, where that is known.
    """
    if not row.recipe.is_soup or (not domain and short_of_base(row, report)):
        return False
    found = _versus(row, domain, report.request.report_on)
    return found is not None and found.low > least_gain(report, domain)


def short_of_base(row: ReportRow, report: SoupReport) -> str:
    """A clause, where a generalist is not shown to be as good as no fine-tuning at all; else empty."""
    if row.versus_base is None or row.versus_base.low > least_gain(report):
        return ""
    return f"compared with the base, {gain(row.versus_base, report.unit)} on split {row.versus_base.split}"


def least_gain(report: SoupReport, domain: str = "") -> float:
    """What an interval's lower end must exceed for the alias: the margin as a difference of scores."""
    return margin_as_difference(report.request, report.unit, _best_single(report, domain))


def margin(report: SoupReport, domain: str = "") -> str:
    """The same for people, with what it is a part of."""
    whose = "the best single candidate's score"
    return margin_told(report.request, report.unit, _best_single(report, domain), whose)


def _best_single(report: SoupReport, domain: str) -> float:
    """On the domain, where one is named: NaN where the task gives it no score there."""
    best = report.rows[0]
    if not domain or not best.domains:
        return best.scores[report.request.report_on]
    return best.domains[domain].score if domain in best.domains else math.nan


def margin_as_difference(request: SoupRequest, unit: str | None, score: float) -> float:
    """A request's margin as a difference of scores; `score`: what a percentage is one of."""
    if request.relative_margin is None and unit is None:
        return request.margin_number * POINT
    return request.margin_number / 100 * abs(score)


def margin_told(request: SoupRequest, unit: str | None, score: float, whose: str) -> str:
    """The same for people."""
    if request.relative_margin is None and unit is None:
        return f"{request.margin_number:+g} points"
    told = difference(margin_as_difference(request, unit, score), unit)
    return f"{told}, which is {request.margin_number:+g} % of {whose}"


def sentence(row: ReportRow, report_on: str, unit: str | None) -> str:
    """The verdict in one line: on the report split, and under shift where that was measured."""
    return f"{row.label}: {clause(row, report_on, unit)}"


def clause(row: ReportRow, report_on: str, unit: str | None) -> str:
    """The same, without what it is about."""
    verdict = judge(row, report_on)
    if verdict is Verdict.NO_SOUP:
        return f"no soup: {whom(row)} alone"
    by_domain = judged(row, report_on)
    told = "; ".join(
        f"{PHRASES[_verdict(found)]} than {_whom(domain)}: {_gained(found, unit)}"
        for domain, found in by_domain.items()
    )
    if "" not in by_domain:
        return told
    shifted = row.versus_best.get(MEAN_OF_SHIFTS)
    if shifted is None:
        return told
    verdict = _verdict(shifted)
    return f"{told}; {PHRASES[verdict]} under shift: {gain(shifted, unit)}, a secondary comparison"


def gains(row: ReportRow, report: SoupReport) -> list[Comparison]:
    """The comparisons with that: the first is the one that decides. A specialist's are those that do."""
    if is_specialist(row):
        return [*_own(row).values()]
    return [row.versus_best[split] for split in columns(report.request) if split in row.versus_best]


def compared_told(row: ReportRow, report: SoupReport, domain: str = "") -> str:
    """The comparison that a soup's alias rests on, or that of a domain."""
    found = _versus(row, domain, report.request.report_on)
    told = "nothing is known" if found is None else _gained(found, report.unit)
    return f"{told} compared with {_whom(domain)}"


def _gained(found: Comparison, unit: str | None) -> str:
    return f"{gain(found, unit)} on split {found.split}"


def whom(row: ReportRow) -> str:
    """What a row is compared with, for its verdict."""
    return _whom(listed(domains_of(row.methods)) if is_specialist(row) else "")


def _whom(domain: str) -> str:
    return f"the best run of {domain}" if domain else "the best single candidate"


def gain(comparison: Comparison, unit: str | None) -> str:
    """A difference with its interval and n; McNemar's p where the scores are right or wrong."""
    p = comparison.mcnemar_p
    mcnemar = f", McNemar p = {p:.2g}" if p is not None else ""
    level = f"{100 * comparison.level:.4g}%"  # of twenty domains 99.75, which is not 100
    return (
        f"{difference(comparison.difference, unit)} "
        f"({level} interval{':' if is_open(comparison) else ''} {ends(comparison, unit)}, "
        f"n = {comparison.n}{mcnemar})"
    )


def interval(comparison: Comparison, unit: str | None) -> str:
    """A difference and its interval, short, for a table."""
    return f"{signed(comparison.difference, unit)} [{ends(comparison, unit, ', ')}]"


def ends(comparison: Comparison, unit: str | None, between: str = " to ") -> str:
    """The ends of the interval; why there is none where it has no ends."""
    if is_open(comparison):
        return "none, too few origins" if is_of_too_few(comparison) else "none"
    return between.join(signed(end, unit) for end in (comparison.low, comparison.high))


def is_open(comparison: Comparison) -> bool:
    """Whether it has no interval."""
    return math.isinf(comparison.low) and math.isinf(comparison.high)


def is_of_too_few(comparison: Comparison) -> bool:
    """Whether it has no interval for want of origins: not where the difference is unknown, or where a metric
    has no replicates.
    """
    few = math.isfinite(comparison.difference) and comparison.method != "jackknife"
    return few and is_open(comparison)


def difference(value: float, unit: str | None) -> str:
    """With its sign and its unit, where it has one."""
    return f"{signed(value, unit)} {'points' if unit is None else unit}".rstrip()


def signed(value: float, unit: str | None) -> str:
    """A difference with its sign, without its unit."""
    return f"{value / POINT:+.2f}" if unit is None else f"{value:+.4g}"


def reasons(report: SoupReport) -> Iterator[str]:
    """Cheap reasons why the greedy soup is not better, from what was measured anyway."""
    held_out = report.request.select_on
    single = report.rows[0].scores[held_out]
    search = next((s for s in report.selections if s.method == GENERALIST), None)
    row = row_of(report, GENERALIST)
    if search is None or row is None or judge(row, report.request.report_on) is Verdict.BETTER:
        return
    tried = [step for step in search.steps if len(step.tried) > 1]
    if tried:
        midpoint, best = score_of(tried[0], report.unit), score(single, report.unit)
        yield (
            f"half-way between the two best candidates the held-out score is {midpoint}, that of the best "
            f"single is {best}"
        )
    yield f"greedy kept {sum(step.kept for step in tried)} of {counted(len(tried), 'further candidate')}"
    uniform = row_of(report, "uniform")
    if uniform is not None and _barrier(report, uniform) > COLLAPSE:
        yield (
            "the uniform soup collapses: some candidates lie behind an error barrier (learning rate too "
            "high, heads not shared, another starting point)"
        )
    if report.hint is not None:
        yield report.hint


def _barrier(report: SoupReport, row: ReportRow) -> float:
    """How far a soup's held-out score lies below the mean of its ingredients' own, as a share of that."""
    held_out = {candidate.checkpoint: candidate.held_out for candidate in report.candidates}
    own = [held_out[checkpoint] for checkpoint in row.recipe.checkpoints if checkpoint in held_out]
    mean = sum(own) / len(own) if own else 0.0
    return (mean - row.scores[report.request.select_on]) / abs(mean) if mean else 0.0


def score_of(step: Step, unit: str | None) -> str:
    """A step's score, or the bound at which its evaluation stopped."""
    if step.score is not None:
        return score(step.score, unit)
    return "unknown" if step.bound is None else f"at most {score(step.bound, unit)}"


def columns(request: SoupRequest) -> tuple[str, ...]:
    """The table's splits, in order."""
    mean = (MEAN_OF_SHIFTS,) if request.shifts else ()
    return (request.select_on, request.report_on, *request.shifts, *mean)


def cells(row: ReportRow | EnsembleRow | ReferenceRow, splits: Sequence[str], unit: str | None) -> list[str]:
    """A line of the table: label, `BESIDE_SCORES`, and the scores; empty where unknown."""
    scores = (score(row.scores[split], unit) if split in row.scores else "" for split in splits)
    return [row.label, str(row.models), f"{row.inference_cost} x", *scores]
