"""The first bytes of a weights file, without its download: where the artifact store can."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stockpot.entities import WeightsSource

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
    from requests import Response

PARTIAL = 206
"""The status of the range that was asked for. A server that ignores ranges says 200, and sends all."""
ABSENT = (403, 404, 410, 416)
"""What a server says of one file, and not of ranges."""
SECONDS = 10
"""To wait for an answer. A header spares a download: it is worth no patience, and no second try."""


class Heads:
    """Reads the first bytes of files. A server that gave no range is not asked for another."""

    def __init__(self) -> None:
        self._refusing: set[str] = set()
        """The servers, as in their addresses."""

    def of(self, client: "MlflowClient", source: WeightsSource, length: int) -> bytes | None:
        """The file's first bytes: from a local folder, or by a range request to the server or the
        S3-compatible store that has it.

        None for any other store, and for a file that is not as it was listed.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
        from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

        folder, _, name = source.uri.rpartition("/")
        wanted = min(length, source.size or 0)
        if not wanted:
            return b"" if source.size == 0 else None
        repository = get_artifact_repository(folder, tracking_uri=client.tracking_uri)
        if isinstance(repository, LocalArtifactRepository):
            content = _local(Path(repository.artifact_dir) / name, wanted)
        elif isinstance(repository, HttpArtifactRepository):
            content = self._asked_for(_ranged, repository, name, wanted, source.size)
        elif isinstance(repository, S3ArtifactRepository):
            content = self._asked_for(_from_bucket, repository, name, wanted, source.size)
        else:
            content = None
        return content if content is not None and len(content) == wanted else None

    def _asked_for(
        self, ask: Callable[..., bytes | None], repository: Any, name: str, length: int, size: int | None
    ) -> bytes | None:
        server = urlsplit(repository.artifact_uri).netloc
        if server in self._refusing:
            return None
        try:
            return ask(repository, name, length, size)
        except _NoRanges:
            self._refusing.add(server)
            return None


class _NoRanges(Exception):
    """The server gives no parts of files, or no answer."""


def _local(file: Path, length: int) -> bytes | None:
    if file.is_symlink() or not file.is_file():
        return None
    with file.open("rb") as stream:
        return stream.read(length)


def _from_bucket(
    repository: "S3ArtifactRepository", name: str, length: int, size: int | None
) -> bytes | None:
    """Ask for a range with MLflow's own client and its settings."""
    from botocore.exceptions import BotoCoreError, ClientError

    untyped: Any = repository
    bucket, folder = untyped.parse_s3_compliant_uri(repository.artifact_uri)
    settings = untyped._bucket_owner_params  # noqa: SLF001 - MLflow's own calls send it, too
    try:
        client = untyped._get_s3_client()  # noqa: SLF001 - the only way to all of MLflow's settings
        asked = client.get_object(
            Bucket=bucket, Key=f"{folder}/{name}", Range=f"bytes=0-{length - 1}", **settings
        )
        with closing(asked["Body"]) as body:
            whole = asked.get("ContentRange") == f"bytes 0-{length - 1}/{size}"
            return bytes(body.read(length + 1)) if whole else None
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in ABSENT:
            return None
        raise _NoRanges from error
    except BotoCoreError as error:
        raise _NoRanges from error


def _ranged(repository: "HttpArtifactRepository", name: str, length: int, size: int | None) -> bytes | None:
    """Ask for a range with MLflow's own credentials and certificates; the download tells what is wrong."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request
    from urllib3.exceptions import HTTPError

    try:
        asked: Response = http_request(  # type: ignore[no-untyped-call]  # MLflow has no types here
            get_default_host_creds(repository.artifact_uri),  # type: ignore[no-untyped-call]  # as above
            f"/{name}",
            "GET",
            max_retries=0,
            timeout=SECONDS,
            extra_headers={"Range": f"bytes=0-{length - 1}", "Accept-Encoding": "identity"},
            raise_on_status=False,
            stream=True,  # so that closing it leaves the rest where it is
        )
        with asked:
            told = asked.headers.get("Content-Range", "")
            if asked.status_code in ABSENT:
                return None
            if asked.status_code != PARTIAL:
                raise _NoRanges
            return bytes(asked.raw.read(length + 1)) if told == f"bytes 0-{length - 1}/{size}" else None
    except (MlflowException, HTTPError) as error:
        raise _NoRanges from error
