"""What a soup among domains is judged by: a specialist by its domain, a generalist by mixture and base."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stockpot.entities import (
    Aim,
    Comparison,
    Digest,
    DomainScore,
    Mixture,
    ModelVersion,
    Recipe,
    ReportRow,
    SoupReport,
    SoupRequest,
    tags,
)
from stockpot.errors import BadRequest
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.watching import Silent
from stockpot.workflow.publishing.alias import Aliases, Ruling, alias_of, domains_for, owed_alias
from stockpot.workflow.publishing.verdict import Verdict, earns_alias, gains, judge, sentence
from stockpot.workflow.selecting.curve import primary
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")
REQUEST = SoupRequest(model="birds", task="t", sweep="s")
Scores = list[float]
OWLS, MICE = 300, 300
AIM = Aim(("owls",) * OWLS + ("mice",) * MICE, {"owls": 1.0, "mice": 1.0})


def gain(middle: float, split: str = "test") -> Comparison:
    return Comparison(split, 540, middle, middle - 0.001, middle + 0.001, 0.95, None)


def row(*methods: str, on_the_mixture: float, own: float | None = None) -> ReportRow:
    found = ReportRow("soup", methods, Recipe.mean([A, B]), {"test": 0.8}, {"test": gain(on_the_mixture)})
    return replace(found, own=None if own is None else gain(own, "test of owls"))


def report(*rows: ReportRow) -> SoupReport:
    cells = {domain: DomainScore(0.8, None) for domain in ("owls", "mice")}
    best = ReportRow("best single", (), Recipe.mean([A]), {"test": 0.8}, {}, domains=cells)
    mixture = Mixture(AIM.share, {"owls": OWLS, "mice": MICE}, (), {})
    return SoupReport(REQUEST, (best, *rows), (), (), (), (), mixture=mixture)


@pytest.mark.parametrize(
    ("on_the_mixture", "own", "verdict"), [(-0.3, 0.1, Verdict.BETTER), (0.3, -0.1, Verdict.WORSE)]
)
def test_a_specialist_is_judged_on_its_domain_alone(
    on_the_mixture: float, own: float, verdict: Verdict
) -> None:
    found = row("specialist:owls", on_the_mixture=on_the_mixture, own=own)
    assert judge(found, "test") is verdict
    assert [*map(alias_of, domains_for(found))] == ["challenger-owls"]
    assert earns_alias(found, report(found), "owls") is (own > 0)
    assert f"{own * 100:+.2f} points" in sentence(found, "test", None)
    assert "on split test of owls" in sentence(found, "test", None)


def test_a_specialist_that_is_the_generalist_as_well_is_judged_on_the_mixture_and_may_have_both_aliases() -> (
    None
):
    found = row("greedy", "specialist:owls", on_the_mixture=-0.3, own=0.1)
    assert judge(found, "test") is Verdict.WORSE
    assert [*map(alias_of, domains_for(found))] == ["challenger", "challenger-owls"]
    assert not earns_alias(found, report(found))
    assert earns_alias(found, report(found), "owls")


@pytest.mark.parametrize(
    ("on_mice", "verdict"),
    [(0.1, Verdict.BETTER), (0.0005, Verdict.NOT_BETTER), (-0.1, Verdict.NOT_BETTER)],
)
def test_one_specialist_of_two_domains_is_better_where_it_is_on_both_and_has_the_alias_of_each_by_itself(
    on_mice: float, verdict: Verdict
) -> None:
    found = row("specialist:owls", "specialist:mice", on_the_mixture=-0.3, own=0.1)
    found = replace(found, own_beside={"mice": gain(on_mice, "test of mice")})
    told = report(found)
    assert judge(found, "test") is verdict
    assert [*map(alias_of, domains_for(found))] == ["challenger-mice", "challenger-owls"]
    assert earns_alias(found, told, "owls")
    assert earns_alias(found, told, "mice") is (on_mice > 0)
    said = sentence(found, "test", None)
    assert "better than the best run of owls: +10.00 points" in said
    assert f"than the best run of mice: {on_mice * 100:+.2f} points" in said
    assert [one.split for one in gains(found, told)] == ["test of owls", "test of mice"]
    assert judge(replace(found, own=gain(-0.1), own_beside={"mice": gain(-0.2)}), "test") is Verdict.WORSE
    unknown = replace(found, own_beside=None)
    assert not earns_alias(unknown, told, "mice"), "an older report does not tell of it"
    assert earns_alias(unknown, told, "owls")


def test_where_the_best_single_has_no_score_on_a_domain_nothing_earns_its_alias() -> None:
    """As by a metric that is undefined there. It was measured all the same: the walk goes on."""
    nothing = Comparison("test of owls", OWLS, math.nan, -math.inf, math.inf, 0.95, None)
    found = replace(row("specialist:owls", on_the_mixture=0.1), own=nothing)
    told = report(found)
    best = replace(told.rows[0], domains={"mice": DomainScore(0.8, None)})
    told = replace(told, request=replace(REQUEST, margin="-1%"), rows=(best, found))
    assert not earns_alias(found, told, "owls")
    assert not earns_alias(replace(found, own=gain(0.1)), told, "owls"), "nor is a part of nothing a margin"
    ruling = Aliases(*(cast("Any", None),) * 5, told, Silent(), "ann").ruling(found, "owls")
    assert ruling.why.startswith("It is not called challenger-owls: +nan points")


def test_a_generalist_that_may_be_worse_than_no_fine_tuning_has_no_alias_and_that_is_told() -> None:
    better = row("greedy", on_the_mixture=0.1)
    assert earns_alias(better, report(better)), "nothing is known of the base"
    kept = replace(better, versus_base=gain(0.05))
    assert earns_alias(kept, report(kept))
    worse = replace(better, versus_base=gain(-0.05))
    assert not earns_alias(worse, report(worse))
    maybe = replace(better, versus_base=gain(-0.0045))
    assert not earns_alias(maybe, report(maybe)), "by the interval's lower end"
    nothing = cast("Any", None)
    why = Aliases(*(nothing,) * 5, report(worse), Silent(), "ann").ruling(worse).why
    assert why.startswith("It is not called challenger: +10.00 points")
    assert "compared with the base, -5.00 points" in why


def test_a_specialist_is_not_asked_whether_the_mixture_is_better_than_the_base() -> None:
    found = replace(row("specialist:owls", on_the_mixture=-0.3, own=0.1), versus_base=gain(-0.2))
    assert earns_alias(found, report(found), "owls")


def judge_of(found: ReportRow, holder: Scores | None, *others: ReportRow) -> Aliases:
    """Decides where version 3 of these scores holds every alias, or nobody any."""
    held = ModelVersion("birds", "3", None, None, {})
    known = {Recipe.mean([C]).digest: SimpleNamespace(version="3")}
    of_holder = replace(row("uniform", on_the_mixture=0.0), recipe=Recipe.mean([C]))
    best_on_owls = [1.0] * OWLS + [0.0] * MICE
    inner = TableEvaluator(
        lambda recipe: holder or [] if recipe == of_holder.recipe else best_on_owls,
        n=OWLS + MICE,
        split="test",
    )

    def version(uri: str) -> ModelVersion:
        if holder is None:
            raise BadRequest(f"no {uri}")
        return held

    return Aliases(
        cast("Any", SimpleNamespace(version=version)),
        cast("Any", SimpleNamespace(registration=lambda _, recipe: known.get(recipe))),
        cast("Any", None),
        cast("Any", SimpleNamespace(groups=lambda _: None)),
        SharedEvaluator(inner, MemoryStore(), aim=AIM),
        report(found, of_holder, *others),
        Silent(),
        "ann",
    )


def alone(*methods: str, run: Digest = B) -> ReportRow:
    return replace(row(*methods, on_the_mixture=-0.3), recipe=Recipe.mean([run]))


def test_a_domains_best_run_has_its_alias_where_nobody_has_and_that_is_told() -> None:
    found = alone("specialist:owls")
    ruling = judge_of(found, None).ruling(found, "owls")
    assert ruling.earned
    assert ruling.why == (
        "challenger-owls was nobody's, and no soup of owls was found: this is its best run, by its own "
        "held-out examples."
    )
    assert judge(found, "test") is Verdict.NO_SOUP
    assert sentence(found, "test", None) == "soup: no soup: the best run of owls alone"
    assert gains(found, report(found)) == [], "it is the yardstick itself"
    soup = row("specialist:owls", on_the_mixture=-0.3, own=0.1)
    assert judge_of(soup, None).ruling(soup, "owls") == Ruling(earned=True)


@pytest.mark.parametrize(("on_owls", "earned"), [(0.5, True), (1.0, False)])
def test_a_domains_best_run_takes_its_alias_only_where_it_is_shown_not_to_be_worse(
    on_owls: float, *, earned: bool
) -> None:
    """By the domain alone: on all others it may be worse. With a margin above zero a twin is not enough."""
    holder = [on_owls - place % 2 / 10 * earned for place in range(OWLS)] + [1.0] * MICE
    found = alone("specialist:owls")
    aliases = judge_of(found, holder)
    aliases = replace(aliases, report=replace(aliases.report, request=replace(REQUEST, margin=0.1)))
    ruling = aliases.ruling(found, "owls")
    assert (ruling.earned, ruling.holder) == (earned, "models:/birds/3")
    assert "on split test of owls" in ruling.why


def test_one_run_that_greedy_ended_in_has_no_generalists_alias() -> None:
    """Unless it is registered in a soup's place, which the request must ask for."""
    both = alone("greedy", "specialist:owls")
    assert domains_for(both) == ("owls",)
    assert domains_for(both, stands_in=True) == ("", "owls")
    assert domains_for(alone("greedy")) == ()
    assert domains_for(row("uniform", on_the_mixture=0.1)) == ()


