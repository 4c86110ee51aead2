"""Versions in MLflow's Model Registry, and what is noted of those that were deleted."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from stockpot.entities import Digest, ModelVersion, Publication, Registration
from stockpot.entities.tags import DUPLICATE_OF, LOGGED_MODEL, RECIPE, ROLE, VERSION
from stockpot.tracking.mlflow_calls import asking, creating, is_web, registry_uri
from stockpot.tracking.mlflow_limits import description, whole_lines
from stockpot.tracking.mlflow_publishing import log_files, tags_of
from stockpot.tracking.mlflow_weights import logged_models
from stockpot.tracking.names import VERSION_URI, note, noted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

MODEL_VERSIONS = "mlflow.modelVersions"
"""MLflow's own, on LoggedModels: a JSON list of names and numbers."""


def reconcile(client: "MlflowClient", model: str, recipe: Digest) -> ModelVersion | None:
    """The lowest version of this soup; the others are tagged as its duplicates."""
    found = sorted(_versions(client, model, recipe), key=lambda version: int(version.version))
    if not found:
        return None
    lowest, *others = found
    if DUPLICATE_OF in lowest.tags:  # of one that was deleted since
        client.delete_model_version_tag(model, lowest.version, DUPLICATE_OF)
    for version in others:
        if version.tags.get(DUPLICATE_OF) != str(lowest.version):  # a database gives numbers
            client.set_model_version_tag(model, version.version, DUPLICATE_OF, lowest.version)
    # A server's search leaves the aliases out.
    return to_version(client.get_model_version(model, lowest.version))


def create_version(
    client: "MlflowClient", run_id: str, model_id: str, publication: Publication
) -> ModelVersion:
    """A version whose source is the LoggedModel."""
    _ensure_registered_model(client, publication.model)
    with creating(f"creating a version of {publication.model}"):
        version = client.create_model_version(
            publication.model,
            source=_source(client, model_id),
            run_id=run_id,
            model_id=model_id,
            description=description(publication.description, run_id, "VERSION"),
            tags={**tags_of(publication), LOGGED_MODEL: model_id},
        )
    _note_on_model(client, model_id, version)
    # A version learns its number when it exists. Whoever is killed here leaves the word in the page.
    told = description(publication.description, run_id, str(version.version))
    return to_version(client.update_model_version(version.name, version.version, told))


def _note_on_model(client: "MlflowClient", model_id: str, version: "MlflowVersion") -> None:
    """A server does so when it creates a version; whoever writes into its database has to. Without it,
    MLflow's page of the LoggedModel calls it not registered.
    """
    if is_web(registry_uri(client)):
        return
    known: object = None
    with suppress(ValueError):  # a person's own words
        known = json.loads(client.get_logged_model(model_id).tags.get(MODEL_VERSIONS, ""))
    told = [{"name": version.name, "version": str(version.version)}]
    both = [*known, *told] if isinstance(known, list) else told
    client.set_logged_model_tags(model_id, {MODEL_VERSIONS: json.dumps(both)})


