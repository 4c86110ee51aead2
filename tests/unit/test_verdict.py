"""The outcome in words."""

import math
from dataclasses import replace
from typing import Any, cast

import pytest

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Candidate,
    CandidatePoint,
    Checkpoint,
    Comparison,
    Digest,
    EnsembleRow,
    Recipe,
    ReportRow,
    Run,
    Selection,
    SoupReport,
    SoupRequest,
    Step,
    WeightsFormat,
    WeightsSource,
)
from stockpot.watching import Silent
from stockpot.workflow.publishing.alias import Aliases, domains_for
from stockpot.workflow.publishing.page import description, markdown_table
from stockpot.workflow.publishing.verdict import (
    Verdict,
    columns,
    earns_alias,
    gain,
    interval,
    judge,
    least_gain,
    margin,
    reasons,
    row_of,
    sentence,
)

A, B = (Digest(f"sha256:{letter * 64}") for letter in "ab")
REQUEST = SoupRequest(model="birds", task="t", sweep="s", shifts=("fog",))


def _row(low: float, high: float, recipe: Recipe | None = None) -> ReportRow:
    gain = Comparison("test", 540, (low + high) / 2, low, high, 0.95, 0.03)
    scores = {"validation": 0.9, "test": 0.8, "fog": 0.5, MEAN_OF_SHIFTS: 0.5}
    return ReportRow("greedy soup", ("greedy",), recipe or Recipe.mean([A, B]), scores, {"test": gain})


def _report(row: ReportRow) -> SoupReport:
    best = replace(row, label="best single", methods=(), recipe=Recipe.mean([A]), versus_best={})
    pair = Recipe.mean([A, B])
    steps = (
        Step(best.recipe.digest, (A,), 0.9, None, kept=True),
        Step(pair.digest, (A, B), 0.85, None, kept=False),
    )
    selection = Selection("greedy", "not_worse", steps, row.recipe, 0.9)
    return SoupReport(REQUEST, (best, row), (selection,), (), (), ())


def _candidate(number: int) -> Candidate:
    run = Run(f"{number:032x}", f"tune-{number}", "7", "FINISHED", number, {}, {}, {})
    source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "m.safetensors", "u", None, 1)
    return Candidate(run, source, "", Checkpoint(Digest(f"sha256:{number:064x}"), 1, (), A))


@pytest.mark.parametrize(
    ("low", "high", "verdict", "alias"),
    [
        (0.001, 0.02, Verdict.BETTER, True),
        (-0.004, 0.02, Verdict.NOT_BETTER, True),
        (-0.006, 0.02, Verdict.NOT_BETTER, False),
        (-0.03, -0.01, Verdict.WORSE, False),
        (0.0, 0.02, Verdict.NOT_BETTER, True),
    ],
)
def test_the_interval_decides_the_verdict_and_the_alias(
    low: float, high: float, verdict: Verdict, *, alias: bool
) -> None:
    assert judge(_row(low, high), "test") is verdict
    assert earns_alias(_row(low, high), _report(_row(low, high))) is alias


def test_a_single_candidate_is_no_soup_and_earns_nothing() -> None:
    alone = _row(0.1, 0.2, Recipe.mean([A]))
    assert judge(alone, "test") is Verdict.NO_SOUP
    assert not earns_alias(alone, _report(alone))


def test_where_origins_are_too_few_for_an_interval_that_is_said() -> None:
    few = Comparison("test", 3, 1 / 3, -math.inf, math.inf, 0.95, 1.0)
    assert gain(few, None) == "+33.33 points (95% interval: none, too few origins, n = 3, McNemar p = 1)"
    assert interval(few, None) == "+33.33 [none, too few origins]"
    undefined = replace(few, difference=math.nan)
    assert "interval: none, n = 3" in gain(undefined, None)
    no_replicates = replace(few, method="jackknife")
    assert interval(no_replicates, None) == "+33.33 [none]"


