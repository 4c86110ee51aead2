"""Which deliveries of MLflow's webhooks are believed, and what becomes of those."""

import asyncio
import json
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.webhook_deliveries import NEW, NOW, OLD, Sent, answered, mutated, payload, sent, signed_part

from stockpot.webhooks.changes import Change, change_of
from stockpot.webhooks.deliveries import Deliveries, Judged
from stockpot.webhooks.receiver import receiver
from stockpot.webhooks.replays import Taken
from stockpot.webhooks.signature import TOLERANCE, Stamp, sign, stamp_of, verify
from stockpot.webhooks.telling import Refusals, Teller
from stockpot.webhooks.verdicts import Verdict


def nobody(_: object) -> None:
    """Is told, and keeps nothing."""


def judge(*deliveries: Sent, now: float = NOW, secrets: Sequence[str] = (NEW, OLD)) -> list[Verdict]:
    judging = Deliveries(secrets, clock=lambda: now)
    return [judging.judge(each.headers, each.body).verdict for each in deliveries]


def test_what_is_signed_with_either_secret_is_accepted_and_tells_what_changed() -> None:
    assert judge(sent(1, secret=NEW), sent(2, secret=OLD)) == [Verdict.ACCEPTED] * 2
    told = Deliveries([NEW], clock=lambda: NOW).judge(sent().headers, sent().body)
    change = Change(
        "birds",
        "model_version_alias.created",
        "the alias champion is on version 3",
        delivery="0b5e7c1a-000000000001",
    )
    assert told == Judged(Verdict.ACCEPTED, change)


def test_a_third_secret_is_forged() -> None:
    assert judge(sent(secret=OLD), secrets=[NEW]) == [Verdict.FORGED]


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (TOLERANCE + 1, Verdict.LATE),
        (TOLERANCE, Verdict.ACCEPTED),
        (-TOLERANCE, Verdict.ACCEPTED),
        (-TOLERANCE - 1, Verdict.EARLY),
    ],
)
def test_a_delivery_counts_for_two_minutes(seconds: int, verdict: Verdict) -> None:
    assert judge(sent(at=NOW - seconds)) == [verdict]


def test_a_delivery_is_taken_once() -> None:
    assert judge(sent(1), sent(2), sent(1)) == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.REPLAYED]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(-400, 400)), min_size=1, max_size=40
    ),
    st.integers(1, 3),
)
def test_no_id_is_taken_twice_whatever_the_clock_does_and_however_many_come(
    tries: list[tuple[int, int, int]], limit: int
) -> None:
    taken, accepted = Taken(limit), []
    for number, signed, clock in tries:
        stamp = Stamp(f"id-{number}-{signed}", str(1000 + 40 * signed), "")
        if taken.take(stamp, 1000.0 + clock) is Verdict.ACCEPTED:
            accepted.append(stamp.delivery)
        assert len(taken) <= limit
    assert len(accepted) == len(set(accepted))


def test_ids_are_forgotten_with_their_time() -> None:
    taken = Taken()
    for number in range(1000):
        taken.take(Stamp(str(number), str(1000 + number), ""), 1000.0 + number)
    assert len(taken) == TOLERANCE + 1


@given(
    st.text(min_size=1), st.from_regex(r"[\w-]{1,64}", fullmatch=True), st.integers(1, 10**10), st.binary()
)
def test_what_is_signed_verifies_and_any_other_body_does_not(
    secret: str, delivery: str, at: int, body: bytes
) -> None:
    secret = secret.encode("utf-8", "replace").decode()
    stamp = Stamp(delivery, str(at), sign(secret, delivery, str(at), body))
    assert verify(stamp, body, [secret], at) is Verdict.ACCEPTED
    assert verify(stamp, body + b" ", [secret], at) is Verdict.FORGED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"birds",
        b"[]",
        b'"birds"',
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"data": {}, "entity": 1e400, "action": NaN}',
        b'{"n": ' + b"9" * 5000 + b"}",
        payload(name=""),
        payload(name=None),
        payload(name=7),
        payload(name="x" * 501),
        payload(name="\ud800"),
        payload(name="nul\0"),
        payload(alias=["champion"]),
        payload(version=3),
    ],
)
def test_what_is_signed_and_is_nothing_of_mlflows_is_refused(body: bytes) -> None:
    assert judge(sent(body=body)) == [Verdict.UNREADABLE]