def note_version(client: "MlflowClient", version: ModelVersion) -> None:
    """Tag the version's run with it, unless it is tagged so already."""
    from mlflow.exceptions import MlflowException

    if version.run_id is None:
        return
    try:
        run = client.get_run(version.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    if run.info.lifecycle_stage == "active" and version.uri not in noted(run.data.tags):
        client.set_tag(version.run_id, VERSION, note(run.data.tags, version))


def noted_versions(client: "MlflowClient", recipe: Digest, experiment_ids: Iterable[str]) -> tuple[str, ...]:
    """On runs of this soup, whatever its registered model is called, deleted runs too."""
    from mlflow.entities import ViewType

    condition = f"tags.`{RECIPE}` = '{recipe}' and tags.`{ROLE}` = 'soup'"
    runs = client.search_runs(sorted(experiment_ids), condition, ViewType.ALL)
    return tuple(uri for run in runs for uri in noted(run.data.tags))


def may_have_made(client: "MlflowClient", registration: Registration) -> bool:
    """In any doubt, it may: what a person deleted must not come back."""
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(registration.run_id or "")
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return True
    else:
        return True
    oldest = client.search_experiments(ViewType.ALL, max_results=1, order_by=["creation_time ASC"])
    born = oldest[0].creation_time if oldest else None  # in milliseconds; old servers know none
    return born is None or born / 1000 < registration.updated_at


def has_model(client: "MlflowClient", version: ModelVersion) -> bool:
    """Whether MLflow tells of the version's LoggedModel: of a deleted one it does not. Its own app for users
    answers then as if it were forbidden; so the models of the run are looked through, if we may see that.
    """
    from mlflow.exceptions import MlflowException

    if version.model_id is None:
        return True
    try:
        client.get_logged_model(version.model_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        if error.error_code != "PERMISSION_DENIED":
            raise
    else:
        return True
    try:
        run = client.get_run(version.run_id or "")
    except MlflowException:
        return True
    models = logged_models(client, run.info.experiment_id, run.info.run_id)
    return version.model_id in {model.model_id for model in models}


def describe(client: "MlflowClient", version: ModelVersion, publication: Publication) -> None:
    """The tags last: one of them says which report the page shows."""
    if version.run_id is not None:
        log_files(client, version.run_id, publication.files)
    text = description(publication.description, version.run_id or "", version.version)
    client.update_model_version(version.name, version.version, text)
    for key, value in tags_of(publication).items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)


def edit_description(client: "MlflowClient", version: ModelVersion, edit: Callable[[str], str]) -> None:
    """No more than MLflow takes."""
    now = client.get_model_version(version.name, version.version).description or ""
    told = whole_lines(edit(now))
    if told != now:
        client.update_model_version(version.name, version.version, told)


def to_version(version: "MlflowVersion") -> ModelVersion:
    """MLflow reads `model_id` back as None: a tag has it, or the source of a version by other hands."""
    source = version.source or ""
    _, _, source_model = source.partition("models:/")
    return ModelVersion(
        name=version.name,
        version=str(version.version),
        run_id=version.run_id or None,
        model_id=version.tags.get(LOGGED_MODEL, source_model if source_model.startswith("m-") else None),
        tags=dict(version.tags),
        aliases=tuple(sorted(version.aliases)),
        copy_of=source if VERSION_URI.fullmatch(source) else None,
        created=version.creation_timestamp or 0,
    )


def soup_versions(client: "MlflowClient") -> tuple[ModelVersion, ...]:
    """Every version that carries a recipe's tag, by name and number."""
    return _in_order(_search(client, f"tags.`{RECIPE}` LIKE 'sha256:%'"))


def versions_tagged(client: "MlflowClient", tag: str, value: str) -> tuple[ModelVersion, ...]:
    """Every version with this tag of this value, by name and number. The value holds no quote."""
    return _in_order(_search(client, f"tags.`{tag}` = '{value}'"))


def versions_of(client: "MlflowClient", run_id: str) -> tuple[ModelVersion, ...]:
    """Every version whose run this is, by name and number: those of its models are."""
    return _in_order(_search(client, f"run_id = '{run_id}'"))


def _in_order(found: "Iterable[MlflowVersion]") -> tuple[ModelVersion, ...]:
    return tuple(sorted(map(to_version, found), key=lambda version: (version.name, int(version.version))))


def _versions(client: "MlflowClient", model: str, recipe: Digest) -> "list[MlflowVersion]":
    found = _search(client, f"tags.`{RECIPE}` = '{recipe}'")
    return [version for version in found if version.name == model]


def _search(client: "MlflowClient", condition: str) -> "list[MlflowVersion]":
    found: list[MlflowVersion] = []
    token = None
    while True:
        page = client.search_model_versions(condition, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _ensure_registered_model(client: "MlflowClient", name: str) -> None:
    """Whoever may create versions of a model need not have the right to create models."""
    from mlflow.exceptions import MlflowException

    with asking(f"creating the registered model {name!r}"):
        try:
            client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            return
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was first
                raise


def _source(client: "MlflowClient", model_id: str) -> str:
    """The LoggedModel, where the registry can resolve it: then MLflow's UI links the two. A server knows
    its own; a database asks whatever MLflow's process-wide tracking URI names. Else its artifacts.
    """
    import mlflow

    registry = registry_uri(client)
    resolved_by = registry if is_web(registry) else mlflow.get_tracking_uri()
    if resolved_by == client.tracking_uri:
        return f"models:/{model_id}"
    return str(client.get_logged_model(model_id).artifact_location)
