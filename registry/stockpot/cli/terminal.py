"""What all that is printed is made of: results on stdout, progress and errors on stderr."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stockpot.prose import one_line, visible

WIDTH = None if sys.stdout.isatty() else 120
"""A terminal's own, else enough for the tables."""
out = Console(width=WIDTH)
err = Console(stderr=True)


def plain(text: str) -> Text:
    """Text that strangers have a hand in, such as the names of runs, as it is to be printed.

    What looks like markup or an emoji's code stays as it is; control characters are shown by their escapes.
    Only ends of lines stay what they are.
    """
    return Text(visible(text))


def tell(document: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """One line for people, or one document for programs."""
    if as_json:
        echo(document)
    else:
        out.print(plain(text), soft_wrap=True)


def echo(document: object, *, err: bool = False) -> None:
    """Not through rich, which would break long lines."""
    typer.echo(json.dumps(document, indent=1), err=err)


def print_heading(title: str, rest: str = "") -> None:
    """A title that stands out."""
    out.print(Text.assemble((title, "bold"), plain(rest)))


def new_table(first: str, *others: str) -> Table:
    """Columns that stand close, so that a dozen fit a terminal."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(plain(first))
    for other in others:
        table.add_column(plain(other), justify="right" if others[0] else "left")
    return table


def add_row(table: Table, *cells: str) -> None:
    """One row, of texts that strangers have a hand in."""
    # An end of a line in a name would look like another row.
    table.add_row(*(Text(one_line(cell)) for cell in cells))
