"""What a page tells of domains, and what it leaves to others."""

from dataclasses import replace

import pytest

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Comparison,
    Contrast,
    Digest,
    DomainScore,
    Mixture,
    Recipe,
    ReferenceRow,
    ReportRow,
    Run,
    Selection,
    SoupReport,
    SoupRequest,
    Step,
    WeightsFormat,
    WeightsSource,
)
from stockpot.workflow.publishing.domains_told import NOT_DOMINATED, domain_cells
from stockpot.workflow.publishing.page import INGREDIENTS, description
from stockpot.workflow.selecting.by_domain import ROUTED, ROUTED_RUNS
from stockpot.workflow.selecting.by_features import ROUTED_BY_FEATURES
from stockpot.workflow.selecting.by_posterior import BY_CACHED_PRIOR, BY_POSTERIOR

DOMAINS = ("man pages", "python", "sql")
NAMES = [Digest(f"sha256:{number:064x}") for number in range(8)]


def _gain(split: str = "test") -> Comparison:
    return Comparison(split, 540, 0.008, -0.004, 0.02, 0.95, None)


def _row(label: str, methods: tuple[str, ...], size: int, *scores: float) -> ReportRow:
    cells = {domain: DomainScore(score, None) for domain, score in zip(DOMAINS, scores, strict=True)}
    whole = {"validation": sum(scores) / 3, "test": sum(scores) / 3}
    return ReportRow(label, methods, Recipe.mean(NAMES[:size]), whole, {"test": _gain()}, domains=cells)


def _report() -> SoupReport:
    single = replace(_row("best single", (), 1, 0.8, 0.8, 0.8), versus_best={})
    greedy = _row("greedy soup", ("greedy",), 4, 0.82, 0.83, 0.81)
    special = [
        replace(
            _row(
                f"{domain} specialist",
                (f"specialist:{domain}",),
                2 + at,
                *[0.9 - (at != n) / 2 for n in range(3)],
            ),
            own=_gain(f"test of {domain}"),
        )
        for at, domain in enumerate(DOMAINS)
    ]
    cells = {domain: DomainScore(0.9, None) for domain in DOMAINS}
    recipes = tuple(row.recipe for row in special)
    both = [
        ReferenceRow(label, recipes, {"test": 0.9}, {"test": _gain()}, cells)
        for label in (ROUTED_RUNS, ROUTED)
    ]
    told = Contrast("hyperparameters", ROUTED_RUNS, ROUTED, _gain())
    request = SoupRequest(model="texts", task="t", sweep="s")
    shares = dict.fromkeys(DOMAINS, 1 / 3)
    return SoupReport(
        request,
        (single, greedy, *special),
        (Selection("greedy", "not_worse", (), greedy.recipe, 0.9),),
        (),
        (),
        (),
        notes=tuple(
            f"something that nobody will miss, number {number}, and it takes some room"
            for number in range(40)
        ),
        mixture=Mixture(shares, dict.fromkeys(DOMAINS, 180), (), {}, worst=False),
        references=tuple(both),
        contrasts=(told, replace(told, what="domains"), replace(told, what="both", after="greedy soup")),
    )


def _candidate(number: int) -> Candidate:
    run = Run(f"{number:032x}", f"tune-{number}", "7", "FINISHED", number, {}, {}, {})
    source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "m.safetensors", "u", None, 1)
    return Candidate(run, source, "", Checkpoint(NAMES[number], 1, (), NAMES[0]))


def test_who_must_be_told_the_domain_beats_nobody_who_need_not() -> None:
    report = _report()
    single, greedy, *special = report.rows
    marked = [NOT_DOMINATED in domain_cells(row, report)[0] for row in (single, greedy, *special)]
    assert marked == [False, True, True, True, True], "the routed rows are better on each domain"
    assert all(NOT_DOMINATED in domain_cells(row, report)[0] for row in report.references or ())


def test_by_the_posterior_nobody_has_to_be_told_the_domain() -> None:
    """So the routed rows are no rivals of that row; that of the cached prior of each domain must be told."""
    report, recipes = _report(), tuple(Recipe.mean([name]) for name in NAMES[:3])
    cells = {domain: DomainScore(0.85, None) for domain in DOMAINS}
    blind, told = (
        ReferenceRow(label, recipes, {"test": 0.85}, {}, cells, 3)
        for label in (BY_POSTERIOR, BY_CACHED_PRIOR)
    )
    report = replace(report, references=(*(report.references or ()), blind, told))
    assert NOT_DOMINATED in domain_cells(blind, report)[0]
    assert NOT_DOMINATED not in domain_cells(told, report)[0]
    for label in ROUTED_BY_FEATURES:
        near = replace(blind, label=label)
        assert NOT_DOMINATED in domain_cells(near, replace(report, references=(told, near)))[0], "nor here"


@pytest.mark.parametrize("tried", [False, True])
def test_a_page_of_one_run_says_whether_averaging_was_tried_and_shows_the_generalist(*, tried: bool) -> None:
    """Which is a specialist, too, of another domain."""
    report = _report()
    single, greedy, *special = report.rows
    both = replace(greedy, label="greedy and man pages", methods=("greedy", "specialist:man pages"))
    run = replace(special[1], recipe=single.recipe, own=None, versus_best={})
    steps = [Step(recipe.digest, recipe.checkpoints, 0.5, None, kept=True) for recipe in (single.recipe,)]
    steps += [Step(greedy.recipe.digest, greedy.recipe.checkpoints, 0.4, None, kept=False)] * tried
    search = Selection("specialist:python", "not_worse", tuple(steps), run.recipe, 0.5)
    told = replace(report, rows=(single, both, run, special[2]), selections=(search,), contrasts=())
    text = description(told, run, [_candidate(0)], "f.png", experiment_id="7")
    assert "**python specialist: no soup: the best run of python alone.**" in text
    assert "One run as it was logged: the best run of python, by its own held-out examples." in text
    assert ("Averaging it with others did not help there." in text) is tried
    assert ("No average was tried there." in text) is not tried
    assert text.count("| greedy and man pages") == 2, "in both tables"
    assert "sql specialist" not in text


def test_domains_and_ingredients_have_their_room_on_a_page_before_notes() -> None:
    report = _report()
    text = description(report, report.rows[3], [_candidate(n) for n in range(3)], "f.png", experiment_id="7")
    assert "test, by domain" in text
    assert "Averaging across hyperparameters" in text
    assert text.partition(INGREDIENTS)[2].count("](#/experiments/7/runs/") == 3
    assert "number 11" not in text, "all in report.html"
    assert "python specialist" in text
    assert "sql specialist" not in text, "another version's"
