"""Which rows of a report become versions: soups, and one run where it is the best of a domain."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from stockpot.entities import Comparison, Digest, PublishedSoup, Recipe, Register, ReportRow, SoupState
from stockpot.entities import SoupReport as Report
from stockpot.testing.store_values import report
from stockpot.watching import Silent
from stockpot.workflow.publishing.alias import Aliases
from stockpot.workflow.publishing.publish import Publisher

if TYPE_CHECKING:
    from stockpot.workflow.selecting.ranking import Ranking

A, B = (Digest(f"sha256:{letter * 64}") for letter in "ab")
BEST, OTHER, SOUP = Recipe.mean([A]), Recipe.mean([B]), Recipe.mean([A, B])
NOBODY = cast("Any", None)


@dataclass(frozen=True)
class Noting(Publisher):
    """Whatever it is asked for becomes a version."""

    asked: list[tuple[Recipe, tuple[str, ...], bool, bool]] = field(default_factory=list)

    def _publish(
        self,
        report: Report,  # noqa: ARG002 - the walk's
        row: ReportRow,
        ranking: "Ranking",  # noqa: ARG002
        aliases: Aliases,  # noqa: ARG002
        *,
        stands_in: bool = False,
        just_made: bool = False,
    ) -> PublishedSoup:
        self.asked.append((row.recipe, row.methods, stands_in, just_made))
        return PublishedSoup(
            row.methods, row.recipe.digest, None, f"models:/birds/{len(self.asked)}", "", (), None
        )


def row(recipe: Recipe, held_out: float, *methods: str, gain: float | None = None) -> ReportRow:
    found = {} if gain is None else {"test": Comparison("test", 540, gain, gain, gain, 0.95, None)}
    return ReportRow("row", methods, recipe, {"validation": held_out, "test": held_out}, found)


def published(
    rows: Sequence[ReportRow], **asked: object
) -> tuple[list[tuple[Recipe, tuple[str, ...], bool, bool]], list[SoupState]]:
    """What was asked for, in order; what became of each row, in the report's."""
    one = report()
    request = replace(one.request, select_on="validation", report_on="test", shifts=(), **asked)  # type: ignore[arg-type]  # its fields
    publisher = Noting(*(NOBODY,) * 5, Silent(), NOBODY)
    soups = publisher.publish(replace(one, request=request, rows=tuple(rows)), NOBODY, NOBODY)
    return publisher.asked, [soup.state for soup in soups]


DOMAINS = (
    row(BEST, 0.9),
    row(BEST, 0.9, "greedy", "specialist:owls"),
    row(SOUP, 0.8, "uniform", gain=-0.1),
    row(OTHER, 0.7, "specialist:mice", gain=-0.2),
)


def test_the_best_run_of_a_domain_is_registered_in_the_order_of_held_out_scores() -> None:
    asked, states = published(DOMAINS)
    assert asked == [
        (OTHER, ("specialist:mice",), False, False),
        (BEST, ("greedy", "specialist:owls"), False, False),
    ]
    assert states == [SoupState.REGISTERED, SoupState.LEFT_OUT, SoupState.REGISTERED]


def test_a_sweep_without_domains_registers_no_single_run() -> None:
    asked, _ = published([row(BEST, 0.9), row(BEST, 0.9, "greedy"), row(SOUP, 0.8, "uniform", gain=-0.1)])
    assert asked == []


def test_in_a_soups_place_the_best_single_is_registered_under_what_tells_most_of_it() -> None:
    flat = [row(BEST, 0.9), row(BEST, 0.9, "greedy"), row(SOUP, 0.8, "uniform", gain=-0.1)]
    assert published(flat, or_best_single=True)[0] == [(BEST, (), True, False)]
    asked, _ = published(DOMAINS, or_best_single=True)
    assert asked[2:] == [(BEST, ("greedy", "specialist:owls"), True, True)], "made a moment ago"
    better = [*DOMAINS[:2], row(SOUP, 0.95, "uniform", gain=0.1), DOMAINS[3]]
    asked, _ = published(better, or_best_single=True)
    assert [recipe for recipe, *_ in asked] == [OTHER, BEST, SOUP], "a soup is there"


@pytest.mark.parametrize("or_best_single", [False, True])
def test_who_wants_better_models_alone_gets_no_single_run_but_in_a_soups_place(
    *, or_best_single: bool
) -> None:
    asked, _ = published(DOMAINS, register=Register.BETTER, or_best_single=or_best_single)
    assert asked == [(BEST, ("greedy", "specialist:owls"), True, False)] * or_best_single
