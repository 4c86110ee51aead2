"""Proof that a soup can be registered, before anything expensive is done for it."""

from typing import TYPE_CHECKING

from registry.errors import BadModelName
from registry.tracking.mlflow_calls import asking
from registry.tracking.names import ROLE

if TYPE_CHECKING:
    from mlflow import MlflowClient

PERMISSION_CHECK = "permission-check"


def ensure_registered_model(client: "MlflowClient", name: str) -> None:
    """Create the registered model, or prove that an existing one may be changed.

    Raises BadModelName and NotPermitted.
    """
    from mlflow.exceptions import MlflowException

    mend = "give another --model: MLflow takes any name without / and :"
    with asking(f"registered model {name!r}", invalid=BadModelName, missing=BadModelName, mend=mend):
        try:
            # Deleting a tag that is not there changes nothing, and takes the right that a new version takes.
            client.delete_registered_model_tag(name, "stockpot.permission_check")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            _create(client, name)


def prove_experiment_writable(client: "MlflowClient", experiment_id: str) -> None:
    """Write a run with an artifact, and delete it. Raises NotPermitted."""
    with asking(f"writing to experiment {experiment_id}"):
        run = client.create_run(experiment_id, tags={ROLE: PERMISSION_CHECK}, run_name=PERMISSION_CHECK)
        try:
            client.log_text(run.info.run_id, "Stockpot may write here.\n", f"{PERMISSION_CHECK}.txt")
        finally:
            client.delete_run(run.info.run_id)


def _create(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was first
            raise
