"""Deliveries as MLflow sends them, what strangers make of those, and a receiver without a socket."""

import base64
import hashlib
import hmac
import json
import random
from dataclasses import dataclass, replace
from typing import Any

from starlette.routing import Router

NOW = 1_800_000_000.0
OLD, NEW = "the-secret-before-this", "the-secret-that-is-now"
NAMES = (b"x-mlflow-delivery-id", b"x-mlflow-timestamp", b"x-mlflow-signature")
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Sent:
    """A delivery on its way."""

    headers: Headers
    body: bytes

    def header(self, number: int) -> bytes:
        """The value of the delivery's id, its time or its signature."""
        return self.headers[number][1]

    def with_header(self, number: int, value: bytes) -> "Sent":
        """With another value of it."""
        changed = [*self.headers]
        changed[number] = (changed[number][0], value)
        return replace(self, headers=changed)


def payload(action: str = "created", **data: Any) -> bytes:
    """Of an alias that moved."""
    told = {"name": "birds", "alias": "champion", "version": "3", **data}
    return json.dumps({"entity": "model_version_alias", "action": action, "data": told}).encode()


def sent(number: int = 1, *, body: bytes | None = None, secret: str = NEW, at: float = NOW) -> Sent:
    """A true delivery, with the signature spelt out."""
    body = payload() if body is None else body
    delivery, time = b"0b5e7c1a-%012d" % number, b"%d" % at
    signed = hmac.new(secret.encode(), delivery + b"." + time + b"." + body, hashlib.sha256).digest()
    values = (delivery, time, b"v1," + base64.b64encode(signed))
    return Sent([*zip(NAMES, values, strict=True), (b"content-type", b"application/json")], body)


def mutated(true: Sent, rng: random.Random) -> Sent:
    """What somebody without a secret makes of a delivery that was overheard: it differs somewhere."""
    changed = true
    while changed == true or rng.random() < 0.2:
        changed = rng.choice(_CHANGES)(changed, rng)
    return changed


def _spoilt(text: bytes, rng: random.Random) -> bytes:
    """A bit flipped, a byte lost, some added, a piece twice, or nothing left."""
    place = rng.randrange(len(text) + 1)
    match rng.randrange(5):
        case 0 if place < len(text):
            return text[:place] + bytes([text[place] ^ 1 << rng.randrange(8)]) + text[place + 1 :]
        case 1:
            return text[:place] + text[place + 1 :]
        case 2:
            return text[:place] + rng.randbytes(rng.randrange(1, 9)) + text[place:]
        case 3:
            return text + text[place:]
        case _:
            return b""


def _body(true: Sent, rng: random.Random) -> Sent:
    return replace(true, body=_spoilt(true.body, rng))


def _value(true: Sent, rng: random.Random) -> Sent:
    number = rng.randrange(len(true.headers)) if true.headers else 0
    return true.with_header(number, _spoilt(true.header(number), rng)) if true.headers else _twice(true, rng)


def _without(true: Sent, rng: random.Random) -> Sent:
    kept = [header for header in true.headers if header[0] != rng.choice(NAMES)]
    return replace(true, headers=kept)


def _twice(true: Sent, rng: random.Random) -> Sent:
    """A header again, with the same value or another, before or behind it."""
    name = rng.choice(NAMES)
    further = (name, rng.choice([value for _, value in true.headers] or [b""]))
    return replace(true, headers=[further, *true.headers] if rng.random() < 0.5 else [*true.headers, further])


def _cut_elsewhere(true: Sent, rng: random.Random) -> Sent:
    """The same signed bytes, taken apart at another full stop."""
    if [name for name, _ in true.headers[:3]] != [*NAMES]:
        return _body(true, rng)
    pieces = b".".join((true.header(0), true.header(1), true.body)).split(b".")
    first = rng.randrange(1, max(2, len(pieces) - 1))
    second = rng.randrange(first, len(pieces) + 1)
    moved = true.with_header(0, b".".join(pieces[:first])).with_header(1, b".".join(pieces[first:second]))
    return replace(moved, body=b".".join(pieces[second:]))


def _later(true: Sent, rng: random.Random) -> Sent:
    return _set(true, 1, b"%d" % (NOW + rng.randrange(-600, 600)))


def _another_id(true: Sent, rng: random.Random) -> Sent:
    return _set(true, 0, b"%032x" % rng.getrandbits(128))


def _another_spelling(true: Sent, rng: random.Random) -> Sent:
    """Of a signature that stands for the same bytes, or of a number that is the same."""
    signature = (
        b"v1," + rng.choice([b" ", b"", b"\n"]) + true.headers[-2][1][3:-1] if len(true.headers) > 2 else b""
    )
    unpadded = signature + rng.choice([b"", b"==", b"=\n", b"= v1,"])
    return rng.choice([_set(true, 2, unpadded), _set(true, 1, b"%015d" % NOW), _set(true, 1, b"+%d" % NOW)])


def _signed_otherwise(true: Sent, rng: random.Random) -> Sent:
    """With no secret, a part of one, or the body's own hash."""
    secret = rng.choice(["", NEW[:-1], NEW + "x", NEW.upper(), "None", f"{NEW} {OLD}"])
    forged = sent(rng.randrange(10**6), body=true.body, secret=secret)
    plain = b"v1," + base64.b64encode(hashlib.sha256(true.body).digest())
    return forged if rng.random() < 0.7 else forged.with_header(2, plain)


def _set(true: Sent, number: int, value: bytes) -> Sent:
    return true.with_header(number, value) if len(true.headers) > number else true


_CHANGES = (
    *(_body, _body, _value, _value, _without, _twice, _cut_elsewhere, _later),
    *(_another_id, _another_spelling, _signed_otherwise),
)


async def answered(app: Router, delivery: Sent, pieces: int = 1, **scope: Any) -> int:
    """The status of the receiver's answer, as a server asks it. What it raises comes through."""
    statuses: list[int] = []
    size = max(1, -(-len(delivery.body) // pieces))
    cut = [delivery.body[start : start + size] for start in range(0, len(delivery.body), size)] or [b""]
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in cut]
    waiting[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    asked = {
        "type": "http",
        "method": "POST",
        "path": "/webhooks/mlflow",
        "raw_path": b"/webhooks/mlflow",
        "query_string": b"",
        "root_path": "",
        "headers": delivery.headers,
        **scope,
    }
    await app(asked, receive, send)
    (status,) = statuses
    return status


def signed_part(delivery: Sent) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """What is signed, and the signature."""
    return sorted(header for header in delivery.headers if header[0] in NAMES), delivery.body
