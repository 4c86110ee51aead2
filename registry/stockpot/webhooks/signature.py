"""Whether MLflow signed a delivery, as a pure function.

What it signs, with HMAC-SHA256 under a secret of the webhook: the delivery's id, a full stop, the time, a
full stop, the body's bytes (`mlflow/webhooks/delivery.py`, 3.17). The signature is ``v1,`` and its base64.
"""

import hmac
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stockpot.webhooks.verdicts import Verdict

TOLERANCE = 120
"""Seconds between the signing and now. MLflow signs once and sends up to four times: each try may take 30 s,
and up to 9 s lie between them all, so the last one begins after 99 s at most.
"""
DELIVERY = b"x-mlflow-delivery-id"
TIMESTAMP = b"x-mlflow-timestamp"
SIGNATURE = b"x-mlflow-signature"
# No full stop in the first two: the signed bytes can be taken apart in one way only.
SHAPES = {
    DELIVERY: re.compile(rb"[A-Za-z0-9_-]{1,64}"),
    TIMESTAMP: re.compile(rb"[1-9][0-9]{0,11}"),
    SIGNATURE: re.compile(rb"v1,[A-Za-z0-9+/]{43}="),
}


@dataclass(frozen=True)
class Stamp:
    """What the headers of a delivery say."""

    delivery: str
    """Its id, the same each time that it is sent."""
    timestamp: str
    """When it was signed: seconds since 1970, as they were signed."""
    signature: str

    @property
    def signed_at(self) -> int:
        """The time as a number."""
        return int(self.timestamp)


def stamp_of(headers: Iterable[tuple[bytes, bytes]]) -> Stamp | None:
    """The stamp in these headers, their names in lower case. None where one of the three is missing, has
    another shape than MLflow's, or comes twice: two readers may read two things.
    """
    found: dict[bytes, str] = {}
    for name, value in headers:
        if (shape := SHAPES.get(name)) is None:
            continue
        if name in found or not shape.fullmatch(value):
            return None
        found[name] = value.decode("ascii")
    if len(found) < len(SHAPES):
        return None
    return Stamp(found[DELIVERY], found[TIMESTAMP], found[SIGNATURE])


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """MLflow's signature of this delivery."""
    signed = b".".join((delivery.encode(), timestamp.encode(), body))
    return f"v1,{b64encode(hmac.digest(secret.encode(), signed, 'sha256')).decode()}"


def verify(stamp: Stamp, body: bytes, secrets: Sequence[str], now: float) -> Verdict:
    """ACCEPTED, FORGED, LATE or EARLY.

    Args:
        stamp: Of its headers.
        body: Its bytes as they came.
        secrets: Each may have signed it: while one is replaced, two live.
        now: Seconds since 1970.

    How long it takes does not depend on where signatures differ, nor on which secret it was.
    """
    # As text, not as the bytes that base64 stands for: those have several spellings.
    own = [sign(secret, stamp.delivery, stamp.timestamp, body) for secret in secrets]
    if not any([hmac.compare_digest(stamp.signature, each) for each in own]):  # noqa: C419 - all are compared
        return Verdict.FORGED
    if stamp.signed_at < now - TOLERANCE:
        return Verdict.LATE
    return Verdict.EARLY if stamp.signed_at > now + TOLERANCE else Verdict.ACCEPTED
