"""The outcome in words."""

from dataclasses import replace

import pytest

from registry.entities import (
    MEAN_OF_SHIFTS,
    Candidate,
    Checkpoint,
    Comparison,
    Digest,
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
from registry.workflow.verdict import (
    Verdict,
    columns,
    description,
    earns_alias,
    judge,
    markdown_table,
    reasons,
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
    assert earns_alias(_row(low, high), REQUEST) is alias


def test_a_single_candidate_is_no_soup_and_earns_nothing() -> None:
    alone = _row(0.1, 0.2, Recipe.mean([A]))
    assert judge(alone, "test") is Verdict.NO_SOUP
    assert not earns_alias(alone, REQUEST)


def test_every_claimed_gain_has_interval_n_and_split() -> None:
    text = sentence(_row(0.002, 0.02), "test")
    assert "+1.10 points (95% interval +0.20 to +2.00, n = 540, McNemar p = 0.03) on split test" in text


def test_not_better_comes_with_its_reasons() -> None:
    said = list(reasons(_report(_row(-0.004, 0.02))))
    assert "half-way between the two best candidates the held-out score is 0.8500" in said[0]
    assert "greedy kept 0 of 1" in said[1]
    assert not list(reasons(_report(_row(0.001, 0.02))))


def test_the_description_opens_with_the_verdict_and_fits_into_mlflow() -> None:
    many = [_candidate(number) for number in range(500)]
    text = description(_report(_row(0.002, 0.02)), _row(0.002, 0.02), many, "figure.png")
    assert text.startswith("**greedy soup: better than the best single candidate: +1.10 points")
    assert len(text) + 32 <= 5000  # the run's id is still to be filled in
    shown = text.count("](/#/experiments/7/runs/")
    assert 0 < shown < 500
    assert f"and {500 - shown} more" in text


def test_the_table_has_a_line_per_row_and_a_column_per_split() -> None:
    lines = markdown_table(_report(_row(0.002, 0.02)), columns(REQUEST)).splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {8}
    assert "fog" in lines[0]
    assert "+1.10 [+0.20, +2.00]" in lines[3]
