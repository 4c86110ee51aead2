"""The command that writes a version's whole page."""

from pathlib import Path
from typing import Annotated

import typer

from stockpot import calls
from stockpot.cli.options import Json
from stockpot.cli.terminal import tell
from stockpot.cli.watching import watched
from stockpot.documents import to_document
from stockpot.workflow.publishing.page import PAGE

commands = typer.Typer()


@commands.command(epilog="Example: stockpot report models:/birds@challenger --barriers")
def report(
    uri: Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS", metavar="URI")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="A file, in place of report.html among the artifacts of its run.")
    ] = None,
    barriers: Annotated[
        bool, typer.Option("--barriers", help="Evaluate the averages of its ingredients, two by two.")
    ] = False,
    influence: Annotated[
        bool, typer.Option("--influence", help="Evaluate it without each of its ingredients.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write all that is known of a registered soup as one HTML file, which MLflow's UI opens."""
    done = watched(
        lambda watch: calls.report(uri, out=out, barriers=barriers, influence=influence, watch=watch)
    )
    version = done.page.version
    where = done.place or "--out FILE writes it where a browser opens it without MLflow's UI"
    told = f"{PAGE} of {version.uri} is among the artifacts of its run {version.run_id}: {where}"
    tell(to_document(done), f"{out}: the report of {version.uri}" if out else told, as_json=as_json)