def test_why_there_is_no_alias_is_told_of_greedy_alone() -> None:
    """Nobody asks it of a soup that may not have it."""
    row = _row(-0.03, 0.02)
    aliases = Aliases(*(cast("Any", None),) * 5, _report(row), Silent(), "ann")
    assert aliases.ruling(row).why.startswith("It is not called challenger: ")
    assert domains_for(replace(row, methods=("uniform",))) == ()


def test_every_claimed_gain_has_interval_n_and_split() -> None:
    text = sentence(_row(0.002, 0.02), "test", None)
    assert "+1.10 points (95% interval +0.20 to +2.00, n = 540, McNemar p = 0.03) on split test" in text


def test_not_better_comes_with_its_reasons() -> None:
    said = list(reasons(_report(_row(-0.004, 0.02))))
    assert "half-way between the two best candidates the held-out score is 85.00" in said[0]
    assert "that of the best single is 90.00" in said[0]
    assert "greedy kept 0 of 1" in said[1]
    assert not list(reasons(_report(_row(0.001, 0.02))))


@pytest.mark.parametrize(
    ("own", "uniform", "collapses"),
    [
        ((0.91, 0.90, 0.84, 0.56), 0.555, True),
        ((0.9, 0.098), 0.39, True),
        ((0.9, 0.098), 0.49, False),
        ((-0.1987, -0.2297, -0.2802), -0.2202, False),
        ((-0.2, -0.2), -0.3, True),
    ],
)
def test_a_uniform_soup_collapses_where_it_lies_below_the_mean_of_its_ingredients_not_below_the_best(
    own: tuple[float, ...], uniform: float, *, collapses: bool
) -> None:
    ingredients = [Digest(f"sha256:{number:064x}") for number in range(len(own))]
    points = [
        CandidatePoint(f"{n}", f"tune-{n}", digest, score, None, None)
        for n, (digest, score) in enumerate(zip(ingredients, own, strict=True))
    ]
    points.append(replace(points[0], checkpoint=Digest(f"sha256:{99:064x}"), held_out=uniform * 100))
    row = _row(-0.004, 0.02)
    mean = replace(
        row,
        methods=("uniform",),
        recipe=Recipe.mean(ingredients),
        scores={**row.scores, "validation": uniform},
    )
    report = _report(row)
    said = " ".join(reasons(replace(report, rows=(*report.rows, mean), candidates=tuple(points))))
    assert ("the uniform soup collapses" in said) is collapses


def test_reasons_tell_a_bound_as_a_bound() -> None:
    report = _report(_row(-0.004, 0.02))
    (selection,) = report.selections
    single, soup = selection.steps
    stopped = replace(selection, steps=(single, replace(soup, score=None, bound=0.875)))
    said = list(reasons(replace(report, selections=(stopped,))))
    assert "the held-out score is at most 87.50, that of the best single is 90.00" in said[0]


def test_the_description_opens_with_the_verdict_and_fits_into_mlflow() -> None:
    many = [_candidate(number) for number in range(500)]
    text = description(_report(_row(0.002, 0.02)), _row(0.002, 0.02), many, "figure.png")
    assert text.startswith("**greedy soup: better than the best single candidate: +1.10 points")
    assert len(text) + 32 <= 5000  # the run's id is still to be filled in
    shown = text.count("](#/experiments/7/runs/")
    assert 0 < shown < 500
    assert f"and {500 - shown} more" in text


def test_the_table_has_a_line_per_row_and_a_column_per_split() -> None:
    lines = markdown_table(_report(_row(0.002, 0.02)), columns(REQUEST)).splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {9}
    assert "fog" in lines[0]
    assert r"+1.10 \[+0.20, +2.00\]" in lines[3]


