"""Proof that a soup can be registered, before anything expensive is done for it. It leaves nothing behind."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from stockpot.entities import tags
from stockpot.errors import BadModelName, StockpotError
from stockpot.tracking.mlflow_calls import asking
from stockpot.tracking.mlflow_limits import MOST_MODEL_NAME
from stockpot.workflow.gathering.workrooms import scratch

if TYPE_CHECKING:
    from mlflow import MlflowClient

PERMISSION_FILE = "stockpot-permission-check.txt"
"""At the root of an experiment's artifacts, always the same: where it cannot be deleted, there is one."""
REFUSED_TAG = f"{tags.PERMISSION_CHECK}?"
"""MLflow refuses a question mark in the name of a tag."""
OTHER_MODEL = "give another --model: MLflow takes any name without / and :"


def prove_model_writable(client: "MlflowClient", name: str) -> None:
    """Make sure that a version of this registered model may be created, and the model where there is none.

    Raises BadModelName and NotPermitted.
    """
    from mlflow.exceptions import MlflowException

    doing = f"registered model {name!r}"
    with asking(doing, invalid=BadModelName, missing=BadModelName, mend=OTHER_MODEL):
        try:
            # Deleting a tag that is not there changes nothing, and takes the right that a new version takes.
            client.delete_registered_model_tag(name, tags.PERMISSION_CHECK)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            _ask_in_vain(client, name)


def prove_experiment_writable(client: "MlflowClient", experiment_id: str) -> None:
    """Set a tag on the experiment, write an artifact beside those of its runs, and take both away again.

    Raises NotPermitted. What a proof that was killed left behind goes with the next one.
    """
    with asking(f"writing to experiment {experiment_id}"):
        experiment = client.get_experiment(experiment_id)
        left = [tag for tag in experiment.tags if tag.startswith(tags.PERMISSION_CHECK)]
        # Those of proofs under way may be among them: they do not mind.
        stuck = [tag for tag in left if not _delete_tag(client, experiment_id, tag)]
        # A name of its own, since MLflow fails where one tag is written twice in the same moment.
        tag = stuck[0] if stuck else f"{tags.PERMISSION_CHECK}.{uuid4().hex}"
        # A real write, which a database that may only be read refuses. It takes the right that a run takes.
        client.set_experiment_tag(experiment_id, tag, "")
        _delete_tag(client, experiment_id, tag)
        _write_artifact(client, experiment.artifact_location)


def _ask_in_vain(client: "MlflowClient", name: str) -> None:
    """Ask for the registered model with a tag that MLflow refuses, after it has looked at the right to create
    one. So not even a process that is killed leaves a model behind, and no webhook tells of one.
    """
    from mlflow.exceptions import MlflowException

    if len(name) > MOST_MODEL_NAME:
        raise BadModelName(
            f"registered model {name[:60]!r}...: its name has {len(name)} characters, and MLflow's databases "
            f"take {MOST_MODEL_NAME}",
            mend="give a shorter --model",
        )
    try:
        client.create_registered_model(name, tags={REFUSED_TAG: ""})
    except MlflowException as error:
        # The name itself is taken: MLflow looked at it when it was asked for the model's tag.
        if error.error_code not in {"INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS"}:
            raise
    else:
        _remove_empty_model(client, name)


def _remove_empty_model(client: "MlflowClient", name: str) -> None:
    """Of a server that takes any tag; left where that fails."""
    with suppress(StockpotError), asking(f"deleting the registered model {name!r}"):
        if not client.get_registered_model(name).latest_versions:
            client.delete_registered_model(name)


def _delete_tag(client: "MlflowClient", experiment_id: str, tag: str) -> bool:
    """Whether the server knows how to: one older than 3.2 does not. What fails otherwise, most often since
    another proof is quicker, is left to the next proof.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.delete_experiment_tag(experiment_id, tag)
    except MlflowException as error:
        return bool(error.error_code != "ENDPOINT_NOT_FOUND")
    return True


def _write_artifact(client: "MlflowClient", root: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository: Any = get_artifact_repository(root, tracking_uri=client.tracking_uri)
    with scratch() as folder:
        file = folder / PERMISSION_FILE
        file.write_text("Stockpot may write here.\n")
        repository.log_artifact(str(file))
    with suppress(Exception):  # many stores cannot, or do not let us
        repository.delete_artifacts(PERMISSION_FILE)
