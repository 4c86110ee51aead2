"""Every call to MLflow is made inside `asking`: without chatter, and with its failures turned into ours."""

import logging
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from stockpot.errors import NotPermitted, StockpotError, TrackingError, Unreachable
from stockpot.secrets import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRACKING = "MLFLOW_TRACKING_URI"
REGISTRY = "MLFLOW_REGISTRY_URI"
CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
NO_ANSWER = 503
# All that MLflow keeps of the failures of a download is their text.
IN_A_DOWNLOAD = re.compile(r"\b([45]\d\d) (?:Client|Server) Error\b|Max retries exceeded")
IN_A_BUCKET = re.compile(r"An error occurred \((\w+)\) when calling")
"""What an S3-compatible store says, by status or by name."""
BUCKET_NAMES = {"AccessDenied": 403, "NoSuchKey": 404, "NoSuchBucket": 404, "SlowDown": 503}


# Up to the last @: a password may hold one.
USERINFO = re.compile(r"(?<=://)[^/\s]+@")
# SQLAlchemy takes slashes in a password.
OF_A_DATABASE = re.compile(r"\b((?:postgres|mysql|mariadb|mssql|oracle)\w*(?:\+\w+)?://)\S*@")
WEB_PAGE = re.compile(r"(?:Response body: )?['\"]?\s*<(?:!doctype|html)\b.*", re.IGNORECASE | re.DOTALL)
QUERY = re.compile(r"\?[\w.%~-]+=[^\s'\"<>)]*")


@contextmanager
def logging_left_alone() -> Iterator[None]:
    """Around the first import of `mlflow.pytorch`, which calls `logging.basicConfig`: that gives the whole
    program a handler on stderr, so that what others log comes twice. It does nothing where there is one.
    """
    root, held = logging.getLogger(), logging.NullHandler()
    root.addHandler(held)
    try:
        yield
    finally:
        root.removeHandler(held)


class _Shared:
    """A process-wide setting that threads may want at the same time: the first one in makes it, the last
    one out takes it back.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[None]]) -> None:
        self._setting = setting
        self._lock = threading.Lock()
        self._users = 0
        self._made = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._made.enter_context(self._setting())
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._made.close()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    import mlflow  # noqa: F401 - importing it sets its logger's level, so it comes first

    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with _environment(
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true"
        ):
            yield
    finally:
        logger.setLevel(level)


def _once() -> AbstractContextManager[None]:
    """MLflow's client reads these for every request. It retries POST on 5xx, so that one call may create two
    things. Another thread's reads lose their retries for that moment, too.

    Without retries, on a connection of its own: one that lay idle may be closed by the server in the very
    moment in which it is used. MLflow's server does that after five seconds, which is what packaging takes.
    The client keeps connections by such settings, of which the last one says nothing where nothing is
    retried.
    """
    jitter = 1 + time.monotonic() / 1e9  # seconds: another thread may read it beside its own retries
    return _environment(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_BACKOFF_JITTER=str(jitter))


_QUIETLY = _Shared(_quiet)
_ONCE = _Shared(_once)
_SOON = _Shared(partial(_environment, MLFLOW_HTTP_REQUEST_TIMEOUT="10"))


@contextmanager
def asking(
    doing: str,
    *,
    invalid: type[StockpotError] = TrackingError,
    missing: type[StockpotError] = TrackingError,
    mend: str = "",
) -> Iterator[None]:
    """Call MLflow quietly. `doing` opens the message of an error; `invalid` and `missing` are raised where
    MLflow refuses a value or finds nothing, with `mend`.

    Raises StockpotErrors only: besides those two NotPermitted, Unreachable, and TrackingError for the rest.
    """
    with _QUIETLY:
        try:
            yield
        except StockpotError:
            raise
        except Exception as error:  # noqa: BLE001 - told again as ours, with or without its cause
            # A traceback shows the texts of the whole chain.
            chain = "".join(traceback.format_exception(error))
            cause = error if redacted(chain) == chain else None
            raise _translated(error, doing, invalid, missing, mend) from cause


@contextmanager
def creating(doing: str) -> Iterator[None]:
    """Make a call that creates something: sent once, MLflow's own retries off."""
    with asking(doing, mend="run the same request again: it goes on where this one stopped"), _ONCE:
        yield


