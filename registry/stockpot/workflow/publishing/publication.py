"""What MLflow is told about a soup, put together before anything is created there."""

import json
import math
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version as installed
from typing import TYPE_CHECKING

from stockpot.documents import to_document
from stockpot.entities import (
    Digest,
    FiledReport,
    Measurement,
    OverlayRule,
    Publication,
    Recipe,
    ReportRow,
    Snapshot,
    SoupReport,
    SoupRequest,
    digest_of_bytes,
    digest_of_document,
    short,
    tags,
)
from stockpot.prose import minute
from stockpot.workflow.publishing.markdown import shown
from stockpot.workflow.publishing.page import INGREDIENTS, ROOM, description
from stockpot.workflow.publishing.proofs import PROOFS, documents
from stockpot.workflow.publishing.verdict import judge, row_that_is, sentence, specialties

if TYPE_CHECKING:
    from stockpot.ports import Store
    from stockpot.workflow.selecting.ranking import Ranking

SNAPSHOT = "stockpot.json"
OF_ITS_MAKING = PROOFS | {SNAPSHOT}
"""Files that tell how a soup was made and first measured: later requests leave them as they are."""
FIGURE = "candidates-and-soups"
"""The figure's name begins so, and goes on with its report's. It lies beside the run alone, where the page
shows it: the next report on the same soup has another.
"""
COEFFICIENTS = "stockpot-coefficients"
"""Beside a soup whose tensors have coefficients of their own: without it nobody could make it again."""
STATISTICS = "stockpot-statistics"
"""What is laid over the soup. Neither has a name that weights have: nobody shall take it for a checkpoint."""
REPORTS_NAMED = 3
"""Other requests on a version's page. `stockpot show` lists all."""

Draw = Callable[[SoupReport], bytes]
"""Draws the figure: PNG bytes."""


def compose(
    report: SoupReport,
    row: ReportRow,
    ranking: "Ranking",
    checkpoint: Digest,
    draw: Draw,
    requests: int = 1,
) -> Publication:
    """The publication of one row of the report; `checkpoint` is the built soup's digest.

    `requests`: how many were made on the report split, this one included.
    """
    request = report.request
    known = (*([ranking.base] if ranking.base else []), *ranking.candidates)
    by_digest = {candidate.checkpoint.digest: candidate for candidate in known}
    ingredients = tuple(by_digest[digest] for digest in row.recipe.checkpoints)
    name = name_of(report)
    experiment_id = ranking.candidates[0].run.experiment_id
    figure = f"{FIGURE}-{short(name)}.png"
    snapshot = Snapshot(row.recipe, checkpoint, ingredients, report, software())
    return Publication(
        model=request.model,
        recipe=row.recipe,
        checkpoint=checkpoint,
        ingredients=ingredients,
        experiment_id=experiment_id,
        parent_run_id=request.sweep,
        name=f"{_kind(row)}-of-{len(ingredients)}-{short(row.recipe.digest)}",
        description=description(report, row, ingredients, figure, requests, experiment_id=experiment_id),
        tags={**_tags(report, row, checkpoint), tags.REPORT: name},
        params=_params(report, row),
        measurements=_measurements(report, row),
        files={SNAPSHOT: _json(snapshot), **documents(request.model, snapshot), figure: draw(report)},
    )


def _kind(row: ReportRow) -> str:
    if row.recipe.is_soup:
        return f"soup-{'-'.join(row.methods)}"
    return f"best-{'-'.join(specialties(row)) or 'single'}"


def name_of(report: SoupReport) -> Digest:
    """The digest of a report: a request that finds the same again ends in the same one."""
    return digest_of_document(to_document(replace(report, hint=None)))


def with_statistics(publication: Publication, overlay: bytes | None) -> Publication:
    """With what was laid over the soup, so that it can be rebuilt without the store that resolved it."""
    if overlay is None:
        return publication
    return replace(
        publication,
        files={**publication.files, STATISTICS: overlay},
        tags={**publication.tags, tags.OVERLAY: digest_of_bytes(overlay)},
    )


