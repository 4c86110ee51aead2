"""Recipes near a soup: half-way between two of its ingredients, and without one of them.

They are ordinary recipes, so their scores are remembered like others. They choose nothing: all are scored on
the split that chose the soup, and tell how its ingredients go together.

Sources: Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis" (ICML 2020); the barrier
as in Entezari et al., "The role of permutation invariance in linear mode connectivity" (ICLR 2022), and
Ainsworth et al., "Git Re-Basin" (ICLR 2023), here at the midpoint alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from stockpot.entities import Arithmetic, Digest, Recipe, SoupReport

if TYPE_CHECKING:
    from stockpot.ports import Store

MOST = 24
"""Ingredients whose pairs are told, the first of the recipe: more would be neither read nor paid for."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """How the average of two ingredients scores beside them."""

    first: int
    """Place in the recipe, from 0."""
    second: int
    midpoint: float | None
    """The score half-way between them; None where nobody has evaluated it."""
    difference: float | None
    """The midpoint's score less the mean of both ends' scores: a barrier where it is below zero."""


@dataclass(frozen=True, slots=True)
class Influence:
    """What an ingredient does in its soup."""

    ingredient: int
    """Place in the recipe, from 0."""
    without: float | None
    """The score of the others' average, of the same kind; None where nobody has evaluated it."""
    difference: float | None
    """The soup's score less that one: above zero where the ingredient helps."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What is remembered of the recipes near a soup, under the protocol of its held-out score."""

    barriers: tuple[Barrier, ...] = ()
    """Of each pair, the first ingredient's first."""
    influences: tuple[Influence, ...] = ()
    """Of each ingredient, in recipe order."""
    left_out: int = 0
    """Ingredients whose pairs are not told: `MOST` are."""
    no_barriers: str = ""
    """Why there are none to tell; empty where there are."""
    no_influences: str = ""

    @property
    def unknown_barriers(self) -> int:
        """Pairs that nobody has evaluated."""
        return sum(one.midpoint is None for one in self.barriers)

    @property
    def unknown_influences(self) -> int:
        """Ingredients without which nobody has evaluated the soup."""
        return sum(one.without is None for one in self.influences)


def midpoints(soup: Recipe) -> Mapping[tuple[int, int], Recipe]:
    """The equal average of each pair of the first ingredients, by their places in the recipe. A rule for
    statistics holds for it as for the soup.
    """
    if why_no_barriers(soup):
        return {}
    names = soup.checkpoints[:MOST]
    pairs = combinations(range(len(names)), 2)
    return {(a, b): _laid(Recipe.mean([names[a], names[b]]), soup) for a, b in pairs}


def without_each(soup: Recipe) -> Mapping[int, Recipe]:
    """The average of all ingredients but one, by that one's place in the recipe: equal as before, or of
    groups that count the same.
    """
    if why_no_influences(soup):
        return {}
    return {place: _laid(soup.without(place), soup) for place in range(len(soup.ingredients))}


def neighbourhood(soup: Recipe, report: SoupReport, store: "Store") -> Neighbourhood:
    """What is remembered under the protocol of the report's held-out split."""
    by_domain = why_not_by_domain(report)
    pairs, rests = ({}, {}) if by_domain else (midpoints(soup), without_each(soup))
    known = remembered([*pairs.values(), *rests.values()], report, store)
    own = held_out_scores(report)
    ends = [own.get(Recipe.mean([checkpoint]).digest) for checkpoint in soup.checkpoints]
    whole = next(
        (row.scores.get(report.request.select_on) for row in report.rows if row.recipe == soup), None
    )
    return Neighbourhood(
        barriers=tuple(_barrier(a, b, known.get(recipe.digest), ends) for (a, b), recipe in pairs.items()),
        influences=tuple(
            Influence(place, found, None if found is None or whole is None else whole - found)
            for place, recipe in rests.items()
            for found in [known.get(recipe.digest)]
        ),
        left_out=max(0, len(soup.checkpoints) - MOST) if pairs else 0,
        no_barriers=why_no_barriers(soup) or by_domain,
        no_influences=why_no_influences(soup) or by_domain,
    )


def _barrier(a: int, b: int, midpoint: float | None, ends: list[float | None]) -> Barrier:
    one, two = ends[a], ends[b]
    if midpoint is None or one is None or two is None:
        return Barrier(a, b, midpoint, None)
    return Barrier(a, b, midpoint, midpoint - (one + two) / 2)


def remembered(recipes: Iterable[Recipe], report: SoupReport, store: "Store") -> dict[Digest, float]:
    """The held-out scores of those that have one, by the names that were asked for. Two models have one
    average, whichever comes first: greedy may have tried it the other way round.
    """
    names = {name: recipe.digest for recipe in recipes for name in _names(recipe)}
    protocol = held_out_protocol(report)
    found = {names[digest]: score for digest, score in held_out_scores(report).items() if digest in names}
    if protocol is None:
        return found
    asked = [digest for digest, name in names.items() if name not in found]
    for digest in store.scored(asked, protocol):
        score = store.score(digest, protocol)
        if score is not None:
            found[names[digest]] = score.value
    return found


def _names(recipe: Recipe) -> list[Digest]:
    if len(recipe.ingredients) != 2:
        return [recipe.digest]
    turned = replace(recipe, ingredients=recipe.ingredients[::-1])
    return [recipe.digest, turned.digest]


def held_out_protocol(report: SoupReport) -> Digest | None:
    """Under which the split that selects was scored."""
    split = report.request.select_on
    return next((one.digest for one in report.protocols if one.split == split), None)


def held_out_scores(report: SoupReport) -> dict[Digest, float]:
    """Those that the report tells itself, by recipe."""
    split = report.request.select_on
    rows = (*report.rows, *([report.base] if report.base else []))
    return {
        **{Recipe.mean([one.checkpoint]).digest: one.held_out for one in report.candidates},
        **{row.recipe.digest: row.scores[split] for row in rows if split in row.scores},
    }


def why_not_by_domain(report: SoupReport) -> str:
    """Empty where the scores that the store keeps, of examples, are those that a report tells."""
    if report.mixture is None:
        return ""
    return "scores are of a mixture of domains, and only the task knows which example is of which domain"


def why_no_barriers(soup: Recipe) -> str:
    """Empty where pairs have a midpoint that goes with this soup."""
    if not soup.is_soup:
        return "this version is one model alone"
    if isinstance(soup.overlay, str):
        return "its statistics are a file of its own, which no pair has"
    return ""


def why_no_influences(soup: Recipe) -> str:
    """Empty where the soup without one of its ingredients is a recipe of the same kind."""
    if why := why_no_barriers(soup):
        return why
    if soup.arithmetic is Arithmetic.LINEAR_1:
        return "its coefficients are not equal: without an ingredient, the others' would be other ones"
    return ""


def _laid(recipe: Recipe, soup: Recipe) -> Recipe:
    """With the soup's rule for statistics; a single model keeps its own."""
    return replace(recipe, overlay=soup.overlay) if recipe.is_soup else recipe