@contextmanager
def connecting(uri: str, variable: str = TRACKING) -> Iterator[None]:
    """Make a call that shows whether MLflow is at this address, which `variable` sets."""
    with asking(f"MLflow at {shown_address(uri, variable)}", mend=where_mlflow_is(variable)):
        yield


@contextmanager
def probing(uri: str, variable: str = TRACKING) -> Iterator[None]:
    """Make a call to a server that may be down: ten seconds, no retries, where MLflow would go on for
    minutes.
    """
    with connecting(uri, variable), _ONCE, _SOON:
        yield


def require_answer(what: str, uri: str, variable: str = TRACKING) -> None:
    """Raises TrackingError where MLflow's answer names nothing: ``{}``, from what is no MLflow."""
    if not what:
        raise TrackingError(
            f"what answers at {shown_address(uri, variable)} is no MLflow: its answers are empty",
            mend=where_mlflow_is(variable),
        )


def where_mlflow_is(variable: str) -> str:
    """How to set an address right."""
    return (
        f"set {variable} to the address of an MLflow server or of its database, for example "
        "http://127.0.0.1:5000 or sqlite:///mlflow.db"
    )


def shown_address(uri: str, variable: str = TRACKING) -> str:
    """An address without credentials, and where it comes from."""
    told = os.environ.get(variable)
    source = f" (from {variable})" if told == uri else "" if told else f" ({variable} is not set)"
    return f"{redacted(uri)}{source}"


def redacted(text: str) -> str:
    """The same text without the user and password of any URI, in it or configured, nor any query: presigned
    URLs carry their signature there.
    """
    text = QUERY.sub("?***", USERINFO.sub("***@", OF_A_DATABASE.sub(r"\1***@", text)))
    return without_secrets(text)


def open_registry(client: "MlflowClient") -> None:
    """Make what the client talks to the registry with; nothing is sent to a server."""
    client._get_registry_client()  # type: ignore[no-untyped-call]  # noqa: SLF001 - else made in any thread


def registry_uri(client: "MlflowClient") -> str:
    """Where the client's model registry is."""
    return str(client._registry_uri)  # noqa: SLF001 - MLflow resolves it, and tells nobody


def registry_variable(client: "MlflowClient") -> str:
    """What sets that address."""
    return TRACKING if registry_uri(client) == client.tracking_uri else REGISTRY


def is_web(uri: str) -> bool:
    """Whether a server answers at this URI."""
    return uri.strip().lower().startswith(("http://", "https://"))


def _translated(
    error: Exception, doing: str, invalid: type[StockpotError], missing: type[StockpotError], mend: str
) -> StockpotError:
    told = WEB_PAGE.sub("the answer is a web page", redacted(str(error)))
    what = f"{doing}: {told or type(error).__name__}"
    in_a_bucket = IN_A_BUCKET.search(str(error)) is not None
    match status_of(error):
        case 401 | 403:
            whose = "this machine's credentials for the artifact store" if in_a_bucket else CREDENTIALS
            return NotPermitted(what, mend=f"check {whose}, and your rights there")
        case 408 | 429 | 502 | 503 | 504:
            return Unreachable(what, mend=f"check {TRACKING} and {REGISTRY}, and the server's log")
        case 404:
            return missing(what, mend=mend)
        case 400 | 409:
            return invalid(what, mend=mend)
        case _:
            return TrackingError(what, mend=mend)


def status_of(error: Exception) -> int:
    """The HTTP status that says it best, also for what never went over HTTP."""
    from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, MlflowException
    from requests import RequestException

    # The client wraps a failed request without `from`.
    request = next((e for e in (error, error.__context__) if isinstance(e, RequestException)), None)
    if request is not None:
        return request.response.status_code if request.response is not None else NO_ANSWER
    if bucket := IN_A_BUCKET.search(str(error)):
        return int(bucket[1]) if bucket[1].isdecimal() else BUCKET_NAMES.get(bucket[1], 500)
    if isinstance(error, MlflowException):
        told = IN_A_DOWNLOAD.search(str(error))
        return int(told[1] or NO_ANSWER) if told else ERROR_CODE_TO_HTTP_STATUS.get(error.error_code, 500)
    if isinstance(error, PermissionError):
        return 403
    return 404 if isinstance(error, FileNotFoundError) else 500