def with_others(publication: Publication, filed: Sequence[FiledReport]) -> Publication:
    """With the other requests that ended in this soup, newest first: each with its verdict."""
    if not filed:
        return publication
    newest = [told(one, publication.recipe) for one in filed[: -REPORTS_NAMED - 1 : -1]]
    if len(filed) > REPORTS_NAMED:
        newest.append(f"and {len(filed) - REPORTS_NAMED} more")
    lines = [f"- {shown(line, ROOM // 20)}" for line in newest]
    note = "\n".join(["Other requests that ended in this soup:\n", *lines])
    text, heading, ingredients = publication.description.partition(INGREDIENTS)
    return replace(publication, description=f"{text}\n\n{note}{heading}{ingredients}")


def reports_on(models: Collection[str], recipe: Digest, store: "Store") -> list[FiledReport]:
    """The reports of the requests for one of these models that ended in this soup, oldest first."""
    return [filed for filed in store.reports(recipe) if filed.report.request.model in models]


def told(filed: FiledReport, recipe: Recipe) -> str:
    """One line on a report: when, on which splits, by which task, and what it found of this recipe.

    What tells requests apart comes first: a long line is cut at its end.
    """
    request = filed.report.request
    splits = f"split {request.report_on}"
    if request.shifts:
        splits += f" and under {', '.join(request.shifts)}"
    arguments = ", ".join(f"{name}={value}" for name, value in request.task_args.items())
    row = row_that_is(filed.report, recipe.digest)
    found = sentence(row, request.report_on, filed.report.unit)
    when = minute(filed.created_at)
    return f"{when}, on {splits}, {request.task}({arguments}), margin {_margin(request)}: {found}"


def _margin(request: SoupRequest) -> str:
    return request.margin if isinstance(request.margin, str) else f"{request.margin:g}"


def with_note(publication: Publication, note: str) -> Publication:
    """With a paragraph more on the version's page, before the ingredients: plain text."""
    if not note:
        return publication
    text, heading, ingredients = publication.description.partition(INGREDIENTS)
    return replace(publication, description=f"{text}\n\n{shown(note, ROOM // 4)}{heading}{ingredients}")


def software() -> Mapping[str, str]:
    """Versions that a reproduction may want to know."""
    packages = {name: installed(name) for name in ("stockpot", "torch", "mlflow", "safetensors")}
    return {"python": platform.python_version(), **packages}


def _tags(report: SoupReport, row: ReportRow, checkpoint: Digest) -> dict[str, str]:
    request = report.request
    return {
        tags.ROLE: "soup",
        tags.MODEL: request.model,
        tags.RECIPE: row.recipe.digest,
        tags.CHECKPOINT: checkpoint,
        tags.METHODS: ",".join(row.methods) or "best_single",
        tags.INGREDIENTS: str(len(row.recipe.ingredients)),
        tags.SWEEP: request.sweep or request.experiment or "",
        tags.VERDICT: judge(row, request.report_on).value,
        tags.VERDICT_SENTENCE: sentence(row, request.report_on, report.unit),
        **({tags.DOMAIN: ",".join(specialties(row))} if specialties(row) else {}),
        **({tags.STATISTICS: str(row.recipe.overlay)} if isinstance(row.recipe.overlay, OverlayRule) else {}),
    }


def _params(report: SoupReport, row: ReportRow) -> dict[str, str]:
    request = report.request
    return {
        "methods": ",".join(row.methods) or "best_single",
        "accept": request.accept.value,
        "ingredients": str(len(row.recipe.ingredients)),
        "candidates": str(len(report.candidates)),
        "task": request.task,
        "select_on": request.select_on,
        "report_on": request.report_on,
        "shifts": ",".join(request.shifts),
    }


def _measurements(report: SoupReport, row: ReportRow) -> tuple[Measurement, ...]:
    """Scores, and each comparison with the best single: difference, both ends of its interval, n and p."""
    found = []
    for protocol in report.protocols:
        split = protocol.split
        values = {"score": row.scores[split]}
        if gain := row.versus_best.get(split):
            values |= {
                "gain": gain.difference,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "gain_n": gain.n,
            }
            if gain.mcnemar_p is not None:
                values["gain_p"] = gain.mcnemar_p
        found += [
            Measurement(f"{name}.{split}", value, split, protocol.dataset)
            for name, value in values.items()
            if math.isfinite(value)
        ]
    return tuple(found)


def _json(snapshot: Snapshot) -> bytes:
    return json.dumps(to_document(snapshot), indent=1).encode()
