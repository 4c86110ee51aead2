"""The first bytes of a weights file, without its download: where the artifact store can."""

from pathlib import Path
from typing import TYPE_CHECKING

from registry.entities import WeightsSource

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from requests import Response

PARTIAL = 206
"""The status of the range that was asked for. A server that ignores ranges says 200, and sends all."""


def head_of(client: "MlflowClient", source: WeightsSource, length: int) -> bytes | None:
    """The file's first bytes: from a local folder, or by a range request to the server that has it.

    None for any other store, and for a file that is not as it was listed.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    folder, _, name = source.uri.rpartition("/")
    wanted = min(length, source.size or 0)
    if not wanted:
        return b"" if source.size == 0 else None
    repository = get_artifact_repository(folder, tracking_uri=client.tracking_uri)
    if isinstance(repository, LocalArtifactRepository):
        content = _local(Path(repository.artifact_dir) / name, wanted)
    elif isinstance(repository, HttpArtifactRepository):
        content = _ranged(repository.artifact_uri, name, wanted, source.size)
    else:
        content = None
    return content if content is not None and len(content) == wanted else None


def _local(file: Path, length: int) -> bytes | None:
    if file.is_symlink() or not file.is_file():
        return None
    with file.open("rb") as stream:
        return stream.read(length)


def _ranged(folder: str, name: str, length: int, size: int | None) -> bytes | None:
    """Ask for a range with MLflow's own credentials, retries and certificates."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    asked: Response = http_request(  # type: ignore[no-untyped-call]  # MLflow has no types here
        get_default_host_creds(folder),  # type: ignore[no-untyped-call]  # as above
        f"/{name}",
        "GET",
        extra_headers={"Range": f"bytes=0-{length - 1}", "Accept-Encoding": "identity"},
        raise_on_status=False,  # what is wrong is told by the download
        stream=True,  # so that closing it leaves the rest where it is
    )
    with asked:
        told = asked.headers.get("Content-Range", "")
        if asked.status_code != PARTIAL or told != f"bytes 0-{length - 1}/{size}":
            return None
        return bytes(asked.raw.read(length + 1))
