"""Where MLflow keeps artifacts. An address may hold a password, so it never leaves this adapter: a weights
file is named by MLflow's own ``runs:/`` and ``models:/`` URIs, which hold none.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from stockpot.entities import ModelVersion, WeightsSource

if TYPE_CHECKING:
    from mlflow import MlflowClient


def run_place(run_id: str) -> str:
    """Names a run's artifacts."""
    return f"runs:/{run_id}"


def model_place(model_id: str) -> str:
    """Names a LoggedModel's artifacts."""
    return f"models:/{model_id}"


def version_place(version: ModelVersion) -> str:
    """Names a registered version's artifacts."""
    return f"models:/{version.name}/{version.version}"


class Addresses:
    """Where artifacts really lie, by the URI that names them. What was listed is not asked for again."""

    def __init__(self) -> None:
        self._roots: dict[str, str] = {}

    def note(self, place: str, root: str) -> None:
        """Remember where a place's artifacts lie."""
        self._roots[place] = root

    def of_run(self, client: "MlflowClient", run_id: str) -> str:
        """Where a run's artifacts lie."""
        return self._root(client, run_place(run_id), None)

    def located(self, client: "MlflowClient", source: WeightsSource) -> WeightsSource:
        """The same source by its address, which a download takes. Other URIs stay as they are."""
        scheme, _, rest = source.uri.partition(":/")
        # A version's place has one more part than that of a run or of a LoggedModel.
        parts = {"runs": 1, "models": 1 if source.model_id else 2}.get(scheme)
        if parts is None:
            return source
        *owner, path = rest.split("/", parts)
        root = self._root(client, f"{scheme}:/{'/'.join(owner)}", source.model_id)
        return replace(source, uri=f"{root.rstrip('/')}/{path}")

    def _root(self, client: "MlflowClient", place: str, model_id: str | None) -> str:
        if place not in self._roots:
            self._roots[place] = _asked(client, place, model_id)
        return self._roots[place]


def _asked(client: "MlflowClient", place: str, model_id: str | None) -> str:
    scheme, _, owner = place.partition(":/")
    if scheme == "runs":
        return str(client.get_run(owner).info.artifact_uri)
    if model_id is not None:
        return str(client.get_logged_model(model_id).artifact_location)
    return str(client.get_model_version_download_uri(*owner.split("/")))
