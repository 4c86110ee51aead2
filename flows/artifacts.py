"""What a flow run shows in Prefect's UI."""

from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from registry.entities import SoupOutcome
from registry.ports import Progress
from registry.workflow.verdict import columns, markdown_table, sentence

SHARE_SHOWN = 0.1
"""Progress is sent in tenths: each update is a call to the API."""


class StageArtifacts:
    """Progress that is also a Prefect artifact, one per stage."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._stages: dict[str, tuple[UUID, int]] = {}
        self._done: dict[str, int] = {}

    def start(self, stage: str, total: int) -> None:
        """Open the stage's artifact."""
        self._inner.start(stage, total)
        if total:
            key = stage.lower().replace(" ", "-").replace(":", "")
            artifact = create_progress_artifact(progress=0.0, key=key, description=stage)
            self._stages[stage] = (artifact, total)  # type: ignore[assignment]  # a UUID in a sync flow

    def advance(self, stage: str) -> None:
        """Update it, at every tenth."""
        self._inner.advance(stage)
        if stage not in self._stages:
            return
        artifact, total = self._stages[stage]
        before = self._done.get(stage, 0)
        self._done[stage] = before + 1
        tenth = max(1, round(total * SHARE_SHOWN))
        if (before + 1) % tenth == 0 or before + 1 == total:
            update_progress_artifact(artifact, progress=min(100.0, 100.0 * (before + 1) / total))

    def say(self, message: str) -> None:
        """Pass it on."""
        self._inner.say(message)


def publish_artifacts(outcome: SoupOutcome) -> None:
    """The verdict as Markdown, the candidates as a table, and a link to each version."""
    report = outcome.report
    request = report.request
    verdicts = "\n\n".join(f"**{sentence(row, request.report_on)}**" for row in report.rows[1:])
    create_markdown_artifact(
        key="verdict",
        markdown=f"{verdicts}\n\n{markdown_table(report, columns(request))}",
        description=f"Soups of {request.sweep or request.experiment}",
    )
    create_table_artifact(
        key="candidates",
        table=[
            {
                "run": c.run_name,
                "held-out": c.held_out,
                "report": c.report,
                "mean of shifts": c.mean_of_shifts,
            }
            for c in report.candidates
        ],
        description=f"Candidates, best first, on split {request.select_on}",
    )
    for soup in outcome.soups:
        if soup.link is not None:
            create_link_artifact(key="version", link=soup.link, link_text=soup.uri)