@pytest.mark.parametrize(
    ("entity", "action"),
    [("prompt_alias", "created"), ("registered_model", "created"), ("model_version", "vanished")],
)
def test_other_events_are_accepted_and_lead_to_nothing(entity: str, action: str) -> None:
    body = json.dumps({"entity": entity, "action": action, "data": {"name": "birds"}}).encode()
    assert judge(sent(body=body)) == [Verdict.IGNORED]
    assert change_of(body) is None


@pytest.mark.parametrize(
    ("key", "what"), [("stockpot.approval", "version 3 has the tag stockpot.approval"), ("stage", None)]
)
def test_of_tags_an_approval_alone_is_looked_at(key: str, what: str | None) -> None:
    data = {"name": "birds", "version": "3", "key": key, "value": "approved"}
    found = change_of(json.dumps({"entity": "model_version_tag", "action": "set", "data": data}).encode())
    assert (found and found.what) == what


def _fuzz(number: int) -> None:
    """Of overheard deliveries some were taken, some are too old; a few arrive true, for the first time."""
    rng = random.Random(2026)  # noqa: S311 - repeatable
    taken: list[Change] = []
    told: list[Verdict] = []
    deliveries = Deliveries([NEW, OLD], clock=lambda: NOW)
    app = receiver(deliveries, taken.append, told.append, limit=2000)
    before = [sent(n, secret=rng.choice([NEW, OLD])) for n in range(20)]
    late = [sent(100 + n, at=NOW - 121 - n) for n in range(20)]

    async def all_of_them() -> None:
        for overheard in before:
            assert await answered(app, overheard) == 200
        for turn in range(number):
            fresh = sent(1000 + turn)
            source = rng.choice([rng.choice(before), rng.choice(late), fresh])
            attack = mutated(source, rng) if rng.random() < 0.9 or source is fresh else source
            true = signed_part(attack) == signed_part(fresh)  # but for a header that nobody signs
            count = len(taken)
            status = await answered(app, attack, rng.randrange(1, 4))
            assert status in {200, 401, 409, 413}, (turn, status)
            assert (status == 200, len(taken) - count) == (true, int(true)), (turn, attack)

    asyncio.run(all_of_them())
    assert len(told) == number + len(before)
    kinds = {Verdict.UNSIGNED, Verdict.FORGED, Verdict.LATE, Verdict.REPLAYED, Verdict.ACCEPTED}
    assert kinds <= {*told}, "the mutations reach every check"


def test_of_2000_mutated_deliveries_none_is_accepted_and_none_crashes_the_receiver() -> None:
    _fuzz(2000)


@pytest.mark.slow
def test_of_100000_mutated_deliveries_none_is_accepted_and_none_crashes_the_receiver() -> None:
    _fuzz(100_000)


def test_headers_that_come_twice_or_in_another_shape_are_no_stamp() -> None:
    true = sent()
    assert stamp_of(true.headers) is not None
    for number in range(3):
        assert stamp_of(true.headers[:number] + true.headers[number + 1 :]) is None
        assert stamp_of([*true.headers, true.headers[number]]) is None
        for shape in (b"", b"\xff", true.header(number) + b" ", true.header(number) + b"\n"):
            assert stamp_of(true.with_header(number, shape).headers) is None


def status_of(delivery: Sent, *, limit: int = 1000, declared: str | None = None) -> tuple[int, list[Verdict]]:
    told: list[Verdict] = []
    app = receiver(Deliveries([NEW], clock=lambda: NOW), nobody, told.append, limit=limit, seconds=0.05)
    headers = [*delivery.headers, *([(b"content-length", declared.encode("latin-1"))] if declared else [])]
    return asyncio.run(answered(app, Sent(headers, delivery.body), 50)), told


@pytest.mark.parametrize(
    ("delivery", "declared", "status"),
    [
        (sent(), None, 200),
        (sent(body=b"no json"), None, 400),
        (sent(secret=OLD), None, 401),
        (sent(body=b" " * 1001), None, 413),
        (sent(body=b""), "1001", 413),
        (sent(body=b""), "9" * 5000, 413),
        (sent(), "\xb2", 200),  # no server lets that through; a number in Unicode is none here
    ],
)
def test_each_verdict_has_its_status(delivery: Sent, declared: str | None, status: int) -> None:
    found, told = status_of(delivery, declared=declared)
    assert (found, [verdict.status for verdict in told]) == (status, [status])


