"""What a report says of domains, and of what it does not know."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from stockpot.entities import (
    Aim,
    BestRun,
    Candidate,
    CandidatePoint,
    Checkpoint,
    Comparison,
    Contrast,
    Digest,
    DomainScore,
    Mixture,
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
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.workflow.plan import _among_domains, _Passes
from stockpot.workflow.publishing.domains_told import domain_sentences
from stockpot.workflow.publishing.verdict import sentence
from stockpot.workflow.selecting.all_data import BEST_OF_ALL, SOUP_OF_ALL, of_all_data
from stockpot.workflow.selecting.by_domain import MEAN_OF_RUNS, with_domains
from stockpot.workflow.selecting.domains import Domains
from stockpot.workflow.selecting.specialists import Specialist
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")
REQUEST = SoupRequest(model="birds", task="t", sweep="s")
GAIN = Comparison("test", 540, 0.01, 0.002, 0.02, 0.95, None)
SHARES = {"owls": 0.5, "mice": 0.5}


def row(recipe: Recipe, *methods: str, label: str = "greedy soup") -> ReportRow:
    return ReportRow(label, methods, recipe, {"validation": 0.9, "test": 0.8}, {"test": GAIN})


def report(*rows: ReportRow, runs: Mapping[str, str] | None = None, **more: object) -> SoupReport:
    points = tuple(
        CandidatePoint(run, run, one, 0.5, None, None) for run, one in (("a", A), ("b", B), ("c", C))
    )
    mixture = Mixture(SHARES, {"owls": 40, "mice": 40}, (), runs or {})
    best = replace(row(Recipe.mean([A]), label="best single"), versus_best={})
    made = SoupReport(REQUEST, (best, *rows), (), points, (), (), mixture=mixture)
    return replace(made, **more)  # type: ignore[arg-type]  # its fields


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (("specialist:owls",), "no soup: the best run of owls alone"),
        (("specialist:owls", "specialist:mice"), "no soup: the best run of owls, mice alone"),
        (("greedy", "specialist:owls"), "no soup: the best single candidate alone"),
    ],
)
def test_a_specialist_of_one_run_is_not_called_the_best_single(methods: Sequence[str], said: str) -> None:
    assert sentence(row(Recipe.mean([B]), *methods), "test", None).endswith(said)


def test_what_both_gave_is_told_of_greedy_and_where_it_was_asked_alone() -> None:
    """Nothing was found to be worse where nobody looked."""
    alone, soup = Recipe.mean([A]), Recipe.mean([A, B])
    assert "Averaging across both" not in " ".join(domain_sentences(report(row(soup, "uniform"))))
    assert "Averaging across both: nothing" in " ".join(domain_sentences(report(row(alone, "greedy"))))


def test_of_shifted_splits_it_is_told_that_no_domain_counts_there() -> None:
    shifted = replace(report(), request=replace(REQUEST, shifts=("fog", "night")))
    assert "on fog, night each example counts alike, whatever its domain" in [*domain_sentences(shifted)]
    assert "counts alike" not in " ".join(domain_sentences(report()))


def test_where_nothing_is_compared_with_the_base_it_is_told_why() -> None:
    """Adapters name theirs, and may bring a head that it lacks: it is no unknown base then."""

    def told(found: SoupReport) -> list[str]:
        return [said for said in domain_sentences(found) if "no fine-tuning" in said]

    assert told(report()) == ["base unknown, since --base names none: this may be worse than no fine-tuning"]
    named = report(request=replace(REQUEST, base="base"))
    assert told(named) == [
        "the base is not of the models' architecture: this may be worse than no fine-tuning"
    ]
    assert told(replace(named, base=row(Recipe.mean([C]), label="base"))) == []


def on_domain(low: float, high: float, n: int = 40, method: str = "bootstrap") -> DomainScore:
    return DomainScore(0.8, Comparison("owls", n, (low + high) / 2, low, high, 0.975, None, method))


def test_each_domain_has_its_verdict_or_the_reason_why_it_has_none() -> None:
    few = replace(
        on_domain(-1, 1, n=29, method="none"),
        versus_best=Comparison("cats", 29, 0.05, -math.inf, math.inf, 0.95, None, "none"),
    )
    cells = {"owls": on_domain(0.01, 0.03), "mice": on_domain(-0.03, -0.01), "cats": few}
    soup = replace(row(Recipe.mean([A, B]), "greedy"), domains=cells)
    shares = dict.fromkeys(cells, 1 / 3)
    told = report(soup, mixture=Mixture(shares, dict.fromkeys(cells, 40), (), {}))
    (said,) = [one for one in domain_sentences(told) if "by Holm's levels" in one]
    assert "the greedy soup, domain by domain beside the best single candidate" in said
    better, worse, none = said.split(": ", 1)[1].split("; ")
    assert better.startswith("better on owls: ")
    assert "97.5% interval" in better
    assert worse.startswith("worse on mice: ")
    assert none.startswith("too few origins for a verdict on cats: ")
    assert few.versus_best is not None
    unknown = replace(few, versus_best=replace(few.versus_best, difference=math.nan))
    undefined = replace(soup, domains={**cells, "cats": unknown})
    (said,) = [
        one
        for one in domain_sentences(replace(told, rows=(*told.rows[:-1], undefined)))
        if "by Holm's levels" in one
    ]
    assert "not told apart on cats: +nan points" in said, "however many origins it has"
    same = replace(soup, domains={"owls": on_domain(0.0, 0.03), "mice": on_domain(-0.03, 0.0)})
    (said,) = [one for one in domain_sentences(report(same)) if "by Holm's levels" in one]
    assert "not told apart on owls: " in said
    assert ", mice: " in said
    alone = replace(soup, domains={"owls": DomainScore(0.8, None)})
    assert not [one for one in domain_sentences(report(alone)) if "Holm" in one]


@pytest.mark.parametrize(
    ("runs", "one"),
    [
        ({"a": "owls", "b": "owls"}, "owls"),
        ({"a": "*", "b": "*"}, "all data"),
        ({"a": "owls", "b": "mice"}, ""),
        ({"a": "owls", "b": "*"}, ""),
        ({}, ""),
    ],
)
def test_a_greedy_soup_of_one_domains_runs_is_told_to_be_one(runs: Mapping[str, str], one: str) -> None:
    both = Contrast("both", "best single", "greedy soup", GAIN)
    instead = Contrast("all data", "best run of all data", "greedy soup", GAIN)
    found = report(row(Recipe.mean([A, B]), "greedy"), runs=runs, contrasts=(both, instead))
    text = " ".join(domain_sentences(found))
    of = f", all of whose runs are of {one}" if one else ""
    assert f"(greedy soup{of}, compared with: best single)" in text
    assert f"(greedy soup{of}, compared with: best run of all data)" in text
    assert "Averaging across both: +1.00" in text


@pytest.mark.parametrize(("told", "known"), [("owls", True), ("*", False), ("owls,*", False)])
def test_what_runs_of_all_data_may_have_seen_is_not_called_unseen(told: str, *, known: bool) -> None:
    mixture = Mixture(SHARES, {"owls": 40, "mice": 40, "newts": 9}, ("newts",), {"a": told})
    text = " ".join(domain_sentences(report(mixture=mixture)))
    assert "no run names newts: scores there are of unseen domains" in text
    assert ("unless runs of all data (*)" in text) is not known


LABELS = ("owls",) * 40 + ("mice",) * 40


@pytest.mark.parametrize("lacking", [False, True])
def test_the_mean_of_each_domains_best_run_is_that_of_each_domain(*, lacking: bool) -> None:
    domains = ("owls", "mice", "newts") if lacking else ("owls", "mice")
    aim = Aim((*LABELS, "newts"), dict.fromkeys(domains, 1.0))
    inner = TableEvaluator(lambda _: [0.5] * 81, n=81, greatest=1.0)
    evaluator = SharedEvaluator(inner, MemoryStore(), aim=aim)
    specialists = [
        Specialist(domain, Selection(f"specialist:{domain}", "", (), Recipe.mean([one]), 0.5), inner.protocol)
        for domain, one in (("owls", B), ("mice", C))
    ]
    found = with_domains(
        report(), Domains({"validation": aim, "test": aim}), specialists, evaluator, None, None
    )
    assert (MEAN_OF_RUNS in {one.label for one in found.references or ()}) is not lacking
    assert [(best.domain, best.checkpoint) for best in found.best_runs or ()] == [("owls", B), ("mice", C)]


def test_one_specialist_of_two_domains_is_compared_with_the_best_run_of_each() -> None:
    """Of the mice that is the soup's second ingredient, which is better than the soup there."""
    aim = Aim(LABELS, {"owls": 1.0, "mice": 1.0})
    soup, on_owls = Recipe.mean([A, B]), [0.5] * 40 + [0.0] * 40
    found = {soup.digest: [0.75] * 80, Recipe.mean([A]).digest: on_owls}
    inner = TableEvaluator(lambda recipe: found.get(recipe.digest, [1.0] * 80), n=80, greatest=1.0)
    specialists = [
        Specialist(domain, Selection(f"specialist:{domain}", "", (), recipe, 0.5), inner.protocol)
        for domain, recipe in (("owls", soup), ("mice", Recipe.mean([B, A])))
    ]
    told = report(row(soup, "specialist:owls", "specialist:mice"), row(Recipe.mean([C]), "specialist:newts"))
    alone = Selection("specialist:newts", "", (), Recipe.mean([C]), 0.5)
    rows = with_domains(
        told,
        Domains({"validation": aim, "test": aim}),
        [*specialists, Specialist("newts", alone, inner.protocol)],
        SharedEvaluator(inner, MemoryStore(), aim=aim),
        None,
        None,
    ).rows
    _, both, one = rows
    assert both.own is not None
    assert (both.own.split, both.own.difference) == ("test of owls", 0.25)
    (beside,) = (both.own_beside or {}).items()
    assert (beside[0], beside[1].split, beside[1].difference) == ("mice", "test of mice", -0.25)
    assert (one.own, one.own_beside) == (None, None), "it is that run itself"


