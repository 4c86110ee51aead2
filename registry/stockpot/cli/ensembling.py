"""The command that writes specialists as one model."""

from pathlib import Path
from typing import Annotated

import typer

from stockpot.cli import terminal
from stockpot.cli.options import Json
from stockpot.cli.watching import watched
from stockpot.ports import Watcher
from stockpot.prose import size
from stockpot.wiring import Workplace

commands = typer.Typer()


@commands.command(epilog="Example: stockpot ensemble models:/texts@challenger --out together --domain python")
def ensemble(
    uri: Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS", metavar="URI")],
    *,
    out: Annotated[Path, typer.Option(help="The new folder to write, which `mlflow models serve -m` takes.")],
    domain: Annotated[
        str | None, typer.Option(help="What texts mostly are of: by default, nothing is known of them.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="With --domain, only this many specialists: those likeliest there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the language models that a sweep found for its domains as one that answers by all of them."""
    from stockpot.workflow.ensembling import Together, write_together

    def written(watch: Watcher) -> Together:
        with Workplace(watch=watch) as place:
            return write_together(uri, place, out, watch, domain=domain, top=top)

    made = watched(written)
    terminal.tell(
        {
            "uri": made.version.uri,
            "out": str(out),
            "passes": len(made.members),
            "bytes": made.weights,
            "members": [
                {"domains": [*one.domains], "recipe": one.recipe.digest, "prior": one.prior}
                for one in made.members
            ],
        },
        f"{out}: {made.cost} ({size(made.weights)}). Nothing is registered; mlflow models serve -m {out} "
        "serves it",
        as_json=as_json,
    )
