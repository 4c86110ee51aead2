"""What is told of work that is under way: bars on a terminal, lines elsewhere."""

import re
from io import StringIO

import pytest
from rich.console import Console
from rich.progress import Progress

from stockpot.cli import watching
from stockpot.cli.watching import Bars, watched
from stockpot.ports import Watcher
from stockpot.watching import Lines


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
    assert told.getvalue() == "run \\x1b[2J[/x]:100: goes\\non\n"


def _work(watch: Watcher) -> None:
    watch.start("list runs", 0)
    watch.advance("list runs")
    watch.start("rank", 2)
    watch.say("run \x1b[2J\n is [red]slow")
    for _ in range(2):
        watch.advance("rank")


def test_a_pipe_gets_lines_with_time_and_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    told = StringIO()
    monkeypatch.setattr(watching, "err", Console(file=told))
    watched(_work)
    lines = told.getvalue().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert [line[20:] for line in lines] == [
        "list runs: begins",
        "list runs: 1 after 0 s",
        "rank: 0 of 2",
        "run \\x1b[2J\\n is [red]slow",
        "rank: 2 of 2 after 0 s",
    ]


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    told = StringIO()
    monkeypatch.setattr(watching, "err", Console(file=told, force_terminal=True, width=80))
    watched(_work)
    assert re.search(r"rank .*2/2", told.getvalue())


def test_a_long_stage_is_told_of_now_and_then() -> None:
    often: list[str] = []
    seldom: list[str] = []
    for lines in (Lines(often.append, seconds=0.0), Lines(seldom.append, seconds=60.0)):
        lines.start("rank", 1000)
        for _ in range(999):
            lines.advance("rank")
    assert len(often) == 1000
    assert often[-1].startswith("rank: 999 of 1,000")
    assert seldom == ["rank: 0 of 1,000"]


def test_a_stage_that_nobody_started_is_no_fault() -> None:
    told: list[str] = []
    Lines(told.append).advance("rank")
    assert not told
