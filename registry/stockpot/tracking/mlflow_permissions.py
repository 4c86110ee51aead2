"""Proof that a soup can be registered, before anything expensive is done for it."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stockpot.entities import tags
from stockpot.errors import BadModelName, StockpotError
from stockpot.tracking.mlflow_calls import asking, creating

if TYPE_CHECKING:
    from mlflow import MlflowClient

PERMISSION_CHECK = "permission-check"
PERMISSION_FILE = f"{PERMISSION_CHECK}.txt"


def ensure_registered_model(client: "MlflowClient", name: str) -> bool:
    """Create the registered model, or prove that an existing one may be changed.

    Returns whether it was created. Raises BadModelName and NotPermitted.
    """
    from mlflow.exceptions import MlflowException

    mend = "give another --model: MLflow takes any name without / and :"
    with asking(f"registered model {name!r}", invalid=BadModelName, missing=BadModelName, mend=mend):
        try:
            # Deleting a tag that is not there changes nothing, and takes the right that a new version takes.
            client.delete_registered_model_tag(name, tags.PERMISSION_CHECK)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return _create(client, name)
        return False


def remove_empty_model(client: "MlflowClient", name: str) -> None:
    """Delete a registered model that has no versions; leave it where that fails."""
    with suppress(StockpotError), asking(f"deleting the registered model {name!r}"):
        if not client.get_registered_model(name).latest_versions:
            client.delete_registered_model(name)


def prove_experiment_writable(client: "MlflowClient", experiment_id: str) -> None:
    """Write a run with an artifact, and delete it. Raises NotPermitted.

    What an earlier proof left behind goes with it: a run whose creation was never answered.
    """
    doing = f"writing to experiment {experiment_id}"
    # That of a proof under way may be among them: it minds as little as it needs a run that is active.
    with suppress(StockpotError), asking(doing):
        for left in client.search_runs([experiment_id], f"tags.`{tags.ROLE}` = '{PERMISSION_CHECK}'"):
            client.delete_run(left.info.run_id)
    with creating(doing):
        run = client.create_run(experiment_id, tags={tags.ROLE: PERMISSION_CHECK}, run_name=PERMISSION_CHECK)
    with asking(doing):
        try:
            client.log_text(run.info.run_id, "Stockpot may write here.\n", PERMISSION_FILE)
            _delete_artifact(client, str(run.info.artifact_uri))
        finally:
            client.delete_run(run.info.run_id)


def _delete_artifact(client: "MlflowClient", root: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # Many stores cannot, or do not let us: the file is a line of text.
    with suppress(Exception):
        repository: Any = get_artifact_repository(root, tracking_uri=client.tracking_uri)
        repository.delete_artifacts(PERMISSION_FILE)


def _create(client: "MlflowClient", name: str) -> bool:
    """Whether it was us."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was first
            raise
        return False
    return True
