"""What an MLflow server is, as it tells itself."""

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from stockpot.errors import TrackingError
from stockpot.tracking.mlflow_calls import (
    REGISTRY,
    TRACKING,
    is_web,
    probing,
    redacted,
    registry_uri,
    registry_variable,
    shown_address,
    where_mlflow_is,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

OLDEST = 3
"""The first major version with LoggedModels."""
SECONDS = 10
VERSION = re.compile(r"(\d+)(?:\.\w+)+")


def require_version(uri: str) -> None:
    """Raises TrackingError for a server that is too old. One that does not tell its version passes."""
    told = VERSION.fullmatch(_version(uri).strip())
    if told and int(told[1]) < OLDEST:
        raise TrackingError(
            f"the MLflow server at {redacted(uri)} has version {told[0]}, and Stockpot needs {OLDEST}.0 or "
            "later",
            mend=f"upgrade it: pip install 'mlflow>={OLDEST}', and mlflow db upgrade for its database",
        )


def servers(client: "MlflowClient") -> tuple[str, ...]:
    """Where runs are and where versions are, each with its version; both are asked."""
    runs, versions = client.tracking_uri, registry_uri(client)
    with probing(runs):
        client.search_experiments(max_results=1)
    with probing(versions, registry_variable(client)):
        client.search_registered_models(max_results=1)
    if runs == versions:
        return (f"runs and versions: {_described(runs, TRACKING)}",)
    return f"runs: {_described(runs, TRACKING)}", f"versions: {_described(versions, REGISTRY)}"


def _described(uri: str, variable: str) -> str:
    import mlflow

    told = VERSION.fullmatch(_version(uri).strip()) if is_web(uri) else None
    server = f", a server of version {told[0] if told else 'unknown'}" if is_web(uri) else ""
    return f"{shown_address(uri, variable)}{server}, with mlflow {mlflow.__version__} here"


def require_database(uri: str) -> None:
    """Raises TrackingError for an SQLite file that is not there, or holds nothing: MLflow would make one."""
    scheme, _, path = uri.partition(":///")
    if not scheme.startswith("sqlite"):
        return
    file = Path(unquote(path.partition("?")[0]))
    if not file.is_file() or file.stat().st_size == 0:
        raise TrackingError(
            f"MLflow at {shown_address(uri)}: there is no such database, and whoever asked it would make an "
            "empty one",
            mend=where_mlflow_is(TRACKING),
        )


def _version(uri: str) -> str:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    with suppress(MlflowException):
        answer = http_request(  # type: ignore[no-untyped-call]  # MLflow has no types here
            get_default_host_creds(uri),  # type: ignore[no-untyped-call]  # as above
            "/version",
            "GET",
            max_retries=0,
            timeout=SECONDS,
            raise_on_status=False,
        )
        return str(answer.text) if answer.status_code == 200 else ""
    return ""
