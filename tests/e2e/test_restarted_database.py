"""A database that is restarted in the middle of a walk costs a few seconds, and nothing else."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TypeVar

import pytest
from tests.store.conftest import own_server

from stockpot.entities import SoupRequest
from stockpot.store import upgrade
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import answer
from stockpot.workflow.walk import in_turn

pytestmark = pytest.mark.slow
T = TypeVar("T")
Control = Callable[..., None]


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """A server that holds the store, to be stopped and started."""
    with own_server() as (url, control):
        upgrade(url)
        monkeypatch.setenv("STOCKPOT_STORE_URL", url)
        yield control


TASK = """
from pathlib import Path
from stockpot.testing.tiny import TinyTask

class Halts(TinyTask):
    # In the middle of its first evaluation it lets the database be stopped, and goes on without it.

    def predict(self, model, batch):
        hook()
        return super().predict(model, batch)

hook = lambda: None
"""


def test_a_database_that_goes_away_in_the_middle_of_an_evaluation_costs_none(
    tiny_sweep: SoupRequest, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "halting_task.py").write_text(TASK)
    request = replace(tiny_sweep, task="halting_task:Halts")

    def back_soon() -> None:
        time.sleep(2)
        control("start")

    stopped: list[Thread] = []

    def stop_once() -> None:
        if not stopped:
            control("stop")
            stopped.append(Thread(target=back_soon))
            stopped[0].start()

    def stage(name: str, work: Callable[[], T], /) -> T:
        if name == "rank":
            monkeypatch.setattr(import_module("halting_task"), "hook", stop_once)
        return work()

    with Workplace() as place:
        outcome = answer(request, place, stage, Silent())
    assert stopped
    alone = replace(request, task="stockpot.testing.tiny:TinyTask", model="alone")
    with Workplace() as place:
        plain = answer(alone, place, in_turn, Silent())
    assert outcome.evaluations == plain.evaluations, "the score was committed when the database was back"
    assert [row.scores for row in outcome.report.table] == [row.scores for row in plain.report.table]


@pytest.mark.parametrize("when", ["rank", "select", "publish"])
def test_a_walk_survives_a_restart_of_its_database(
    tiny_sweep: SoupRequest, control: Control, when: str
) -> None:
    def back_soon() -> None:
        time.sleep(2)
        control("start")

    def stage(name: str, work: Callable[[], T], /) -> T:
        if name == when:
            control("stop")
            Thread(target=back_soon).start()
        return work()

    with Workplace() as place:
        outcome = answer(tiny_sweep, place, stage, Silent())
    assert outcome.evaluations > 0
    with Workplace() as place:
        again = answer(tiny_sweep, place, in_turn, Silent())
    assert again.evaluations == 0
    assert [soup.uri for soup in again.soups] == [soup.uri for soup in outcome.soups]
