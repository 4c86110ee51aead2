"""What is measured beside the choices, where a request compares all: each domain's own choice averaged
across, the generalist's ingredients by other arithmetics than their mean, and the generalist without the
runs of each domain. Yardsticks: never registered, never a winner.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from stockpot.entities import (
    Candidate,
    Comparison,
    Contrast,
    OverlayRule,
    Recipe,
    ReferenceRow,
    Score,
    SoupReport,
    SoupRequest,
    WithoutDomain,
)
from stockpot.entities.domain import ALL, is_own, labels
from stockpot.statistics import compare_domains, pairs_by_domain
from stockpot.statistics.comparison import Pair
from stockpot.workflow.selecting.averages import average_of
from stockpot.workflow.selecting.by_domain import domain_scores
from stockpot.workflow.selecting.compared import compared
from stockpot.workflow.selecting.from_base import (
    NO_TIES,
    TIES,
    FromBase,
    best_reach,
    farthest,
    from_base,
    tried,
)
from stockpot.workflow.selecting.measure import gains, units_of
from stockpot.workflow.selecting.rows import GENERALIST, label, with_mean
from stockpot.workflow.selecting.watched import score_in_full
from stockpot.workflow.sharing.units import Unit, settled

if TYPE_CHECKING:
    from stockpot.ports import Bench, Watcher
    from stockpot.workflow.selecting.domains import Domains
    from stockpot.workflow.selecting.specialists import Specialist
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

STAGE = "compare all"
MEAN_OF_SPECIALISTS = "mean of the specialist of each domain"
NO_MEAN = f"no row for the {MEAN_OF_SPECIALISTS}"
HOLDS_NONE = "it holds no run of that domain alone"
NOTHING_LEFT = "nothing would be left"
NO_TIME = "time was up"
Found = Sequence[tuple[tuple[str, ...], Recipe]]
"""Methods, and the recipe that they ended in."""


@dataclass(frozen=True)
class Ways:
    """Recipes that nobody searched for."""

    across: Recipe | None
    """The mean over domains of each one's specialist; None where some domain that counts has none."""
    generalist: Recipe | None
    """None where greedy was not asked."""
    without: Mapping[str, Recipe | str]
    """Of each domain that runs tell: the generalist without the runs that are of this one alone, or why there
    is no such recipe.
    """
    from_base: FromBase = field(default_factory=FromBase)

    def units(self, request: SoupRequest, evaluators: Mapping[str, "SharedEvaluator"]) -> list[Unit]:
        """What is to be scored: rows on every split, what lacks a domain where examples tell domains, and
        what one row is chosen from where all is selected; that row's other splits are known later.
        """
        of_domains = {split: evaluators[split] for split in (request.select_on, request.report_on)}
        rows = [recipe for recipe in (self.across, self.from_base.ties) if recipe]
        left = dict.fromkeys(recipe for recipe in self.without.values() if isinstance(recipe, Recipe))
        beyond = [Unit(recipe, evaluators[request.select_on]) for recipe in self.from_base.beyond.values()]
        return [*units_of(rows, evaluators), *units_of(left, of_domains), *beyond]


def every_way(
    found: Found,
    specialists: Sequence["Specialist"],
    candidates: Sequence[Candidate],
    domains: "Domains",
    rule: OverlayRule | None,
    base: Candidate | None = None,
) -> Ways:
    """`found`: what all methods ended in. `rule`: what is laid over averages. `base`: where it is known."""

    def laid(recipe: Recipe) -> Recipe:
        return replace(recipe, overlay=rule) if recipe.is_soup else recipe

    has_all = len(specialists) > 1 and {s.domain for s in specialists} >= {*domains.counting}
    each = [specialist.recipe for specialist in specialists]
    across = laid(average_of(each, [Fraction(1, len(each))] * len(each))) if has_all else None
    generalist = next((recipe for methods, recipe in found if GENERALIST in methods), None)
    beside = from_base(generalist, base.checkpoint.digest if base else None, laid)
    if generalist is None:
        return Ways(across, None, {}, beside)
    without: dict[str, Recipe | str] = {}
    for domain in _told(domains):
        own = {c.checkpoint.digest for c in candidates if is_own(domains.told(c.run), domain)}
        left = [checkpoint for checkpoint in generalist.checkpoints if checkpoint not in own]
        if len(left) == len(generalist.checkpoints):
            without[domain] = HOLDS_NONE
        else:
            without[domain] = laid(Recipe.mean(left)) if left else NOTHING_LEFT
    return Ways(across, generalist, without, beside)


