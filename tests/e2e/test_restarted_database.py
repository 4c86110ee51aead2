"""A database that is restarted in the middle of a walk costs a few seconds, and nothing else."""

import time
from collections.abc import Callable, Iterator
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
