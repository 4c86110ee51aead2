"""Measure what was found on data that selection never saw, and compare it with the best single."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from stockpot.entities import (
    MEAN_OF_SHIFTS,
    Candidate,
    CandidatePoint,
    Comparison,
    Composition,
    Ensemble,
    EnsembleRow,
    Recipe,
    ReportRow,
    Score,
    Selection,
    SoupReport,
    SoupRequest,
)
from stockpot.errors import BadRequest
from stockpot.prose import counted, listed
from stockpot.soup import NAMES
from stockpot.statistics import compare_mean
from stockpot.workflow.selecting.compared import compared
from stockpot.workflow.selecting.curve import measured_curve
from stockpot.workflow.selecting.ranking import Ranking
from stockpot.workflow.selecting.rows import BASE, BEST_SINGLE, label, with_mean
from stockpot.workflow.selecting.together import Together, greedy_ensemble
from stockpot.workflow.sharing.units import Unit, settled

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator, Watcher
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

STAGE = "measure"
MORE_OUTPUTS = "for those rows, --points all evaluates every candidate on every split"


def open_splits(request: SoupRequest, bench: "Bench") -> dict[str, "Evaluator"]:
    """An evaluator per split, held-out first. Raises BadRequest when two splits hold the same data."""
    evaluators = {
        split: bench.evaluator(split, compared=split != request.select_on)
        for split in (request.select_on, request.report_on, *request.shifts)
    }
    names: dict[str, str] = {}
    for split, evaluator in evaluators.items():
        twin = names.setdefault(evaluator.protocol.dataset, split)
        if twin != split:
            raise BadRequest(
                f"splits {twin} and {split} hold the same data: a score on the split that chose the soup "
                "says nothing about new data",
                mend="give the task an untouched split, and name it with --report-on",
            )
    return evaluators


def singles(request: SoupRequest, ranking: Ranking) -> list[Recipe]:
    """Of the candidates that are measured on all splits: the best one, and the figure's points."""
    first, *others = ranking.candidates
    wanted = others if request.points == "all" else others[: request.points]
    return [Recipe.mean([candidate.checkpoint.digest]) for candidate in (first, *wanted)]


def units_of(recipes: Iterable[Recipe], evaluators: Mapping[str, "SharedEvaluator"]) -> list[Unit]:
    """Each of the recipes on each split."""
    return [Unit(recipe, evaluator) for recipe in recipes for evaluator in evaluators.values()]


def measure(
    request: SoupRequest,
    ranking: Ranking,
    selections: Sequence[Selection],
    evaluators: Mapping[str, "SharedEvaluator"],
    bench: "Bench",
    stop: Callable[[], bool],
    watch: "Watcher",
) -> SoupReport:
    """Score the best single and every found recipe on all splits; compare in pairs.

    The request's `points` candidates that come next by their held-out score are scored there too, for the
    figure, as long as `stop` is false. So is the way from the base to the soup, where there is a base; never
    on the report split. Beside each soup stands the ensemble of its ingredients, and last the one that greedy
    finds, where outputs are remembered by then.
    """
    found = merged(selections)
    best, *points = singles(request, ranking)
    start = [Recipe.mean([ranking.base.checkpoint.digest])] if ranking.base else []
    compared = dict.fromkeys([best, *(recipe for _, recipe in found), *start])
    shown = [recipe for recipe in points if recipe not in compared]
    scores, values = _scored(request, compared, shown, evaluators, stop, watch)

    def row(name: str, recipe: Recipe, methods: tuple[str, ...] = ()) -> ReportRow:
        """Compared with the best single, unless it is that one."""
        gained = {} if recipe == best else gains(request, bench, scores[best], scores[recipe])
        return ReportRow(name, methods, recipe, values[recipe], gained)

    rows = [row(BEST_SINGLE, best), *(row(label(methods), recipe, methods) for methods, recipe in found)]
    bases = [row(BASE, recipe) for recipe in start]
    figure, late = _figure(request, ranking, [best, *points], values, len(evaluators))
    ensembles: tuple[EnsembleRow, ...] = ()
    notes: tuple[str, ...] = ()
    if bench.has_ensembles:
        together, why = greedy_ensemble(request, ranking, evaluators[request.select_on], bench, stop, watch)
        selections = [*selections, *([together] if together else [])]
        ensembles, notes = _ensembles(request, bench, scores[best], rows, selections, evaluators)
        notes += (why,) if why else ()
    notes += (
        *cast_notes([*ranking.candidates, *filter(None, [ranking.base])]),
        *_told_beside([*rows, *bases], evaluators, bench),
    )
    curve, why = measured_curve(request, ranking, found, evaluators, stop, watch)
    notes += tuple(filter(None, (late, why)))
    return SoupReport(
        request,
        tuple(rows),
        tuple(selections),
        figure,
        ranking.sweep.exclusions,
        tuple(evaluator.protocol for evaluator in evaluators.values()),
        ensembles,
        notes,
        bench.unit,
        next(iter(bases), None),
        curve,
    )


