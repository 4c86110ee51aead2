"""`stockpot serve`: the receiver of MLflow's webhooks as a process, and its registration at MLflow."""

import gc
import re
import socket
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stockpot.errors import BadRequest, StockpotError
from stockpot.logs import LOG
from stockpot.settings import Settings, reach_loopback_directly, read_settings
from stockpot.webhooks.changes import Change

if TYPE_CHECKING:
    from stockpot.tracking.mlflow_webhooks import Subscription

SHORTEST = 16
"""Characters of a secret."""
MOST = 2
"""Secrets that live: the one in MLflow, and the one before it."""
AT_ONCE = 500
"""Connections; further ones are answered 503, on which MLflow sends again."""
VARIABLE, FILE = "STOCKPOT_WEBHOOK_SECRETS", "STOCKPOT_WEBHOOK_SECRETS_FILE"
DRAW = "python -c 'import secrets; print(secrets.token_hex(24))'"


def serve(
    host: str,
    port: int,
    *,
    ready: Callable[[str], None],
    say: Callable[[str], None] = LOG.info,
) -> None:
    """Receive MLflow's webhooks until a signal ends it: SIGTERM or Control-C, as of other commands.

    Args:
        host: The address to listen at.
        port: 0 for any that is free.
        ready: Told the address that MLflow posts to, once it is listened at.
        say: Told, in lines, what changed and what was refused. Called by two threads.

    Raises BadRequest without a secret, and for an address where it cannot listen.
    """
    secrets = read_secrets(read_settings())
    _require_server()
    import uvicorn

    from stockpot.webhooks.changes import PATH
    from stockpot.webhooks.deliveries import Deliveries
    from stockpot.webhooks.receiver import receiver
    from stockpot.webhooks.telling import Refusals, Teller

    with _listening(host, port) as listener:
        teller = Teller(lambda changes: _tell(changes, say), say)
        app = receiver(Deliveries(secrets), teller.take, Refusals(say))
        # h11 alone bounds a request's head. No line of its own for a request: strangers write those.
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=AT_ONCE,
            timeout_graceful_shutdown=5,
        )
        shown, number = listener.getsockname()[:2]
        # Pauses to look for garbage in all that was imported would be the longest part of an answer.
        gc.collect()
        gc.freeze()
        ready(f"http://{f'[{shown}]' if ':' in shown else shown}:{number}{PATH}")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            teller.close()


def register(url: str, name: str) -> "Subscription":
    """Have MLflow deliver to this address, signed with the first secret; bring up to date what is there.

    Args:
        url: What MLflow posts to. Without a path: /webhooks/mlflow is put behind it.
        name: The webhook's, in MLflow. There is one of a name.

    Raises BadRequest without a secret, and for an address that is none or that MLflow refuses; the errors of
    MLflow, TrackingError and its kinds.
    """
    secrets = read_secrets(read_settings())
    url = _with_path(url)
    reach_loopback_directly()
    from stockpot.tracking import MlflowTracker
    from stockpot.tracking.mlflow_webhooks import subscribe

    return subscribe(MlflowTracker().client, name, url, secrets[0])


def read_secrets(settings: Settings) -> Sequence[str]:
    """The secrets that live, the one in MLflow first. Raises BadRequest; no message shows one."""
    told, file = settings.webhook_secrets.get_secret_value(), settings.webhook_secrets_file
    if told and file:
        raise BadRequest(f"both {VARIABLE} and {FILE} are set", mend=f"unset {VARIABLE}")
    source = FILE if file else VARIABLE
    if file:
        try:
            told = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise BadRequest(
                f"{file}, from {FILE}, cannot be read: {why}", mend=f"{DRAW} > {file}, or correct {FILE}"
            ) from error
    found = told.split()
    if not found:
        raise BadRequest(
            f"no secret of MLflow's webhook is known: {file or VARIABLE} holds none, and nothing unsigned is "
            "received",
            mend=f"export {VARIABLE}=$({DRAW})",
        )
    if len(found) > MOST:
        raise BadRequest(
            f"{source} holds {len(found)} secrets, and {MOST} may live",
            mend="keep the one that MLflow has, and the one before it",
        )
    if any(len(secret) < SHORTEST for secret in found):
        raise BadRequest(
            f"{source} holds a secret of fewer than {SHORTEST} characters: it can be guessed",
            mend=f"draw one: {DRAW}",
        )
    return tuple(found)


def _tell(changes: Sequence[Change], say: Callable[[str], None]) -> None:
    """Prefect, where it is configured; else a line alone."""
    from stockpot_flows.address import configured
    from stockpot_flows.events import tell_changed

    for change in changes:
        say(f"{change.model}: {change.what}")
    try:
        fault = tell_changed(changes)
        if not fault and configured() is None:
            fault = "Prefect is not configured, so nobody is told"
    except StockpotError as error:
        fault = error.what
    if fault:
        say(f"{fault}. The next scheduled look finds what changed")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=AT_ONCE)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadRequest(
            f"{host}:{port} cannot be listened at: {why}", mend="give a free one: --port 0 takes any"
        ) from error


def _with_path(url: str) -> str:
    from stockpot.webhooks.changes import PATH

    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known or re.search(r"[\s@?#]", url):
        raise BadRequest(
            "--register takes the address that MLflow posts to, without user, query or fragment",
            mend="stockpot serve --register https://stockpot.example.org/webhooks/mlflow",
        )
    return url.rstrip("/") + PATH if parts.path in ("", "/") else url


def _require_server() -> None:
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise BadRequest(
            f"{' and '.join(missing)} must be installed to serve", mend="pip install 'stockpot[serve]'"
        )
