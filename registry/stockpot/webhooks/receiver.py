"""The receiver: what MLflow posts to, and what tells that it is there."""

import asyncio
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router

from stockpot.webhooks.changes import PATH, Change
from stockpot.webhooks.deliveries import Deliveries
from stockpot.webhooks.verdicts import Verdict

LIMIT = 2**20
"""Bytes of a body. A version's tag has up to 100,000 characters, in JSON six bytes each, seldom more."""
SECONDS = 10.0
"""In which a body has arrived."""
CUT = {Verdict.TOO_LARGE, Verdict.TOO_SLOW, Verdict.CUT_OFF}
"""The rest of such a body stays unread, and the connection ends."""


def receiver(
    deliveries: Deliveries,
    take: Callable[[Change], object],
    tell: Callable[[Verdict], None],
    *,
    limit: int = LIMIT,
    seconds: float = SECONDS,
) -> Router:
    """An application that answers POST /webhooks/mlflow, and GET /health.

    Args:
        deliveries: Judges.
        take: Gets what is accepted. It must neither wait nor raise.
        tell: Gets each verdict, likewise. Nothing of a body is told.
        limit: Bytes of a body. More is not read.
        seconds: In which a body has arrived.
    """

    async def receive(request: Request) -> Response:
        body = await _body(request, limit, seconds)
        if isinstance(body, Verdict):
            tell(body)
            return _answer(body)
        judged = deliveries.judge(request.scope["headers"], body)
        tell(judged.verdict)
        if judged.change is not None:
            take(judged.change)
        return _answer(judged.verdict)

    return Router(routes=[Route(PATH, receive, methods=["POST"]), Route("/health", _health, methods=["GET"])])


async def _health(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def _body(request: Request, limit: int, seconds: float) -> bytes | Verdict:
    """All of it, or why not."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > len(str(limit)) or int(declared) > limit):
        return Verdict.TOO_LARGE
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    return Verdict.TOO_LARGE
    except TimeoutError:
        return Verdict.TOO_SLOW
    except ClientDisconnect:
        return Verdict.CUT_OFF
    return bytes(body)


def _answer(verdict: Verdict) -> Response:
    """The verdict in a word or two; nothing where there is nothing to mend, in one packet less."""
    if verdict is Verdict.ACCEPTED:
        return Response(status_code=verdict.status)
    return PlainTextResponse(verdict, verdict.status, {"connection": "close"} if verdict in CUT else None)
