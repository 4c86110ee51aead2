"""The generalist's ingredients by other arithmetics than their mean, as rows of the comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from tests.unit.test_every_way import EACH, NAMED, candidates, mean_of, told, ways_of

from stockpot.documents import from_document, to_document
from stockpot.entities import Candidate, Digest, OverlayRule, Recipe, Score, SoupReport, digest_of_bytes
from stockpot.workflow.publishing.domains_told import domain_sentences
from stockpot.workflow.selecting.every_way import NO_TIME
from stockpot.workflow.selecting.from_base import (
    NEITHER,
    NO_TIES,
    REACHES,
    TIES,
    best_reach,
    farthest,
    from_base,
    tried,
)

START = digest_of_bytes(b"start")
GENERALIST = mean_of("o1", "m1")
FARTHER = {
    Fraction(5, 4): Recipe.linear({NAMED["o1"]: (5, 8), NAMED["m1"]: (5, 8), START: (-1, 4)}),
    Fraction(3, 2): Recipe.linear({NAMED["o1"]: (3, 4), NAMED["m1"]: (3, 4), START: (-1, 2)}),
    Fraction(2): Recipe.linear({NAMED["o1"]: (1, 1), NAMED["m1"]: (1, 1), START: (-1, 1)}),
}
ALIKE = Recipe.ties(START, [NAMED["o1"], NAMED["m1"]])


def start(digest: Digest = START) -> Candidate:
    (one,) = candidates({"o1": "owls"})
    return replace(one, checkpoint=replace(one.checkpoint, digest=digest))


class Planted:
    """So many right answers of each 40, whatever the domain; of what is not named, ten."""

    def __init__(self, right: Mapping[str, Mapping[Recipe, int]]) -> None:
        self.asked: list[tuple[str, Recipe]] = []
        self._right = right

    def __call__(self, split: str, recipe: Recipe) -> Sequence[float]:
        self.asked.append((split, recipe))
        right = self._right.get(split, {}).get(recipe, 10)
        return [float(i < right) for i in range(EACH)] * 2


def rows(report: SoupReport) -> dict[str, tuple[Recipe, ...]]:
    return {row.label: row.recipes for row in report.references or ()}


def test_of_what_lies_beyond_the_generalist_the_selecting_split_chooses_and_the_others_tell() -> None:
    five, three, two = FARTHER.values()
    planted = Planted(
        {
            "validation": {five: 20, three: 32, two: 24, mean_of("o1"): 16},
            "test": {two: 40, three: 30, GENERALIST: 12},
        }
    )
    report = told(GENERALIST, base=start(), by_recipe=planted)
    name = "greedy soup, 3/2 times as far from the base"
    assert rows(report)[name] == (three,)
    row = next(row for row in report.references or () if row.label == name)
    assert (row.scores["validation"], row.scores["test"], row.scores["fog"]) == (32 / 40, 30 / 40, 10 / 40)
    assert {domain: cell.score for domain, cell in (row.domains or {}).items()} == {
        "owls": 0.75,
        "mice": 0.75,
    }
    gains = [cell.versus_best for cell in (row.domains or {}).values()]
    for gain in (row.versus_best["test"], *gains):
        assert gain is not None
        assert gain.difference == pytest.approx(20 / 40), "of the split that tells, over the best single"
    assert {*row.versus_best} > {"test", "fog"}
    assert {split for split, recipe in planted.asked if recipe in (five, two)} == {"validation"}
    contrasts = {one.before: one.comparison for one in report.contrasts or () if one.what == "extrapolation"}
    assert {before: found.difference for before, found in contrasts.items()} == {
        "greedy soup": pytest.approx(18 / 40),
        "base": pytest.approx(20 / 40),
    }
    assert (
        "extrapolation: by how many times as far from the base, split validation scores 50.00 at 5/4, "
        "80.00 at 3/2, 60.00 at 2; 3/2 was chosen; the greedy soup itself scores 25.00"
    ) in report.notes
    sentences = " | ".join(domain_sentences(report))
    assert "Going on from the base, beyond the greedy soup: +45.00 points" in sentences
    assert f"({name}, compared with: greedy soup)" in sentences
    assert from_document(SoupReport, to_document(report)) == report


def test_ties_is_a_row_beside_the_generalist_and_the_base() -> None:
    report = told(GENERALIST, base=start(), by_recipe=Planted({"test": {ALIKE: 30, GENERALIST: 12}}))
    assert rows(report)[TIES] == (ALIKE,)
    row = next(row for row in report.references or () if row.label == TIES)
    assert (row.scores["validation"], row.scores["test"], row.models) == (10 / 40, 30 / 40, 3)
    contrasts = {one.before: one.comparison for one in report.contrasts or () if one.what == "ties"}
    assert contrasts["greedy soup"].difference == pytest.approx(18 / 40)
    assert contrasts["base"].difference == pytest.approx(20 / 40)
    assert "TIES, in place of the mean: +45.00 points" in " | ".join(domain_sentences(report))


@pytest.mark.parametrize(
    ("values", "best"),
    [((0.1, 0.3, 0.2), 1), ((0.3, 0.1, 0.3), 0), ((float("nan"), 0.1, 0.2), 2), ((float("nan"),) * 3, None)],
)
def test_of_equal_scores_the_least_reach_is_chosen_and_no_score_is_none(
    values: Sequence[float], best: int | None
) -> None:
    found = best_reach({reach: Score((value,)) for reach, value in zip(REACHES, values, strict=True)})
    assert found == (None if best is None else REACHES[best])


def test_what_was_tried_is_told_in_the_unit_of_the_tables() -> None:
    text = tried("validation", "nats", Score((-1.23456,)), {Fraction(2): Score((-1.5,))}, Fraction(2))
    assert "scores -1.5 at 2; 2 was chosen; the greedy soup itself scores -1.23456" in text


def beyond(generalist: Recipe, base: str | None = None) -> Mapping[Fraction, Recipe]:
    return ways_of(generalist, base=start(NAMED[base] if base else START)).from_base.beyond


def test_a_base_among_the_ingredients_is_told_once_or_not_at_all() -> None:
    found = beyond(mean_of("o1", "m1"), base="o1")
    assert found[Fraction(3, 2)] == Recipe.linear({NAMED["o1"]: (1, 4), NAMED["m1"]: (3, 4)})
    assert found[Fraction(2)] == mean_of("m1"), "that run itself"
    assert beyond(mean_of("o1", "m1", "m2"), base="o1")[Fraction(3, 2)] == mean_of("m1", "m2"), (
        "no second name"
    )
    assert beyond(mean_of("o1"))[Fraction(2)] == Recipe.linear({NAMED["o1"]: (2, 1), START: (-1, 1)})


@pytest.mark.parametrize(
    ("generalist", "base", "missing", "rows"),
    [
        (GENERALIST, None, f"{NEITHER}: there is none for the base", 0),
        (None, START, f"{NEITHER}: greedy was not asked", 0),
        (mean_of("o1"), NAMED["o1"], f"{NEITHER}: greedy found nothing but the base itself", 0),
        (mean_of("o1"), START, f"{NO_TIES}: it is of two runs or more, greedy found one", 3),
        (GENERALIST, NAMED["o1"], f"{NO_TIES}: it is of two runs or more, greedy found one", 3),
    ],
)
def test_where_there_are_no_such_rows_it_is_said(
    generalist: Recipe | None, base: Digest | None, missing: str, rows: int
) -> None:
    found = from_base(generalist, base, lambda recipe: recipe)
    assert (found.missing, found.ties, len(found.beyond)) == ((missing,), None, rows)


def test_without_a_base_the_report_says_so_and_has_no_such_row() -> None:
    report = told(GENERALIST)
    assert f"{NEITHER}: there is none for the base" in report.notes
    assert not {TIES, *map(farthest, REACHES)} & {*rows(report)}


@pytest.mark.parametrize("after", [0, 12, 13], ids=["at once", "one try is left", "one is chosen"])
def test_once_time_is_up_each_row_that_is_missing_is_told(after: int) -> None:
    planted = Planted({})

    def late() -> bool:
        return len(planted.asked) >= after

    report = told(GENERALIST, base=start(), by_recipe=planted, late=late)
    assert f"no row for extrapolation: {NO_TIME}" in report.notes
    assert not {*map(farthest, REACHES)} & {*rows(report)}
    assert (f"{NO_TIES}: {NO_TIME}" in report.notes) is (TIES not in rows(report)) is (after == 0)
    assert any(note.startswith("extrapolation: ") for note in report.notes) is (after == 13)


def test_statistics_are_laid_over_both() -> None:
    rule = OverlayRule("train", 512, "bn/1", Digest("sha256:d"))
    found = ways_of(GENERALIST, rule=rule, base=start()).from_base
    assert found.ties == replace(ALIKE, overlay=rule)
    assert found.beyond == {reach: replace(recipe, overlay=rule) for reach, recipe in FARTHER.items()}
    alone = ways_of(mean_of("o1", "m1"), rule=rule, base=start(NAMED["o1"])).from_base
    assert alone.beyond[Fraction(2)] == mean_of("m1"), "a run keeps its own"
