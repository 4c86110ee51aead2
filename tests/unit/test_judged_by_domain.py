"""What a soup among domains is judged by: a specialist by its domain, a generalist by mixture and base."""

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
)
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.watching import Silent
from stockpot.workflow.publishing.alias import Aliases, alias_of
from stockpot.workflow.publishing.verdict import Verdict, earns_alias, judge, sentence
from stockpot.workflow.selecting.curve import primary
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")
REQUEST = SoupRequest(model="birds", task="t", sweep="s")
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
    assert alias_of(found) == "challenger-owls"
    assert earns_alias(found, report(found)) is (own > 0)
    assert f"{own * 100:+.2f} points" in sentence(found, "test", None)
    assert "on split test of owls" in sentence(found, "test", None)


def test_a_specialist_that_is_the_generalist_as_well_is_judged_on_the_mixture() -> None:
    found = row("greedy", "specialist:owls", on_the_mixture=-0.3, own=0.1)
    assert judge(found, "test") is Verdict.WORSE
    assert not earns_alias(found, report(found))
    assert alias_of(found) == "challenger"


def test_a_generalist_that_may_be_worse_than_no_fine_tuning_has_no_alias_and_that_is_told() -> None:
    better = row("greedy", on_the_mixture=0.1)
    assert earns_alias(better, report(better)), "nothing is known of the base"
    kept = replace(better, versus_base=gain(0.05))
    assert earns_alias(kept, report(kept))
    worse = replace(better, versus_base=gain(-0.05))
    assert not earns_alias(worse, report(worse))
    nothing = cast("Any", None)
    why = Aliases(*(nothing,) * 5, report(worse), Silent(), "ann").ruling(worse).why
    assert why.startswith("It is not called challenger: +10.00 points")
    assert "compared with the base, -5.00 points" in why


def test_a_specialist_is_not_asked_whether_the_mixture_is_better_than_the_base() -> None:
    found = replace(row("specialist:owls", on_the_mixture=-0.3, own=0.1), versus_base=gain(-0.2))
    assert earns_alias(found, report(found))


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
    soup = [1.0] * OWLS + [0.0] * MICE
    before = [0.9 - place % 2 / 10 for place in range(OWLS)] + [1.0] * MICE
    inner = TableEvaluator(lambda recipe: soup if recipe.is_soup else before, n=OWLS + MICE, split="test")
    holder = ModelVersion("birds", "3", None, None, {})
    known = {Recipe.mean([C]).digest: SimpleNamespace(version="3")}
    other = replace(row("uniform", on_the_mixture=0.0), recipe=Recipe.mean([C]))
    aliases = Aliases(
        cast("Any", SimpleNamespace(version=lambda _: holder)),
        cast("Any", SimpleNamespace(registration=lambda _, recipe: known.get(recipe))),
        cast("Any", None),
        cast("Any", SimpleNamespace(groups=lambda _: None)),
        SharedEvaluator(inner, MemoryStore(), aim=AIM),
        report(found, other),
        Silent(),
        "ann",
    )
    ruling = aliases.ruling(found)
    assert (ruling.earned, ruling.holder) == (earned, holder.uri)
    assert ("on split test of" in ruling.why) is (found.own is not None)


def test_no_curve_leads_to_a_specialist() -> None:
    soup, other = Recipe.mean([A, B]), Recipe.mean([A, C])
    specialist = (("specialist:owls",), soup)
    assert primary([specialist]) is None
    assert primary([specialist, (("uniform",), other)]) == (("uniform",), other)
    both = (("uniform", "specialist:owls"), soup)
    assert primary([both]) == both