def test_the_best_single_is_not_compared_with_itself_under_another_name() -> None:
    aim = Aim(LABELS, {"owls": 1.0, "mice": 1.0})
    evaluator = SharedEvaluator(
        TableEvaluator(lambda _: [0.5] * 80, n=80, greatest=1.0), MemoryStore(), aim=aim
    )
    told, of_all = report(), {BEST_OF_ALL: Recipe.mean([A]), SOUP_OF_ALL: Recipe.mean([A, B])}
    assert told.rows[0].recipe == of_all[BEST_OF_ALL]
    found = with_domains(told, Domains({"test": aim}), (), evaluator, None, None, (), of_all)
    rows = {row.label: row for row in found.references or ()}
    assert not rows[BEST_OF_ALL].versus_best
    assert {*rows[SOUP_OF_ALL].versus_best} == {"test"}
    assert rows[BEST_OF_ALL].scores == {"test": 0.5}


def test_a_plan_counts_what_specialists_cost() -> None:
    runs = {"1": "owls", "2": "owls", "3": "owls", "4": "mice", "5": "owls,mice", "6": "*"}
    found = [
        Candidate(
            Run(run, run, "7", "FINISHED", 1, {}, {}, {}),
            WeightsSource(run, WeightsFormat.SAFETENSORS, "m.safetensors", "u", None, 1),
            "",
            Checkpoint(A, 1, (), A),
        )
        for run in runs
    ]
    aim = Aim(LABELS, dict.fromkeys(SHARES, 1.0))
    several = Domains({"validation": aim, "test": aim}, runs)
    assert [one.run.run_id for one in of_all_data(found, several)] == ["6"]
    assert not of_all_data(found, Domains(several.aims, dict.fromkeys(runs, "*"))), "that is no difference"
    cost = _among_domains(REQUEST, found, several, likelihoods=False)
    # On the report split both specialists, both best runs, the mean of these, and the run of all data.
    assert cost == _Passes(held_out=3 + 2, reported=2 + 2 + 1 + 1, soups=3 + 1 + 1)
    shifted = replace(REQUEST, shifts=("fog", "night"))
    assert _among_domains(shifted, found, several, likelihoods=False) == cost + _Passes(reported=2 * 2)
    assert _among_domains(REQUEST, found, several, likelihoods=True) == cost + _Passes(1, 1)
    near = _among_domains(REQUEST, found, several, likelihoods=True, features=True)
    assert near == cost + _Passes(1, 1 + 2), "both specialists, position by position"
    for none in (Domains(), None):
        assert _among_domains(REQUEST, found, none, likelihoods=True) == _Passes()


