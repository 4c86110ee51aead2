"""Which domain's runs cost which other, and what each domain's own choice gives, on planted scores."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from stockpot.documents import from_document, to_document
from stockpot.entities import (
    Aim,
    Candidate,
    CandidatePoint,
    Checkpoint,
    Digest,
    Job,
    Mixture,
    OverlayRule,
    Recipe,
    ReportRow,
    Run,
    Selection,
    SoupReport,
    SoupRequest,
    WeightsFormat,
    WeightsSource,
    digest_of_bytes,
)
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.watching import Silent
from stockpot.workflow.plan import _among_domains, _of_every_way, _Passes
from stockpot.workflow.publishing.collisions_told import collision_sentences, collision_tables
from stockpot.workflow.publishing.domains_told import domain_sentences
from stockpot.workflow.publishing.page import collisions_in_markdown
from stockpot.workflow.selecting.domains import Domains
from stockpot.workflow.selecting.every_way import (
    HOLDS_NONE,
    MEAN_OF_SPECIALISTS,
    NO_TIME,
    NOTHING_LEFT,
    Ways,
    every_way,
    with_every_way,
)
from stockpot.workflow.selecting.specialists import Specialist
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

if TYPE_CHECKING:
    from stockpot.ports import Bench

REQUEST = SoupRequest(model="birds", task="t", sweep="s", shifts=("fog",), compare_all=True)
RUNS = {"o1": "owls", "o2": "owls", "m1": "mice", "m2": "mice", "both": "owls,mice", "all": "*"}
NAMED = {run: digest_of_bytes(run.encode()) for run in RUNS}
EACH = 40
LABELS = ("owls",) * EACH + ("mice",) * EACH
Planted = Callable[[frozenset[str]], Sequence[float]]
"""What a recipe of these runs scores on each example."""


def names(recipe: Recipe) -> frozenset[str]:
    return frozenset(run for run, digest in NAMED.items() if digest in recipe.checkpoints)


def collide(runs: frozenset[str]) -> list[float]:
    """Runs of mice take 14 of 40 right answers on owls away; runs of owls change nothing on mice."""
    owls = [float(i % 20 > 0 and not ({"m1", "m2"} & runs and i < 14)) for i in range(EACH)]
    return [*owls, *[float(i % 20 > 0 and (bool({"m1", "m2"} & runs) or i > 20)) for i in range(EACH)]]


def agree(runs: frozenset[str]) -> list[float]:
    """Each domain's runs help on its own examples alone."""
    return [
        *[float(bool({"o1", "o2"} & runs) or i > 14) for i in range(EACH)],
        *[float(bool({"m1", "m2"} & runs) or i > 14) for i in range(EACH)],
    ]