def _figure(
    request: SoupRequest,
    ranking: Ranking,
    singles: Sequence[Recipe],
    values: Mapping[Recipe, Mapping[str, float]],
    splits: int,
) -> tuple[tuple[CandidatePoint, ...], str]:
    """All candidates, the best single first of `singles`, those measured that have a score on all splits; and
    a note where time was too short for some.
    """
    whole = {recipe.checkpoints[0]: values[recipe] for recipe in singles if len(values[recipe]) >= splits}
    points = (_point(request, c, ranking, whole.get(c.checkpoint.digest)) for c in ranking.candidates)
    _, *asked = singles
    late = sum(recipe.checkpoints[0] not in whole for recipe in asked)
    note = (
        f"time is up; missing from the figure: {late} of {counted(len(asked), 'candidate')}" if late else ""
    )
    return tuple(points), note


def _scored(
    request: SoupRequest,
    compared: Iterable[Recipe],
    shown: Sequence[Recipe],
    evaluators: Mapping[str, "SharedEvaluator"],
    stop: Callable[[], bool],
    watch: "Watcher",
) -> tuple[dict[Recipe, dict[str, Score]], dict[Recipe, dict[str, float]]]:
    """Scores of what is compared, and numbers of all: of what is `shown` as long as `stop` is false."""
    scores: dict[Recipe, dict[str, Score]] = {recipe: {} for recipe in compared}
    values: dict[Recipe, dict[str, float]] = {recipe: {} for recipe in (*scores, *shown)}
    watch.start(STAGE, len(values))
    for unit, score in settled(units_of(scores, evaluators), units_of(shown, evaluators), stop):
        values[unit.recipe][unit.split] = score.value
        if unit.recipe in scores:  # all scores of the points would fill the memory
            scores[unit.recipe][unit.split] = score
        if len(values[unit.recipe]) == len(evaluators):
            values[unit.recipe] = with_mean(request, values[unit.recipe])
            watch.advance(STAGE)
    return scores, values


def merged(selections: Sequence[Selection]) -> list[tuple[tuple[str, ...], Recipe]]:
    """Methods whose recipes are the same weighted mean made one soup, the first one's: they differ in the
    order of their ingredients and in last bits. Ensembles are no soups.
    """
    found: dict[object, tuple[tuple[str, ...], Recipe]] = {}
    for selection in selections:
        if isinstance(selection.recipe, Ensemble):
            continue
        recipe = selection.recipe
        parts = frozenset((ingredient.checkpoint, ingredient.factor) for ingredient in recipe.ingredients)
        key = parts, recipe.overlay, recipe.coefficients
        methods, recipe = found.get(key, ((), recipe))
        found[key] = ((*methods, selection.method), recipe)
    return list(found.values())