def test_an_alias_is_free_for_a_version_that_never_had_it_where_nobody_has() -> None:
    found = row("specialist:owls", "specialist:mice", on_the_mixture=-0.3, own=0.1)
    version = ModelVersion("birds", "4", None, None, {tags.ALIAS: "challenger-owls"})
    nobodys = judge_of(found, None)
    assert [nobodys.is_free_for(version, domain) for domain in ("owls", "mice")] == [False, True]
    assert not judge_of(found, [0.0] * (OWLS + MICE)).is_free_for(version, "mice")


def owed(
    row: ReportRow, *given: str, taken: Sequence[str] = (), stands_in: bool = False, by: float = 0.1
) -> str:
    """The alias that a version of it would get that was given these; others hold those that are taken."""

    def version(uri: str) -> ModelVersion:
        if uri.rpartition("@")[2] in taken:
            return ModelVersion("birds", "3", None, None, {})
        raise BadRequest(f"no {uri}")

    made = ModelVersion("birds", "4", None, None, {tags.ALIAS: ",".join(given)})
    tracker = cast("Any", SimpleNamespace(version=version))
    return owed_alias(made, row.recipe.digest, report(row), tracker, stands_in=stands_in)


def test_an_alias_is_owed_for_each_domain_and_once() -> None:
    """Else a request whose answer is known would be walked again for ever, or never again."""
    two = row("specialist:owls", "specialist:mice", on_the_mixture=-0.3, own=0.1)
    two = replace(two, own_beside={"mice": gain(0.1)})
    assert owed(two) == "challenger-mice"
    assert owed(two, "challenger-mice") == "challenger-owls"
    assert owed(two, "challenger-mice", "challenger-owls") == ""
    assert owed(two, "challenger-mice", taken=["challenger-owls"]) == ""
    best = alone("greedy", "specialist:owls", run=A)
    assert owed(best) == "challenger-owls"
    assert owed(best, "challenger-owls") == ""
    assert owed(best, "challenger-owls", stands_in=True) == "challenger"
    other = alone("specialist:owls")
    assert owed(other, "challenger-owls", stands_in=True) == "", "another run is the best single candidate"