def test_no_more_than_the_limit_is_read() -> None:
    read: list[int] = []

    async def receive() -> dict[str, object]:
        read.append(100)
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def send(message: object) -> None:
        told.append(message)

    told: list[object] = []
    app = receiver(Deliveries([NEW]), nobody, nobody, limit=1000)
    scope = {"type": "http", "method": "POST", "path": "/webhooks/mlflow", "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert sum(read) == 1100
    assert told[0]["status"] == 413  # type: ignore[index]  # as above
    assert (b"connection", b"close") in told[0]["headers"]  # type: ignore[index]  # as above


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async def receive() -> dict[str, object]:
        await asyncio.sleep(60)
        return {}

    async def send(message: Any) -> None:
        told.append(message.get("status"))

    told: list[object] = []
    app = receiver(Deliveries([NEW]), nobody, nobody, seconds=0.01)
    scope = {"type": "http", "method": "POST", "path": "/webhooks/mlflow", "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert told[0] == 408


def change(model: str, what: str = "") -> Change:
    return Change(model, "", what)


def test_taking_never_waits_and_the_newest_of_each_model_is_told() -> None:
    begun, go_on, told = threading.Event(), threading.Event(), []

    def tell(changes: tuple[Change, ...]) -> None:
        told.append(changes)
        begun.set()
        assert go_on.wait(60)

    said: list[str] = []
    teller = Teller(tell, said.append, every=0.0, limit=2)
    assert teller.take(change("birds", "first"))
    assert begun.wait(60)
    taken = [teller.take(change(name, what)) for name, what in (("birds", "a"), ("fish", "b"), ("cats", "c"))]
    assert taken == [True, True, False]
    assert teller.take(change("birds", "newest"))
    begun.clear()
    go_on.set()
    assert begun.wait(60)
    teller.close(60)
    assert told == [(change("birds", "first"),), (change("birds", "newest"), change("fish", "b"))]
    assert said == ["1 more changes were dropped: too many models wait to be told of"]


def test_the_first_change_is_told_at_once_and_the_next_ones_together() -> None:
    told: list[tuple[Change, ...]] = []
    begun: list[float] = []
    ended: list[float] = []
    once, twice, go_on = threading.Event(), threading.Event(), threading.Event()

    def tell(changes: tuple[Change, ...]) -> None:
        told.append(changes)
        begun.append(time.monotonic())
        (twice if once.is_set() else once).set()
        if len(told) == 1:
            assert go_on.wait(60)  # it takes its time, which does not count
            ended.append(time.monotonic())

    teller = Teller(tell, nobody, every=0.3)
    teller.take(change("birds"))
    assert once.wait(60)
    for name in ("birds", "fish", "birds"):
        teller.take(change(name))
    go_on.set()
    assert twice.wait(60)
    teller.close(60)
    assert told == [(change("birds"),), (change("birds"), change("fish"))]
    assert begun[1] - ended[0] >= 0.29


def test_a_change_that_joins_others_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[int] = []
    notify, told = threading.Condition.notify, threading.Event()

    def noted(condition: threading.Condition, n: int = 1) -> None:
        if condition is teller._changed:
            woken.append(n)
        notify(condition, n)

    teller = Teller(lambda _: told.set(), nobody, every=1000.0)
    monkeypatch.setattr(threading.Condition, "notify", noted)
    teller.take(change("birds"))
    assert told.wait(60)
    for name in ("birds", "fish", "birds", "cats"):
        teller.take(change(name))
    assert len(woken) == 2, "of those that wait for the next telling only the first"
    teller.close(60)


def test_what_cannot_be_told_is_said_and_the_next_one_is_told() -> None:
    said: list[str] = []
    failed, done = threading.Event(), threading.Event()

    def tell(changes: tuple[Change, ...]) -> None:
        if changes[0].model == "birds":
            raise OSError("no way")
        done.set()

    def say(line: str) -> None:
        said.append(line)
        failed.set()

    teller = Teller(tell, say, every=0.0)
    teller.take(change("birds"))
    assert failed.wait(60)
    teller.take(change("fish"))
    assert done.wait(60)
    teller.close(60)
    assert said == ["what changed could not be told: OSError: no way"]


def test_refusals_are_said_once_a_minute_for_each_reason() -> None:
    said: list[str] = []
    now = 0.0
    refusals = Refusals(said.append, every=60.0, clock=lambda: now)
    for verdict in (Verdict.FORGED, Verdict.FORGED, Verdict.LATE, Verdict.ACCEPTED, Verdict.FORGED):
        refusals(verdict)
    now = 61.0
    refusals(Verdict.FORGED)
    assert said == [
        f"a delivery {Verdict.FORGED}",
        f"a delivery {Verdict.LATE}",
        f"3 deliveries {Verdict.FORGED}",
    ]
