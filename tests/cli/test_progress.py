"""Bars for what is under way."""

from io import StringIO

from rich.console import Console
from rich.progress import Progress

from stockpot.cli.printing import Bars


def test_a_stage_of_unknown_length_counts_and_ends_where_the_next_begins() -> None:
    shown = Progress(console=Console(file=StringIO()), auto_refresh=False)
    bars = Bars(shown)
    bars.start("list runs", 0)
    for _ in range(3):
        bars.advance("list runs")
    (listing,) = shown.tasks
    assert (listing.completed, listing.total) == (3, None)
    bars.start("find weights", 2)
    listing, looking = shown.tasks
    assert listing.finished
    assert listing.total == 3
    assert not looking.finished


def test_what_is_said_may_hold_anybodys_name() -> None:
    told = StringIO()
    Bars(Progress(console=Console(file=told), auto_refresh=False)).say("run \x1b[2J[/x]:100: goes\non")
    assert told.getvalue() == "run \\x1b[2J[/x]:100: goes\non\n"