LITTLE = replace(GAIN, difference=-0.1, low=-0.15, high=-0.05)
LOSS = replace(GAIN, difference=-0.3, low=-0.35, high=-0.25)
MUCH = replace(GAIN, difference=-0.9, low=-0.95, high=-0.85)


@pytest.mark.parametrize(
    ("score", "on_owls", "on_mice", "said"),
    [
        (None, GAIN, LOSS, "at most 61.00, without it 90.00; by itself, compared with"),
        (0.65, LITTLE, LOSS, "65.00, without it 90.00; by itself, compared with"),
        (0.65, GAIN, GAIN, "65.00, without it 90.00"),
    ],
)
def test_why_a_domains_best_run_has_no_part_in_the_generalist_is_told(
    score: float | None, on_owls: Comparison, on_mice: Comparison, said: str
) -> None:
    """By the domains of the mixture: how the run does on others had no part in it."""
    pair, three = Recipe.mean([A, B]), Recipe.mean([A, B, C])
    steps = (
        Step(Recipe.mean([A]).digest, (A,), 0.8, None, kept=True),
        Step(Recipe.mean([C]).digest, (C,), 0.5, None, kept=False),
        Step(pair.digest, (A, B), 0.9, None, kept=True),
        Step(three.digest, (A, B, C), score, None if score else 0.61, kept=False),
    )
    cells = {
        "newts": DomainScore(0.1, MUCH),
        "owls": DomainScore(0.95, on_owls),
        "mice": DomainScore(0.5, on_mice),
    }
    found = report(
        row(pair, "greedy"),
        selections=(Selection("greedy", "not_worse", steps, pair, 0.9),),
        best_runs=(BestRun("mice", B, cells), BestRun("owls", C, cells)),
    )
    (told,) = [line for line in domain_sentences(found) if "left out" in line]
    assert told.startswith(f"greedy left out c, the best run of owls: with it the held-out score is {said}")
    loses = "does least well on mice: -30.00 points (95% interval -35.00 to -25.00, n = 540)"
    assert told.endswith(loses) is (on_mice is LOSS)
