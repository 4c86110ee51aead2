"""Commands about descent: what is in a version, and what holds a run."""

from enum import StrEnum
from typing import Annotated

import typer

from stockpot.cli.options import Json
from stockpot.cli.terminal import echo, out, plain
from stockpot.cli.watching import watched
from stockpot.documents import to_document
from stockpot.entities import Lineage
from stockpot.errors import BadRequest
from stockpot.ports import Watcher
from stockpot.prose import counted, one_line
from stockpot.wiring import Workplace

commands = typer.Typer()


class Drawn(StrEnum):
    """How a lineage is drawn."""

    TREE = "tree"
    MERMAID = "mermaid"


@commands.command(epilog="Example: stockpot lineage models:/birds@champion")
def lineage(
    name: Annotated[
        str | None,
        typer.Argument(help="Run id, models:/NAME/VERSION, models:/NAME@ALIAS or sha256:...", metavar="NAME"),
    ] = None,
    *,
    drawn: Annotated[Drawn, typer.Option("--format", help="A tree, or a chart in mermaid.")] = Drawn.TREE,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First keep what lies beside versions that the store lacks.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what a run, a checkpoint or a version is made of, and which versions hold it."""
    if name is None and not rebuild:
        raise BadRequest("there is nothing to tell of", mend="name a run or a version, or give --rebuild")
    with Workplace() as place:
        failed = _rebuild(place, as_json=as_json and name is None) if rebuild else 0
        if name is not None:
            from stockpot.workflow.lineage.family import lineage as look

            _show(look(name, place), drawn, as_json=as_json)
    if failed:
        raise typer.Exit(failed)


def _show(found: Lineage, drawn: Drawn, *, as_json: bool) -> None:
    from stockpot.workflow.lineage.drawing import mermaid, tree

    if as_json:
        echo(to_document(found))
        return
    for line in mermaid(found) if drawn is Drawn.MERMAID else tree(found):
        out.print(plain(one_line(line)), soft_wrap=True)
    for note in found.notes:
        comment = "%% " if drawn is Drawn.MERMAID else "- "
        out.print(plain(f"{comment}{one_line(note)}"), soft_wrap=True)


def _rebuild(place: Workplace, *, as_json: bool) -> int:
    """The exit code: of the first version that was refused."""
    from stockpot.workflow.lineage.rebuilding import Rebuilt, Told, rebuild_lineage

    def rebuilt(watch: Watcher) -> tuple[Rebuilt, ...]:
        return rebuild_lineage(place, watch)

    found = watched(rebuilt)
    if as_json:
        echo([to_document(one) for one in found])
    else:
        for one in found:
            if one.told is Told.REFUSED:
                text = f"{one.uri} is refused: {one.fault}. To mend it: {one.mend}"
                out.print(plain(one_line(text)), soft_wrap=True)
        numbers = ", ".join(f"{sum(one.told is told for one in found)} {told.value}" for told in Told)
        out.print(f"{counted(len(found), 'version')} of soups: {numbers}.", highlight=False)
    return next((one.exit_code for one in found if one.told is Told.REFUSED), 0)
