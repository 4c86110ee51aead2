"""Which requests a helper takes part in, and when it leaves."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from stockpot.entities import Job, Opening, SoupRequest, digest_of_bytes
from stockpot.errors import BadTask, StoreError, UnknownPlugin
from stockpot.store import MemoryStore
from stockpot.testing.evaluators import TableEvaluator
from stockpot.watching import Silent
from stockpot.workflow import helping, leases
from stockpot.workflow.helping import AtWork, help_out
from stockpot.workflow.sharing.opening import NOT_OPEN
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

if TYPE_CHECKING:
    from stockpot.ports import MakeMethod
    from stockpot.workflow.walk import Place

PROTOCOL = TableEvaluator(lambda _: [0.0], n=1).protocol
LEADER = "host/1/leader"
OPENINGS = [Opening(program, (PROTOCOL,)) for program in ("0.0.1", "0.0.2")]


def job(model: str) -> Job:
    request = SoupRequest(model=model, task="t", sweep="s", task_args={"data": "/theirs"})
    return Job(digest_of_bytes(model.encode()), request)


class Desk:
    """As much of a place as a helper needs that gets no further than to the request's methods."""

    def __init__(self, *jobs: Job) -> None:
        self.store = MemoryStore()
        self.asked: list[SoupRequest] = []
        self.then: Callable[[SoupRequest], object] = lambda _: None
        for one in jobs:
            self.store.begin_job(one)
            self.store.take_lease(one.lease, owner=LEADER, seconds=60)
            self.store.open_job(one, OPENINGS[0], owner=LEADER)

    def methods(self, request: SoupRequest) -> "Mapping[str, MakeMethod]":
        self.asked.append(request)
        self.then(request)
        raise UnknownPlugin(f"no method for {request.model}")

    def help(self, **task_args: str) -> int:
        return help_out(cast("Place", self), Silent(), task_args=task_args)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helping, "POLL_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.2)


def test_one_requests_fault_ends_no_help_with_others() -> None:
    desk = Desk(job("first"), job("second"))
    with pytest.raises(UnknownPlugin, match="first"):
        desk.help()
    assert [request.model for request in desk.asked] == ["first", "second"]


def test_who_was_refused_at_an_earlier_opening_is_not_at_a_later_one() -> None:
    one = job("birds")
    desk = Desk(one)

    def opens_anew(_: SoupRequest) -> None:
        if len(desk.asked) == 1:
            desk.store.open_job(one, NOT_OPEN, owner=LEADER)
            desk.store.open_job(one, OPENINGS[1], owner=LEADER)

    desk.then = opens_anew
    with pytest.raises(UnknownPlugin):
        desk.help()
    assert len(desk.asked) == 2, "once for each opening"


def test_nobody_helps_before_the_splits_are_open() -> None:
    one = job("birds")
    desk = Desk(one)
    desk.store.open_job(one, NOT_OPEN, owner=LEADER)
    desk.store.take_lease(one.lease, owner=LEADER, seconds=0.3)
    assert (desk.help(), desk.asked) == (0, [])


def test_paths_that_are_others_here_take_the_place_of_the_requests_own_and_of_no_others() -> None:
    desk = Desk(job("birds"))
    with pytest.raises(UnknownPlugin):
        desk.help(data="/ours", more="/here")
    (asked,) = desk.asked
    assert asked.task_args == {"data": "/ours"}
    assert replace(asked, task_args={}) == replace(job("birds").request, task_args={})


def test_without_the_store_there_is_no_help_for_anybody() -> None:
    desk = Desk(job("first"), job("second"))

    def fails(_: SoupRequest) -> None:
        raise StoreError("the database is away")

    desk.then = fails
    with pytest.raises(StoreError, match="away"):
        desk.help()
    assert [request.model for request in desk.asked] == ["first"]


def test_who_is_no_more_at_work_may_be_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 30.0)
    one = job("birds")
    desk = Desk(one)
    desk.store.open_job(one, NOT_OPEN, owner=LEADER)
    looks: list[list[Job]] = [[one], [], [one]]

    def jobs_at_work() -> list[Job]:
        if len(looks) == 1:
            desk.store.open_job(one, OPENINGS[0], owner=LEADER)
        return looks.pop(0) if looks else [one]

    monkeypatch.setattr(desk.store, "jobs_at_work", jobs_at_work)
    with pytest.raises(UnknownPlugin):
        desk.help()
    assert (looks, len(desk.asked)) == ([], 1)


def test_a_request_is_helped_once_for_each_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    one = job("birds")
    desk, helped = Desk(one), list[Opening]()

    def give(help_: helping._Help, _: Mapping[str, str]) -> bool:
        helped.append(help_._opening)
        return True

    def jobs_at_work() -> list[Job]:
        looks.append(len(helped))
        if looks == [0, 1, 1]:
            desk.store.open_job(one, OPENINGS[1], owner=LEADER)
        return [one] if len(looks) < 6 else []

    looks: list[int] = []
    monkeypatch.setattr(helping._Help, "give", give)
    monkeypatch.setattr(desk.store, "jobs_at_work", jobs_at_work)
    desk.help()
    assert helped == OPENINGS


def test_a_fault_after_help_has_begun_ends_that_help_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(job("birds"))

    def give(help_: helping._Help, _: Mapping[str, str]) -> bool:
        evaluator = TableEvaluator(lambda _: [0.0], n=1)
        help_._evaluators["validation"] = SharedEvaluator(evaluator, desk.store)
        help_._evaluators["validation"].started = 3
        raise BadTask("the task fails at one candidate")

    monkeypatch.setattr(helping._Help, "give", give)
    assert desk.help() == 3


def test_a_request_is_at_work_as_long_as_it_is_led_and_opened_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(helping, "LOOK_SECONDS", 0.0)
    one = job("birds")
    desk = Desk(one)
    first, second = (AtWork(desk.store, one, opening) for opening in OPENINGS)
    assert (first(), second()) == (True, False)
    desk.store.open_job(one, OPENINGS[1], owner=LEADER)
    assert (first(), second()) == (False, True)
    desk.store.release_lease(one.lease, owner=LEADER)
    assert (first(), second()) == (False, False)