def _told(domains: "Domains") -> list[str]:
    return sorted({domain for told in domains.runs.values() for domain in labels(told)} - {ALL})


def with_every_way(
    report: SoupReport,
    ways: Ways,
    evaluators: Mapping[str, "SharedEvaluator"],
    bench: "Bench",
    stop: Callable[[], bool],
    watch: "Watcher",
) -> SoupReport:
    """The report of several domains, with these: as far as they were scored before `stop` was true."""
    units = ways.units(report.request, evaluators)
    scores: dict[Recipe, dict[str, Score]] = defaultdict(dict)
    others = {split: one for split, one in evaluators.items() if split != report.request.select_on}
    watch.start(STAGE, len(units) + (len(others) if ways.from_base.beyond else 0))

    def measure(units: Sequence[Unit]) -> None:
        for unit, score in settled((), units, stop):
            scores[unit.recipe][unit.split] = score
            watch.advance(STAGE)

    measure(units)
    beside = _Beside(report, ways, evaluators, bench, scores)
    if beside.reach is not None:
        measure(units_of([ways.from_base.beyond[beside.reach]], others))
    return replace(
        report,
        references=(*(report.references or ()), *beside.rows()),
        contrasts=(*(report.contrasts or ()), *beside.contrasts()),
        collisions=tuple(beside.collisions()),
        notes=(*report.notes, *beside.notes()),
    )


