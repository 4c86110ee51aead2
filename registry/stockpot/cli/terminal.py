"""What all that is printed is made of: results on stdout, progress and errors on stderr."""

import errno
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stockpot.errors import StockpotError
from stockpot.prose import one_line, visible

WIDTH = None if sys.stdout.isatty() else 120
"""A terminal's own, else enough for the tables."""


class _Results(Console):
    """Standard output. A full disk behind it is told as what it is: the work itself is done and kept."""

    def print(self, *objects: Any, **how: Any) -> None:
        with _written():
            super().print(*objects, **how)


class _Progress(Console):
    """Standard error. Where it takes no more, the work goes on without a word: it may be that of hours."""

    def print(self, *objects: Any, **how: Any) -> None:
        with suppress(OSError):
            super().print(*objects, **how)


out = _Results(width=WIDTH)
err = _Progress(stderr=True)


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
    text = json.dumps(document, indent=1)
    if err:
        with suppress(OSError):
            typer.echo(text, err=True)
        return
    with _written():
        typer.echo(text)


@contextmanager
def _written() -> Iterator[None]:
    """Raises StockpotError where standard output takes no more."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever reads has enough: no error, and whoever called us knows
            raise
        raise StockpotError(
            f"what was found could not be printed: {error.strerror}",
            mend="free some space where standard output goes, and run the same command again: what is done "
            "is kept",
        ) from error


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
