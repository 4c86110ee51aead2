"""The way from the sweep's starting point to its soup: WiSE-FT, as a picture of the two.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (CVPR 2022).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from stockpot.entities import Candidate, Curve, CurvePoint, Digest, OverlayRule, Recipe, SoupRequest
from stockpot.soup.compatibility import is_counter
from stockpot.workflow.selecting.rows import GENERALIST, domain_of, label, with_mean
from stockpot.workflow.sharing.units import Unit, settled

if TYPE_CHECKING:
    from stockpot.ports import Watcher
    from stockpot.workflow.selecting.ranking import Ranking
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

STAGE = "interpolate"
SHARES = tuple(Fraction(tenths, 10) for tenths in range(11))
"""Of the soup. The ends are the base and the soup themselves, which are evaluated anyway."""

Found = Sequence[tuple[tuple[str, ...], Recipe]]
"""What the methods ended in, each recipe once, as `merged` gives it."""


def between(base: Digest, soup: Recipe, share: Fraction) -> Recipe:
    """(1 - share) x base + share x soup, as one recipe with exact ratios, the base last.

    A rule for statistics holds on the way, too. Raises ValueError for a soup with a file beside its
    ingredients: of coefficients for each tensor, or of statistics.
    """
    if _has_a_file(soup):
        raise ValueError(f"{soup.digest} has a file beside its ingredients: it is no sum of them alone")
    if share in (0, 1):
        return soup if share else Recipe.mean([base])
    equal = Fraction(1, len(soup.ingredients))
    ratios = {
        i.checkpoint: share * (Fraction(*i.coefficient) if isinstance(i.coefficient, tuple) else equal)
        for i in soup.ingredients
    }
    start = ratios.pop(base, Fraction(0)) + 1 - share
    parts = {**ratios, base: start}
    mixed = Recipe.linear({c: (r.numerator, r.denominator) for c, r in parts.items() if r})
    return replace(mixed, overlay=soup.overlay)


def _has_a_file(recipe: Recipe) -> bool:
    return recipe.coefficients is not None or isinstance(recipe.overlay, str)


def primary(found: Found) -> tuple[tuple[str, ...], Recipe] | None:
    """Of what was found, what the curve leads to: the greedy soup, else the first method's. No specialist."""
    plain = [one for one in found if not (_has_a_file(one[1]) or all(map(domain_of, one[0])))]
    return next((one for one in plain if GENERALIST in one[0]), next(iter(plain), None))


def recipes_of(ranking: "Ranking", found: Found) -> dict[Fraction, Recipe]:
    """The curve's, by their shares; empty where there is no base, nothing to lead to, or no way between."""
    end = primary(found)
    if ranking.base is None or end is None:
        return {}
    base, soup = ranking.base.checkpoint.digest, end[1]
    # A single candidate at the end keeps its own statistics; what lies between is an average, as a soup is.
    rule = _rule_of(found)
    if soup.checkpoints == (base,) or (rule is None and _keeps_statistics(ranking.base)):
        return {}
    recipes = {share: between(base, soup, share) for share in SHARES}
    return {s: replace(r, overlay=rule) if r.is_soup and 0 < s < 1 else r for s, r in recipes.items()}


def _rule_of(found: Found) -> OverlayRule | Digest | None:
    return next((recipe.overlay for _, recipe in found if recipe.overlay is not None), None)


def _keeps_statistics(base: Candidate) -> bool:
    names = {spec.name for spec in base.checkpoint.tensors}
    return any(is_counter(name, names) for name in names)


def passes_of_base(request: SoupRequest) -> int:
    """At most, for its row on all splits and the recipes between on all but the report split."""
    between_ends, splits = len(SHARES) - 2, 1 + len(request.shifts)
    return splits + 1 + between_ends * splits


def curve_units(
    request: SoupRequest, ranking: "Ranking", found: Found, evaluators: Mapping[str, "SharedEvaluator"]
) -> list[Unit]:
    """The evaluations that the curve takes: never on the report split, since nobody shall choose by that."""
    recipes = recipes_of(ranking, found).values()
    return [Unit(r, evaluators[split]) for split in (request.select_on, *request.shifts) for r in recipes]


def measured_curve(
    request: SoupRequest,
    ranking: "Ranking",
    found: Found,
    evaluators: Mapping[str, "SharedEvaluator"],
    stop: Callable[[], bool],
    watch: "Watcher",
) -> tuple[Curve | None, str]:
    """The curve, as long as `stop` is false. Without one: None, and why, where a base was named."""
    if ranking.base is None:
        return None, ""
    units, end = curve_units(request, ranking, found, evaluators), primary(found)
    if not units or end is None:
        if end is not None and _rule_of(found) is None and _keeps_statistics(ranking.base):
            return None, (
                "no curve from the base: the model has BatchNorm, whose statistics are estimated for soups, "
                "and no method ended in a soup"
            )
        return None, "no curve from the base: what the methods found is no plain average of other weights"
    watch.start(STAGE, len(units))
    values: dict[Digest, dict[str, float]] = {unit.recipe.digest: {} for unit in units}
    for unit, score in settled([], units, stop):
        values[unit.recipe.digest][unit.split] = score.value
        watch.advance(STAGE)
    if sum(map(len, values.values())) < len(units):
        return None, "no curve from the base: time is up"
    recipes = recipes_of(ranking, found).items()
    points = [CurvePoint(float(s), r.digest, with_mean(request, values[r.digest])) for s, r in recipes]
    return Curve(label(end[0]), tuple(points)), ""
