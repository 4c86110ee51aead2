"""Registered models in MLflow, with their aliases."""

from typing import TYPE_CHECKING

from stockpot.entities import RegisteredModel
from stockpot.entities.tags import TRAIL

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel as MlflowModel

AT_ONCE = 1000
"""The most that a server lists in a page."""


def registered_models(client: "MlflowClient") -> tuple[RegisteredModel, ...]:
    """All of them, by name. To ask for each would take twenty times as long; a search of versions tells no
    aliases.
    """
    found: list[RegisteredModel] = []
    token = None
    while True:
        page = client.search_registered_models(max_results=AT_ONCE, order_by=["name ASC"], page_token=token)
        found += map(_entity, page)
        token = page.token
        if not token:
            return tuple(found)


def registered_model(client: "MlflowClient", name: str) -> RegisteredModel | None:
    """The one of this name, if there is one."""
    from mlflow.exceptions import MlflowException

    try:
        return _entity(client.get_registered_model(name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _entity(model: "MlflowModel") -> RegisteredModel:
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    return RegisteredModel(model.name, model.creation_timestamp or 0, aliases, model.tags.get(TRAIL))