def gains(
    request: SoupRequest, bench: "Bench", baseline: Mapping[str, Score], challenger: Mapping[str, Score]
) -> dict[str, Comparison]:
    """By split that is reported, as far as the challenger was scored there; both by split."""
    pairs = {
        split: (baseline[split], challenger[split], bench.groups(split))
        for split in (request.report_on, *request.shifts)
        if split in challenger
    }
    found = {split: compared(split, a, b, groups=groups) for split, (a, b, groups) in pairs.items()}
    if request.shifts and pairs.keys() >= set(request.shifts):
        shifted = {split: pairs[split] for split in request.shifts}
        found[MEAN_OF_SHIFTS] = compare_mean(MEAN_OF_SHIFTS, shifted)
    return found


def _ensembles(
    request: SoupRequest,
    bench: "Bench",
    baseline: Mapping[str, Score],
    rows: Sequence[ReportRow],
    selections: Sequence[Selection],
    evaluators: Mapping[str, "SharedEvaluator"],
) -> tuple[tuple[EnsembleRow, ...], tuple[str, ...]]:
    """Of each soup's ingredients, and those that were searched for: a row where the models' outputs on the
    report split are remembered. And what is missing.
    """
    wanted: list[tuple[str, Composition, Ensemble]] = [
        (f"ensemble of the {row.label}", row.recipe, Ensemble.like(row.recipe))
        for row in rows
        if row.recipe.is_soup and row.recipe.coefficients is None  # else their shares are no model's
    ]
    wanted += [(s.method, s.recipe, s.recipe) for s in selections if isinstance(s.recipe, Ensemble)]
    ensembles, notes = [], []
    without: dict[str, list[str]] = defaultdict(list)
    for name, recipe, ensemble in wanted:
        found = {
            split: Together(evaluator, bench, compared=split != request.select_on).score(ensemble)
            for split, evaluator in evaluators.items()
        }
        known = {split: score for split, score in found.items() if score is not None}
        missing = ", ".join(split for split in found if split not in known)
        why = f"outputs of its models on {missing} are not remembered"
        if request.report_on not in known:
            without[why].append(name)
            continue
        if missing:
            notes.append(f"the {name} has empty cells: {why}")
        values = with_mean(request, {split: score.value for split, score in known.items()})
        gained = gains(request, bench, baseline, known)
        ensembles.append(EnsembleRow(name, recipe, values, gained, len(ensemble.members)))
    notes += [f"no row for the {listed(names, between=', the ')}: {why}" for why, names in without.items()]
    if notes and request.points != "all":
        notes.append(MORE_OUTPUTS)
    return tuple(ensembles), tuple(notes)


def _point(
    request: SoupRequest, candidate: Candidate, ranking: Ranking, values: Mapping[str, float] | None
) -> CandidatePoint:
    return CandidatePoint(
        candidate.run.run_id,
        candidate.run.name,
        candidate.checkpoint.digest,
        ranking.held_out[candidate.checkpoint.digest],
        values[request.report_on] if values else None,
        values.get(MEAN_OF_SHIFTS) if values else None,
    )


def cast_notes(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Which candidates were cast, and from what: a sentence for each kind."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for candidate in candidates:
        if candidate.cast_from and candidate.source.cast:
            before = " and ".join(NAMES[code] for code in candidate.cast_from)
            groups[before, NAMES[candidate.source.cast]].append(candidate.run.name)
    return tuple(
        f"cast from {before} to {now}, as asked: {listed(names)}" for (before, now), names in groups.items()
    )


def _told_beside(rows: Sequence[ReportRow], splits: Iterable[str], bench: "Bench") -> Iterator[str]:
    """What else the scores say: a sentence for each kind of number and each split."""
    for split in splits:
        told: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            for name, value in bench.beside(split, row.scores.get(split, math.nan)).items():
                told[name].append(f"{row.label} {value:.4g}")
        yield from (f"{name} on {split}: {listed(values)}" for name, values in told.items())
