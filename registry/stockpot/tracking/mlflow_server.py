"""What an MLflow server is, as it tells itself."""

import re
from contextlib import suppress

from stockpot.errors import TrackingError
from stockpot.tracking.mlflow_calls import redacted

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