@dataclass(frozen=True)
class _Beside:
    report: SoupReport
    ways: Ways
    evaluators: Mapping[str, "SharedEvaluator"]
    bench: "Bench"
    scores: Mapping[Recipe, Mapping[str, Score]]
    """As far as there was time."""

    def _all(self, recipe: Recipe) -> dict[str, Score]:
        """Of what was measured on every split."""
        return {split: score_in_full(recipe, one) for split, one in self.evaluators.items()}

    @property
    def _beyond(self) -> dict[Fraction, Score]:
        """Of all that one is chosen from, on the split that selects; nothing where one of them lacks."""
        split, beyond = self.report.request.select_on, self.ways.from_base.beyond
        found = {reach: self.scores.get(recipe, {}).get(split) for reach, recipe in beyond.items()}
        known = {reach: score for reach, score in found.items() if score is not None}
        return known if len(known) == len(found) else {}

    @property
    def reach(self) -> Fraction | None:
        """What is chosen among them."""
        return best_reach(self._beyond)

    def _yardsticks(self) -> Iterator[tuple[str, str, Recipe, Mapping[str, Score]]]:
        """Of each that was measured on every split: what it tells of, its label, the recipe, its scores."""
        beside, reach = self.ways.from_base, self.reach
        far = None if reach is None else beside.beyond[reach]
        each = [
            ("own", MEAN_OF_SPECIALISTS, self.ways.across),
            ("extrapolation", farthest(reach) if reach is not None else "", far),
            ("ties", TIES, beside.ties),
        ]
        for what, name, recipe in each:
            found = self.scores.get(recipe, {}) if recipe else {}
            if recipe and len(found) == len(self.evaluators):
                yield what, name, recipe, found

    def rows(self) -> Iterator[ReferenceRow]:
        """Compared with the best single candidate."""
        request, single = self.report.request, self._all(self.report.rows[0].recipe)
        for _, name, recipe, found in self._yardsticks():
            before, after = single[request.report_on], found[request.report_on]
            assert after.aim is not None  # noqa: S101 - there are several domains
            yield ReferenceRow(
                name,
                (recipe,),
                with_mean(request, {split: score.value for split, score in found.items()}),
                gains(request, self.bench, single, found),
                domain_scores(after, before, after.aim, self.bench.groups(request.report_on)),
            )

    def contrasts(self) -> Iterator[Contrast]:
        """Each compared with the generalist, and with the untouched start, where there are such."""
        split = self.report.request.report_on
        named = [(label(row.methods), row.recipe) for row in self.report.rows if GENERALIST in row.methods]
        named += [(self.report.base.label, self.report.base.recipe)] if self.report.base else []
        for what, name, _, found in self._yardsticks():
            for other, recipe in named:
                before = score_in_full(recipe, self.evaluators[split])
                gain = compared(split, before, found[split], groups=self.bench.groups(split))
                yield Contrast(what, other, name, gain)

    def collisions(self) -> Iterator[WithoutDomain]:
        """Of each domain that runs tell."""
        splits = (self.report.request.select_on, self.report.request.report_on)
        costs = {split: self._costs(split) for split in splits}
        for domain, recipe in self.ways.without.items():
            if isinstance(recipe, str):
                yield WithoutDomain(domain, None, recipe, {})
            elif not all(split in self.scores.get(recipe, {}) for split in splits):
                yield WithoutDomain(domain, None, NO_TIME, {})
            else:
                yield WithoutDomain(domain, recipe, "", {s: found[domain] for s, found in costs.items()})

    def _costs(self, split: str) -> dict[str, dict[str, Comparison]]:
        """By domain left out and domain scored, of all that were measured: one family, since whoever looks
        for the greatest cost looks at all.
        """
        if self.ways.generalist is None:
            return {}
        whole = score_in_full(self.ways.generalist, self.evaluators[split])
        assert whole.aim is not None  # noqa: S101 - there are several domains
        pairs: dict[tuple[str, str], Pair] = {}
        for left_out, recipe in self.ways.without.items():
            after = self.scores.get(recipe, {}).get(split) if isinstance(recipe, Recipe) else None
            if after is None:
                continue
            each = pairs_by_domain(whole, after, whole.aim.domains, self.bench.groups(split))
            pairs |= {(left_out, scored): pair for scored, pair in each.items() if _is_known(pair)}
        # No label holds a comma: no two cells have one name.
        names = {cell: f"{split} of {cell[1]}, without {cell[0]}" for cell in pairs}
        found, _ = compare_domains({names[cell]: pair for cell, pair in pairs.items()})
        costs: dict[str, dict[str, Comparison]] = defaultdict(dict)
        for left_out, scored in pairs:
            costs[left_out][scored] = found[names[left_out, scored]]
        return costs

    def notes(self) -> Iterator[str]:
        """What is missing, and what the extrapolation was chosen among."""
        there = {what for what, *_ in self._yardsticks()}
        beside, split = self.ways.from_base, self.report.request.select_on
        if self.ways.across is None:
            mixture = self.report.mixture
            is_of_one = mixture is not None and len(mixture.shares) == 1
            why = "the mixture is of one domain" if is_of_one else "not each domain of the mixture has one"
            yield f"{NO_MEAN}: {why}"
        elif "own" not in there:
            yield f"{NO_MEAN}: {NO_TIME}"
        yield from beside.missing
        if self.ways.generalist is not None and self._beyond:
            whole = score_in_full(self.ways.generalist, self.evaluators[split])
            yield tried(split, self.report.unit, whole, self._beyond, self.reach)
        if beside.beyond and "extrapolation" not in there and (self.reach is not None or not self._beyond):
            yield f"no row for extrapolation: {NO_TIME}"
        if beside.ties and "ties" not in there:
            yield f"{NO_TIES}: {NO_TIME}"
        if self.ways.generalist is None:
            yield f"which domain costs which is not told: {GENERALIST} was not asked"


def _is_known(pair: Pair) -> bool:
    before, after, _ = pair
    return math.isfinite(before.value) and math.isfinite(after.value)
