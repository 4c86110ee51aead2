"""Averages of averages, as recipes of the runs themselves."""

from fractions import Fraction

from stockpot.entities import Recipe, digest_of_bytes
from stockpot.workflow.selecting.averages import average_of

A, B, C, D = (digest_of_bytes(text) for text in (b"a", b"b", b"c", b"d"))
HALVES = [Fraction(1, 2)] * 2


def test_an_average_is_flat_names_each_once_and_leaves_out_what_has_no_share() -> None:
    first, second, alone = Recipe.mean([A, B]), Recipe.mean([B, C, D]), Recipe.mean([A])
    told = {i.checkpoint: i.coefficient for i in average_of([first, second], HALVES).ingredients}
    assert told == {A: (1, 4), B: (5, 12), C: (1, 6), D: (1, 6)}
    assert average_of([first, alone], HALVES) == Recipe.linear({A: (3, 4), B: (1, 4)})
    nothing = [Fraction(1), Fraction(0)]
    assert average_of([first, second], nothing) == first
    assert average_of([alone, first], nothing) == alone


def test_an_average_whose_ingredients_count_alike_is_their_mean_and_has_no_second_name() -> None:
    thirds = [Fraction(2, 3), Fraction(1, 3)]
    assert average_of([Recipe.mean([A, B]), Recipe.mean([C])], thirds) == Recipe.mean([A, B, C])
    assert average_of([Recipe.mean([A]), Recipe.mean([B])], HALVES) == Recipe.mean([A, B])
    assert average_of([Recipe.mean([A]), Recipe.mean([A])], HALVES) == Recipe.mean([A])


def test_an_average_whose_groups_count_alike_is_told_by_groups() -> None:
    found = average_of([Recipe.mean([A, B]), Recipe.mean([C])], HALVES)
    assert found == Recipe.grouped([[A, B], [C]])
    shared = average_of([Recipe.mean([A, B]), Recipe.mean([B, C])], HALVES)
    assert shared == Recipe.linear({A: (1, 4), B: (1, 2), C: (1, 4)})