@pytest.mark.parametrize(
    ("found", "earned"),
    [
        (row("specialist:owls", on_the_mixture=0.1, own=0.1), True),
        (row("specialist:mice", on_the_mixture=0.1, own=0.1), False),
        (row("greedy", on_the_mixture=0.1), False),
    ],
)
def test_the_holder_is_compared_with_on_what_the_soup_is_for(found: ReportRow, *, earned: bool) -> None:
    """The soup is better on owls than the holder, and worse on mice by more."""
    before = [0.9 - place % 2 / 10 for place in range(OWLS)] + [1.0] * MICE
    (domain,) = domains_for(found)
    ruling = judge_of(found, before).ruling(found, domain)
    assert (ruling.earned, ruling.holder) == (earned, "models:/birds/3")
    assert ("on split test of" in ruling.why) is (found.own is not None)


def test_a_margin_in_percent_is_one_of_the_best_singles_score_on_the_domain() -> None:
    """One point on owls, where that one scores 20; four on the mixture, where it scores 80."""
    found = row("specialist:owls", on_the_mixture=0.1, own=-0.02)
    aliases = judge_of(found, [1.0 + place % 2 / 25 for place in range(OWLS)] + [0.0] * MICE)
    best = replace(aliases.report.rows[0], domains={"owls": DomainScore(0.2, None)})
    asked = replace(REQUEST, margin="-5%")
    told = replace(aliases.report, request=asked, rows=(best, *aliases.report.rows[1:]))
    assert not earns_alias(found, told, "owls")
    assert earns_alias(replace(found, own=gain(-0.008)), told, "owls")
    better = replace(found, own=gain(0.1))
    ruling = replace(aliases, report=replace(told, rows=(best, better, *told.rows[2:]))).ruling(
        better, "owls"
    )
    assert (ruling.earned, ruling.holder) == (False, "models:/birds/3"), "two points behind the holder"


@pytest.mark.parametrize("found", [row("specialist:owls", on_the_mixture=0.1, own=0.1), alone("greedy")])
def test_the_holder_is_compared_with_by_origins(found: ReportRow) -> None:
    two_each = [place // 2 for place in range(OWLS + MICE)]
    aliases = judge_of(found, [0.9 - place % 2 / 10 for place in range(OWLS)] + [1.0] * MICE)
    bench = cast("Any", SimpleNamespace(groups=lambda _: two_each))
    ruling = replace(aliases, bench=bench).ruling(found, "owls" if found.own else "")
    assert f"n = {150 if found.own else 300})" in ruling.why


def test_no_curve_leads_to_a_specialist() -> None:
    soup, other = Recipe.mean([A, B]), Recipe.mean([A, C])
    specialist = (("specialist:owls",), soup)
    assert primary([specialist]) is None
    assert primary([specialist, (("uniform",), other)]) == (("uniform",), other)
    both = (("uniform", "specialist:owls"), soup)
    assert primary([both]) == both