def _with_ensemble() -> SoupReport:
    row = _row(0.002, 0.02)
    gain = Comparison("test", 540, 0.02, 0.01, 0.03, 0.95, None)
    scores = {"validation": 0.92, "test": 0.82}
    ensemble = EnsembleRow("ensemble of the greedy soup", row.recipe, scores, {"test": gain}, 2)
    return replace(_report(row), ensembles=(ensemble,), notes=("its cells are empty: why",))


def test_the_table_tells_the_ensemble_with_its_inference_cost_and_leaves_unknown_cells_empty() -> None:
    text = markdown_table(_with_ensemble(), columns(REQUEST))
    table, note = text.split("\n\n")
    head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    assert head[1:3] == ["models", "inference cost"]
    assert [line[1:3] for line in lines] == [["1", "1 x"], ["2", "1 x"], ["2", "2 x"]]
    assert lines[2] == [
        "ensemble of the greedy soup",
        "2",
        "2 x",
        "92.00",
        "82.00",
        "",
        "",
        r"+2.00 \[+1.00, +3.00\]",
    ]
    assert note == "- its cells are empty: why"


def test_an_ensemble_is_on_the_versions_page_and_wins_nothing() -> None:
    report = _with_ensemble()
    row = report.rows[1]
    text = description(report, row, [_candidate(1)], "figure.png")
    assert text.startswith("**greedy soup: better than the best single candidate: +1.10 points")
    assert "| ensemble of the greedy soup&emsp; | 2&emsp; | 2 x&emsp; | 92.00&emsp; |" in text
    assert r"+2.00&nbsp;\[+1.00,&nbsp;+3.00\]&emsp; |" in text, "an interval stays on its line"
    assert "\n\n- its cells are empty: why" in text
    assert row_of(report, "greedy") is row


NATS = {"validation": -350.25, "test": -400.0, "fog": -500.0, MEAN_OF_SHIFTS: -500.0}


def _in_nats(low: float, high: float, margin: float | str = -0.5) -> SoupReport:
    """The best single's score on the report split is -400 nats."""
    report = _report(replace(_row(low, high), scores=NATS))
    request = replace(report.request, margin=margin)
    return replace(report, request=request, unit="nats")


def test_scores_that_have_no_bounds_are_told_in_the_tasks_own_unit() -> None:
    report = _in_nats(-1.5, 3.0)
    told = sentence(report.rows[1], "test", report.unit)
    assert "+0.75 nats (95% interval -1.5 to +3, n = 540, McNemar p = 0.03) on split test" in told
    table = markdown_table(report, columns(REQUEST))
    assert "| greedy soup | 2 | 1 x | -350.25 | -400 | -500 | -500 | +0.75 \\[-1.5, +3\\] |" in table
    page = description(report, report.rows[1], [], "soups.png")
    assert "points" not in told + table + page
    bare = replace(report, unit="")
    assert "+0.75 (95% interval -1.5 to +3, n" in sentence(bare.rows[1], "test", bare.unit)


@pytest.mark.parametrize(
    ("given", "least"),
    [(-0.5, -2.0), ("-0.5%", -2.0), ("-0.5 %", -2.0), ("1%", 4.0), (0.0, 0.0), ("-1", -4.0)],
)
def test_of_scores_without_bounds_a_margin_is_a_part_of_the_best_singles(
    given: float | str, least: float
) -> None:
    report = _in_nats(least, 9.0, given)
    assert least_gain(report) == least
    assert not earns_alias(report.rows[1], report), "it must lie above the margin"
    report = _in_nats(least + 0.01, 9.0, given)
    assert earns_alias(report.rows[1], report)


def test_a_margin_of_points_may_be_a_percentage_too() -> None:
    report = _report(_row(-0.007, 0.02))
    assert not earns_alias(report.rows[1], report)
    assert margin(report) == "-0.5 points"
    report = replace(report, request=replace(REQUEST, margin="-1%"))
    assert earns_alias(report.rows[1], report), "the best single scores 0.8, of which 1 % is 0.8 points"
    assert margin(report) == "-0.80 points, which is -1 % of the best single candidate's score"
