"""All that a version's page tells, as one value."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from stockpot.entities import (
    Candidate,
    Digest,
    FiledReport,
    ModelVersion,
    Recipe,
    ReportRow,
    SoupReport,
    tags,
)
from stockpot.errors import BadRequest
from stockpot.ports import Records
from stockpot.workflow.publishing.publication import reports_on, told
from stockpot.workflow.publishing.verdict import row_that_is
from stockpot.workflow.reporting.championship import Championship, championship
from stockpot.workflow.reporting.neighbours import Neighbourhood, held_out_scores, neighbourhood
from stockpot.workflow.reporting.searches import Search, searches
from stockpot.workflow.trace import snapshot_of

MOST_SETTINGS = 20
"""Hyperparameters that are told; `stockpot.json` has all."""


class RunStanding(StrEnum):
    """What became of an ingredient's run."""

    THERE = "there"
    DELETED = "deleted"
    """A person deleted it: MLflow shows it among deleted runs."""
    GONE = "gone"
    """This MLflow does not have it."""
    NONE = "none"
    """It is no run's: the base, a version or a file."""


@dataclass(frozen=True, slots=True)
class IngredientTold:
    """An ingredient, from what was kept beside the version."""

    name: str
    run_id: str
    standing: RunStanding
    link: str | None
    """Where a browser shows the run; None without a server."""
    checkpoint: Digest
    coefficient: str
    held_out: float | None
    settings: Mapping[str, str]
    """The hyperparameters in which the ingredients differ."""


@dataclass(frozen=True, slots=True)
class VersionPage:
    """Everything that is known of a version that Stockpot made."""

    version: ModelVersion
    link: str | None
    """Where a browser shows it; None without a server."""
    recipe: Recipe
    candidates: tuple[Candidate, ...]
    """Its ingredients in recipe order, as they were kept beside it."""
    checkpoint: Digest
    report: SoupReport
    """The newest that ended in it."""
    row: ReportRow
    """Its own in that report."""
    championship: Championship
    searches: tuple[Search, ...]
    neighbourhood: Neighbourhood
    ingredients: tuple[IngredientTold, ...]
    settings: tuple[str, ...]
    """Names of the hyperparameters in which the ingredients differ, as far as there is room."""
    settings_left_out: int
    others: tuple[FiledReport, ...]
    """Of other requests that ended in it, the newest first."""
    others_told: tuple[str, ...]
    """Each of them in a sentence."""
    software: Mapping[str, str]
    """With which it was registered."""
    flavours: tuple[str, ...]
    """MLflow's, that it can be loaded as."""
    at: float
    """When this was put together, in seconds since the epoch: aliases, the champion and runs change."""


def version_page(uri: str, place: Records, alias: str) -> VersionPage:
    """Put it together, from the store, from MLflow, and from what lies beside the version. Evaluates nothing.

    `alias`: of whoever is the champion. Raises BadRequest for a version that Stockpot did not make, and
    RegistryConflict where what lies beside it is damaged.
    """
    version, snapshot = snapshot_of(uri, place.tracker)
    names = {version.name, version.tags.get(tags.MODEL, version.name)}
    filed = reports_on(names, snapshot.recipe.digest, place.store)
    report = filed[-1].report if filed else snapshot.report
    others = tuple(one for one in reversed(filed) if one.report != report)
    settings, left_out = _settings(snapshot.ingredients)
    flavours: tuple[str, ...] = ()
    with suppress(BadRequest):  # a card that somebody damaged: the rest is worth reading all the same
        flavours = place.tracker.flavours(version)
    return VersionPage(
        version=version,
        link=place.tracker.link(version),
        recipe=snapshot.recipe,
        candidates=snapshot.ingredients,
        checkpoint=snapshot.checkpoint,
        report=report,
        row=row_that_is(report, snapshot.recipe.digest),
        championship=championship(version, snapshot, report, alias, place),
        searches=searches(report),
        neighbourhood=neighbourhood(snapshot.recipe, report, place.store),
        ingredients=_ingredients(snapshot.recipe, snapshot.ingredients, settings, report, place),
        settings=settings,
        settings_left_out=left_out,
        others=others,
        others_told=tuple(told(one, snapshot.recipe) for one in others),
        software=snapshot.versions,
        flavours=flavours,
        at=place.store.clock(),
    )


def _settings(ingredients: Sequence[Candidate]) -> tuple[tuple[str, ...], int]:
    """The names of parameters that do not have one value in all of them, and how many more there are."""
    names = sorted({name for one in ingredients for name in one.run.params})
    differing = [name for name in names if len({one.run.params.get(name) for one in ingredients}) > 1]
    return tuple(differing[:MOST_SETTINGS]), max(0, len(differing) - MOST_SETTINGS)


def _ingredients(
    recipe: Recipe,
    candidates: Sequence[Candidate],
    settings: Sequence[str],
    report: SoupReport,
    place: Records,
) -> tuple[IngredientTold, ...]:
    runs = {one.run.run_id for one in candidates if one.run.experiment_id}
    deleted = {run.run_id: gone for run, gone in place.tracker.runs_named(runs)}
    scores = held_out_scores(report)

    def standing(candidate: Candidate) -> RunStanding:
        if not candidate.run.experiment_id:
            return RunStanding.NONE
        if candidate.run.run_id not in deleted:
            return RunStanding.GONE
        return RunStanding.DELETED if deleted[candidate.run.run_id] else RunStanding.THERE

    return tuple(
        IngredientTold(
            name=candidate.run.name,
            run_id=candidate.run.run_id,
            standing=standing(candidate),
            link=place.tracker.run_link(candidate.run) if candidate.run.experiment_id else None,
            checkpoint=candidate.checkpoint.digest,
            coefficient=_coefficient(ingredient.coefficient),
            held_out=scores.get(Recipe.mean([candidate.checkpoint.digest]).digest),
            settings={name: candidate.run.params[name] for name in settings if name in candidate.run.params},
        )
        for ingredient, candidate in zip(recipe.ingredients, candidates, strict=True)
    )


def _coefficient(found: float | tuple[int, int]) -> str:
    return f"{found:.6g}" if isinstance(found, float) else f"{found[0]}/{found[1]}"
