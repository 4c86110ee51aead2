"""What a flow run shows in Prefect's UI."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from stockpot.entities import SoupOutcome, SoupReport, SoupRequest
from stockpot.ports import Watcher
from stockpot.prose import one_line
from stockpot.secrets import without_secrets
from stockpot.workflow.publishing.markdown import folded, shown
from stockpot.workflow.publishing.page import tables_in_markdown
from stockpot.workflow.publishing.verdict import sentence

SECONDS_BETWEEN = 2.0
"""Between two updates of a stage's progress: each is a call to the API."""


class StageArtifacts:
    """A watcher who also shows each stage as a Prefect artifact, under the model's name."""

    def __init__(self, inner: Watcher, model: str) -> None:
        self._inner = inner
        self._model = model
        self._stages: dict[str, _Stage] = {}

    def start(self, stage: str, total: int) -> None:
        """Open the stage's artifact; where the total is not known (0) there is nothing to show."""
        self._inner.start(stage, total)
        self._stages.pop(stage, None)
        if total:
            key = artifact_key(self._model, stage)
            with shown_if_it_can_be():
                artifact = create_progress_artifact(progress=0.0, key=key, description=shown(stage))
                self._stages[stage] = _Stage(artifact, total, time.monotonic())  # type: ignore[arg-type]  # no coroutine

    def advance(self, stage: str) -> None:
        """Update it, now and then and at the end."""
        self._inner.advance(stage)
        found = self._stages.get(stage)
        if found is None:
            return
        found.done += 1
        now = time.monotonic()
        if found.done == found.total or now - found.shown > SECONDS_BETWEEN:
            found.shown = now
            percent = min(100.0, 100.0 * found.done / found.total)
            with shown_if_it_can_be():
                update_progress_artifact(found.artifact, progress=percent)

    def say(self, message: str) -> None:
        """Pass it on."""
        self._inner.say(message)


def artifact_key(model: str, what: str) -> str:
    """A key that is the model's own: Prefect's are global to its server, and take a-z, 0-9 and dashes.

    A name that holds anything else gets six digits of its SHA-256, so that two models have two keys.
    """
    name, kind = (re.sub("[^a-z0-9]+", "-", text.lower()).strip("-") for text in (model, what))
    if name != model:
        name = f"{name[:80]}-{sha256(model.encode()).hexdigest()[:6]}".strip("-")
    return f"{name}-{kind}"


@dataclass
class _Stage:
    artifact: UUID
    total: int
    shown: float
    """Seconds of the monotonic clock, when it was last updated."""
    done: int = 0


def tags_of(request: SoupRequest) -> list[str]:
    """The tags of each flow run that works on this request."""
    return [one_line(f"model: {request.model}"), one_line(f"sweep: {request.sweep or request.experiment}")]


def tag_this_run(request: SoupRequest) -> None:
    """Put the request's tags on the flow run that we are in, whoever has started it."""
    with shown_if_it_can_be("tags"), get_client(sync_client=True) as client:
        tags = list(dict.fromkeys([*flow_run.tags, *tags_of(request)]))
        client.update_flow_run(UUID(str(flow_run.id)), tags=tags)


@contextmanager
def shown_if_it_can_be(what: str = "an artifact") -> Iterator[None]:
    """A picture of the work is not the work: where Prefect's API fails, the flow logs it and goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever its client raises
        logging.getLogger(__name__).warning(
            "%s could not be shown: %s", what, one_line(without_secrets(str(error)))
        )


def publish_artifacts(outcome: SoupOutcome) -> None:
    """The verdict as Markdown, the candidates as a table, and a link to each version."""
    with shown_if_it_can_be():
        _publish_artifacts(outcome)


def verdict_in_markdown(report: SoupReport) -> str:
    """A sentence for each soup, and the tables: what the command prints after its work."""
    request = report.request
    told = (sentence(row, request.report_on, report.unit) for row in report.rows[1:])
    verdicts = (f"**{shown(each, most=600)}**" for each in told)
    return "\n\n".join((*verdicts, *tables_in_markdown(report)))


def _publish_artifacts(outcome: SoupOutcome) -> None:
    report = outcome.report
    request = report.request
    create_markdown_artifact(
        key=artifact_key(request.model, "verdict"),
        markdown=verdict_in_markdown(report),
        description=f"Soups of {shown(request.sweep or request.experiment or '')}",
    )
    create_table_artifact(
        key=artifact_key(request.model, "candidates"),
        table=[
            {
                "run": folded(c.run_name),
                "held-out": c.held_out,
                "report": c.report,
                "mean of shifts": c.mean_of_shifts,
            }
            for c in report.candidates
        ],
        description=f"Candidates, best first, on split {shown(request.select_on)}",
    )
    for soup in outcome.soups:
        if soup.link is not None:
            key = artifact_key(request.model, f"version {soup.uri.rpartition('/')[2]}")
            create_link_artifact(key=key, link=soup.link, link_text=soup.uri)