class Grouped:
    """So many examples in a row have one origin."""

    def __init__(self, size: int, n: int) -> None:
        self._origins = [place // size for place in range(n)] if size > 1 else None

    def groups(self, _split: str) -> Sequence[int] | None:
        return self._origins


def candidates(runs: Mapping[str, str] = RUNS) -> list[Candidate]:
    return [
        Candidate(
            Run(run, run, "7", "FINISHED", 1, {}, {}, {}),
            WeightsSource(run, WeightsFormat.SAFETENSORS, "m.safetensors", "u", None, 1),
            "",
            Checkpoint(NAMED[run], 1, (), NAMED[run]),
        )
        for run in runs
    ]


def domains_(labels: Sequence[str] = LABELS, mixed: Sequence[str] = ("owls", "mice")) -> Domains:
    aim = Aim(tuple(labels), dict.fromkeys(mixed, 1.0))
    return Domains({"validation": aim, "test": aim}, RUNS)


def mean_of(*runs: str) -> Recipe:
    return Recipe.mean([NAMED[run] for run in runs])


def specialist(domain: str, *runs: str) -> Specialist:
    protocol = TableEvaluator(lambda _: [], n=0).protocol
    found = Selection(f"specialist:{domain}", "not_worse", (), mean_of(*runs), 0.5)
    return Specialist(domain, found, protocol)


OWN = (specialist("owls", "o1", "o2"), specialist("mice", "m1"))


def ways_of(
    generalist: Recipe,
    own: Sequence[Specialist] = OWN,
    rule: OverlayRule | None = None,
    base: Candidate | None = None,
    mixed: Sequence[str] = ("owls", "mice"),
) -> Ways:
    domains = domains_(mixed=mixed)
    return every_way([(("greedy", "uniform"), generalist)], own, candidates(), domains, rule, base)


def told(  # noqa: PLR0913 - each a part of one scene, by name
    generalist: Recipe,
    planted: Planted = collide,
    *,
    labels: Sequence[str] = LABELS,
    late: Callable[[], bool] = lambda: False,
    own: Sequence[Specialist] = OWN,
    base: Candidate | None = None,
    by_recipe: Callable[[str, Recipe], Sequence[float]] | None = None,
    sharing: int = 1,
    mixed: Sequence[str] = ("owls", "mice"),
) -> SoupReport:
    """The report of a request, with what is measured beside. `by_recipe`: what each scores on each split, in
    place of `planted`. `sharing`: so many examples have one origin.
    """

    def table(split: str) -> Callable[[Recipe], Sequence[float]]:
        return lambda recipe: by_recipe(split, recipe) if by_recipe else planted(names(recipe))[:n]

    aims = domains_(labels, mixed).aims
    n = len(labels)
    evaluators = {
        split: SharedEvaluator(
            TableEvaluator(table(split), n=n, split=split),
            MemoryStore(),
            aim=aims.get(split),
        )
        for split in ("validation", "test", "fog")
    }
    points = tuple(CandidatePoint(run, run, one, 0.5, None, None) for run, one in NAMED.items())
    rows = (
        ReportRow("best single", (), mean_of("o1"), {}, {}),
        ReportRow("greedy soup", ("greedy",), generalist, {}, {}),
    )
    mixture = Mixture(dict.fromkeys(mixed, 1 / len(mixed)), {"mice": EACH, "owls": EACH}, (), RUNS)
    row = ReportRow("base", (), mean_of("o2"), {}, {})
    report = SoupReport(
        REQUEST, rows, (), points, (), (), mixture=mixture, base=row, references=(), contrasts=()
    )
    ways = ways_of(generalist, own, None, base, mixed)
    return with_every_way(report, ways, evaluators, cast("Bench", Grouped(sharing, n)), late, Silent())


def text(report: SoupReport) -> str:
    return " | ".join(collision_sentences(report))


def test_a_planted_collision_is_found_with_its_sign_and_told() -> None:
    report = told(mean_of("o1", "m1", "all"))
    cost = {one.domain: one.costs for one in report.collisions or ()}
    found = cost["mice"]["test"]
    assert found["owls"].difference == pytest.approx(13 / EACH)
    assert found["owls"].low > 0
    assert found["owls"].n == EACH
    assert found["owls"].level == pytest.approx(1 - 0.05 / 4), "of all four at once, by Holm"
    assert cost["owls"]["test"]["mice"].level == pytest.approx(1 - 0.05 / 2), "of the two that are left"
    assert found["mice"].difference == pytest.approx(-19 / EACH)
    assert found["mice"].high < 0
    assert {scored: one.difference for scored, one in cost["owls"]["test"].items()} == {"owls": 0, "mice": 0}
    assert cost["mice"]["validation"].keys() == {"owls", "mice"}
    assert "the runs of mice cost owls most: without them, the greedy soup scores +32.50 points" in text(
        report
    )
    assert "n = 40" in text(report)
    assert "of 4 differences at once, by Holm" in text(report)
    assert text(report) in " | ".join(domain_sentences(report))


def test_where_no_domain_costs_another_that_is_told() -> None:
    report = told(mean_of("o1", "m1", "all"), agree)
    for one in report.collisions or ():
        assert one.costs["test"][one.domain].high < 0, "its own domain loses"
    assert "no domain's runs are seen to cost another in the greedy soup: the greatest " in text(report)
    assert "on owls without the runs of mice, is +0.00 points" in text(report)
    assert "of 4 differences at once, by Holm" in text(report)
    assert "cost owls most" not in text(report)


def test_that_runs_cost_their_own_domain_is_no_cost_of_another() -> None:
    def own(runs: frozenset[str]) -> list[float]:
        return [*[1.0] * EACH, *[float(i > 20 or "m1" not in runs) for i in range(EACH)]]

    report = told(mean_of("o1", "m1", "all"), own)
    assert (report.collisions or ())[0].costs["test"]["mice"].low > 0
    assert "no domain's runs are seen to cost another" in text(report)


def test_a_cost_that_may_be_chance_is_told_as_none() -> None:
    def slips(runs: frozenset[str]) -> list[float]:
        return [float(i > 1 or "m1" not in runs) for i in range(2 * EACH)]

    report = told(mean_of("o1", "m1", "all"), slips)
    assert (report.collisions or ())[0].costs["test"]["owls"].difference == 2 / EACH
    assert "the greatest difference, on owls without the runs of mice, is +5.00 points" in text(report)
    assert "cost owls most" not in text(report)


def test_what_is_measured_beside_is_compared_by_origins() -> None:
    report = told(mean_of("o1", "m1", "all"), sharing=2)
    (row,) = report.references or ()
    whole = [one.comparison.n for one in report.contrasts or ()]
    assert {row.versus_best["test"].n, *whole} == {EACH}, (
        "two domains of so many examples, two of each origin"
    )
    cells = [cell.versus_best for cell in (row.domains or {}).values()]
    costs = [one for left_out in report.collisions or () for one in left_out.costs["test"].values()]
    assert [one.n for one in (*filter(None, cells), *costs)] == [EACH // 2] * 6


def test_what_a_domain_costs_is_not_told_of_examples_without_a_score() -> None:
    def undefined(runs: frozenset[str]) -> list[float]:
        """On owls for what is left without the runs of mice."""
        nothing = runs == {"o1", "all"}
        return [math.nan if nothing and i < EACH else score for i, score in enumerate(collide(runs))]

    cost = {
        one.domain: one.costs["test"] for one in told(mean_of("o1", "m1", "all"), undefined).collisions or ()
    }
    assert ({*cost["mice"]}, {*cost["owls"]}) == ({"mice"}, {"owls", "mice"})
    assert cost["mice"]["mice"].level == pytest.approx(1 - 0.05 / 3), "of the three that are known"


def test_of_a_domain_of_few_origins_nothing_is_said() -> None:
    report = told(mean_of("o1", "m1", "all"), lambda runs: collide(runs)[30:50], labels=LABELS[30:50])
    assert "too few origins" in text(report)
    assert "most" not in text(report)
    assert "too few origins" in collisions_in_markdown(report)


@pytest.mark.parametrize(
    ("generalist", "owls", "mice"),
    [
        (("o1", "o2"), NOTHING_LEFT, HOLDS_NONE),
        (("o1",), NOTHING_LEFT, HOLDS_NONE),
        (("both", "all"), HOLDS_NONE, HOLDS_NONE),
        (("o1", "m1"), ("m1",), ("o1",)),
        (("o1", "m1", "both", "all", "o2"), ("m1", "both", "all"), ("o1", "both", "all", "o2")),
    ],
)
def test_runs_of_one_domain_alone_leave_and_all_others_stay(
    generalist: Sequence[str], owls: str | Sequence[str], mice: str | Sequence[str]
) -> None:
    found = ways_of(mean_of(*generalist)).without
    for domain, left in (("owls", owls), ("mice", mice)):
        assert found[domain] == (left if isinstance(left, str) else mean_of(*left))


def test_a_cell_without_a_number_says_why() -> None:
    report = told(mean_of("o1", "o2"))
    (of_test,) = collision_tables(report)
    assert dict(of_test.lines) == {"owls": (NOTHING_LEFT,) * 2, "mice": (HOLDS_NONE,) * 2}
    assert NOTHING_LEFT in text(report)
    assert HOLDS_NONE in collisions_in_markdown(report)
    assert "most" not in text(report)
    assert "no domain's runs are seen" not in text(report), "nobody looked"


def test_once_time_is_up_what_was_not_measured_is_told() -> None:
    report = told(mean_of("o1", "m1", "all"), late=lambda: True)
    assert [one.why for one in report.collisions or ()] == [NO_TIME, NO_TIME]
    assert report.references == ()
    assert f"no row for the {MEAN_OF_SPECIALISTS}: {NO_TIME}" in report.notes


def test_each_domains_own_choice_is_averaged_across_and_compared_with_the_generalist_and_the_start() -> None:
    generalist = mean_of("o1", "all")
    report = told(generalist)
    (row,) = report.references or ()
    assert row.recipes == (Recipe.grouped([[NAMED["o1"], NAMED["o2"]], [NAMED["m1"]]]),)
    scores = collide(frozenset({"o1", "o2", "m1"}))
    owls, mice = sum(scores[:EACH]) / EACH, sum(scores[EACH:]) / EACH
    assert row.scores["test"] == row.scores["validation"] == pytest.approx((owls + mice) / 2)
    assert row.scores["fog"] == pytest.approx(sum(scores) / len(scores))
    assert {domain: cell.score for domain, cell in (row.domains or {}).items()} == {
        "owls": owls,
        "mice": mice,
    }
    start = collide(frozenset({"o1", "all"}))
    whole = (sum(start[:EACH]) + sum(start[EACH:])) / EACH / 2
    told_ = {one.before: one.comparison for one in report.contrasts or ()}
    assert told_["greedy soup"].difference == pytest.approx(row.scores["test"] - whole)
    assert {*told_} == {"greedy soup", "base"}
    assert "Each domain's greedy soup by its own score, then the mean across: " in " ".join(
        domain_sentences(report)
    )
    assert row.versus_best["fog"].difference == pytest.approx(
        sum(scores) / len(scores) - sum(collide(frozenset({"o1"}))) / len(scores)
    )


def test_where_a_domain_has_no_specialist_there_is_no_mean_of_all() -> None:
    report = told(mean_of("o1", "m1"), own=OWN[:1])
    assert not report.references
    assert f"no row for the {MEAN_OF_SPECIALISTS}: not each domain of the mixture has one" in report.notes
    aim = Aim((*LABELS, "newts"), {"owls": 1.0, "mice": 1.0, "newts": 1.0})
    three = Domains({"validation": aim, "test": aim}, RUNS)
    assert every_way([(("greedy",), mean_of("o1"))], OWN, candidates(), three, None).across is None
    alone = told(mean_of("o1", "m1"), own=OWN[:1], mixed=("owls",))
    assert not alone.references, "of one it is that one"
    assert f"no row for the {MEAN_OF_SPECIALISTS}: the mixture is of one domain" in alone.notes


def test_statistics_are_laid_over_soups_alone() -> None:
    rule = OverlayRule("train", 512, "bn/1", Digest("sha256:d"))
    found = ways_of(mean_of("o1", "o2", "m1"), rule=rule)
    assert found.across is not None
    assert found.across.overlay == rule
    assert found.without["mice"] == replace(mean_of("o1", "o2"), overlay=rule)
    assert found.without["owls"] == mean_of("m1")


def test_without_greedy_no_domain_is_left_out() -> None:
    found = every_way([(("uniform",), mean_of("o1", "m1"))], OWN, candidates(), domains_(), None)
    assert (found.generalist, found.without) == (None, {})
    assert found.across is not None


def test_a_plan_counts_what_is_measured_beside() -> None:
    def cost(request: SoupRequest = REQUEST, runs: Mapping[str, str] = RUNS) -> _Passes:
        return _of_every_way(request, candidates(runs), domains_())

    # Without each of two domains, on two splits; the mean of the specialists on all three.
    assert cost() == _Passes(held_out=2 + 1, reported=2 + 2, soups=2 + 1)
    assert cost(replace(REQUEST, shifts=("fog", "night"))) == cost() + _Passes(reported=1)
    assert cost(runs={run: RUNS[run] for run in ("o1", "all")}) == _Passes(1, 1, 1), "no mean"
    assert cost(replace(REQUEST, methods=("uniform",))) == _Passes(1, 2, 1), "the mean alone"
    # Three tries and TIES; the chosen one and TIES on the other two.
    assert cost(replace(REQUEST, base="start")) == cost() + _Passes(3 + 1, 2 + 2, 3 + 1)
    alone = _of_every_way(replace(REQUEST, base="start"), candidates({"o1": "owls"}), domains_())
    assert alone == _of_every_way(REQUEST, candidates({"o1": "owls"}), domains_()) + _Passes(3, 2, 3), (
        "no TIES"
    )
    assert cost(replace(REQUEST, base="start", methods=("uniform",))) == _Passes(1, 2, 1)
    off = _among_domains(replace(REQUEST, compare_all=False), candidates(), domains_(), likelihoods=False)
    assert _among_domains(REQUEST, candidates(), domains_(), likelihoods=False) == off + cost()
    for none in (Domains(), None):
        assert _among_domains(REQUEST, candidates(), none, likelihoods=False) == _Passes()


def test_a_report_survives_json_and_a_request_that_does_not_ask_is_what_it_was() -> None:
    report = told(mean_of("o1", "m1", "all"))
    assert from_document(SoupReport, to_document(report)) == report
    asked = SoupRequest(model="birds", task="t", sweep="s", objective="worst")  # type: ignore[arg-type]  # fits
    before = "sha256:3024264d9df12af71d86341d1e2320e9c5fafd7fc0419fc9eb6f652139ef5184"
    assert Job.of(asked, []).name == before, "as it was before there was such an option"
    assert Job.of(replace(asked, compare_all=True), []).name != before
    assert "compare_all" not in to_document(asked)
    assert to_document(REQUEST)["compare_all"] is True
    assert from_document(SoupRequest, to_document(asked)) == asked
