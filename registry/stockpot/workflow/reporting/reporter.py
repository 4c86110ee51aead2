"""Writes the page of a version: beside it in MLflow, or to a file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from stockpot.entities import ModelVersion, SoupReport, tags
from stockpot.errors import BadRequest
from stockpot.ports import Records
from stockpot.workflow.lineage.versions import origin_of
from stockpot.workflow.publishing.page import PAGE
from stockpot.workflow.reporting.version_page import VersionPage, version_page
from stockpot.workflow.trace import part_of

Render = Callable[[VersionPage, bytes], str]
"""The page as HTML, with the figure as PNG bytes."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A page that was written."""

    page: VersionPage
    place: str | None
    """The file; beside the version, where a browser shows it, and None without a server."""
    evaluations: int
    """That were begun for it."""


@dataclass(frozen=True)
class Reporter:
    """Tells all that is known of versions. Holds the adapters; keeps no state."""

    place: Records
    draw: Callable[[SoupReport], bytes]
    render: Render
    alias_of: Callable[[str], str]
    """The alias of a registered model's champion."""

    def page(self, uri: str) -> VersionPage:
        """What there is to tell. Raises what `version_page` raises."""
        return version_page(uri, self.place, self.alias_of(self.place.tracker.version(uri).name))

    def html(self, page: VersionPage) -> bytes:
        """As one file that needs no other."""
        return self.render(page, self.draw(page.report)).encode()

    def show(self, version: ModelVersion) -> VersionPage:
        """Write the version's page among the artifacts of its run, in place of an earlier one.

        Raises BadRequest for a version that has no run of its own, since it is a copy, or that is gone.
        """
        run_id = self.require_run(version)
        page = self.page(version.uri)
        self.place.tracker.put_file(run_id, PAGE, self.html(page))
        return page

    def require_run(self, version: ModelVersion) -> str:
        """The run whose artifact the page is. Raises BadRequest where there is none, or it is another soup's:
        its page would be lost.
        """
        origin = origin_of(version, self.place.tracker)
        if origin.uri != version.uri:
            raise BadRequest(
                f"{version.uri} is a copy of {origin.uri}, beside which the page lies",
                mend=f"stockpot report {quote(origin.uri)}, or give --out FILE",
            )
        if version.run_id is None:
            raise BadRequest(f"{version.uri} has no run to lie beside", mend="give --out FILE")
        for run, _ in self.place.tracker.runs_named([version.run_id]):
            if run.tags.get(tags.RECIPE) != version.tags.get(tags.RECIPE):
                raise BadRequest(
                    f"{version.uri} tells of another soup than its run {version.run_id}, beside which the "
                    "page would lie: its tags were copied",
                    mend="delete that version's tags, or give --out FILE",
                )
        return version.run_id

    def write(self, page: VersionPage, out: Path) -> None:
        """Write it to a file, whole or not at all. Raises BadRequest."""
        content = self.html(page)
        with part_of(out) as part:
            part.write_bytes(content)
            part.replace(out)

    def link(self, version: ModelVersion) -> str | None:
        """Where a browser shows the page beside the version; None without a server."""
        for run, _ in self.place.tracker.runs_named([version.run_id] if version.run_id else []):
            if (link := self.place.tracker.run_link(run)) is not None:
                return f"{link}/artifacts/{PAGE}"
        return None
