"""What a soup is in MLflow: a run, LoggedModels in and out, and a model version.

All of them carry the same tags, set by the very call that creates them: they are found by those.
"""

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import Candidate, Digest, Measurement, ModelVersion, Publication
from stockpot.entities.tags import DUPLICATE_OF, LOGGED_MODEL, MODEL, PARENT, RECIPE, ROLE, VERSION
from stockpot.tracking.mlflow_calls import asking, creating, is_web, registry_uri
from stockpot.tracking.mlflow_limits import (
    MOST_PARAM,
    MOST_TAG,
    cut,
    dataset_name,
    description,
    key_of,
    model_name,
)
from stockpot.tracking.mlflow_weights import logged_models
from stockpot.tracking.names import ingredient_tags, note, noted, soup_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModel, Metric, Param
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

MOST_DATASET_DIGEST = 36


def find_run(client: "MlflowClient", publication: Publication) -> str | None:
    """The oldest active run of this model name and recipe."""
    condition = f"tags.`{RECIPE}` = '{publication.recipe.digest}' and tags.`{ROLE}` = 'soup'"
    # The model's name may hold quotes of both kinds, which no filter can: compared here.
    page = client.search_runs([publication.experiment_id], condition, order_by=["attributes.start_time ASC"])
    found = (run.info.run_id for run in page if run.data.tags.get(MODEL) == publication.model)
    return next(found, None)


def create_run(client: "MlflowClient", publication: Publication) -> str:
    """A running run, nested under the sweep's parent."""
    parent = {PARENT: publication.parent_run_id} if publication.parent_run_id else {}
    with creating(f"creating the run {publication.name}"):
        run = client.create_run(
            publication.experiment_id, tags={**_tags(publication), **parent}, run_name=publication.name
        )
    return str(run.info.run_id)


def find_ingredient_model(client: "MlflowClient", candidate: Candidate) -> str | None:
    """The LoggedModel that holds the weights, else the one that was created to stand for them."""
    if candidate.source.model_id is not None:
        return candidate.source.model_id
    models = logged_models(client, candidate.run.experiment_id, candidate.run.run_id)
    found = _first_tagged(models, ingredient_tags(candidate))
    if found is None:
        return None
    if found.status != "READY":  # whoever created it stopped right after
        client.finalize_logged_model(found.model_id, "READY")
    return str(found.model_id)


def create_ingredient_model(client: "MlflowClient", candidate: Candidate) -> str:
    """A LoggedModel without artifacts, whose source run is the candidate's."""
    name = model_name(f"ingredient-{candidate.run.name}")
    with creating(f"creating the model {name}"):
        model = client.create_logged_model(
            candidate.run.experiment_id,
            name=name,
            source_run_id=candidate.run.run_id,
            tags=ingredient_tags(candidate),
        )
        client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def find_model(client: "MlflowClient", run_id: str, publication: Publication) -> str | None:
    """The LoggedModel of this recipe whose source is this run."""
    wanted = {ROLE: "soup", RECIPE: publication.recipe.digest}
    found = _first_tagged(logged_models(client, publication.experiment_id, run_id), wanted)
    return None if found is None else str(found.model_id)


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


def create_model(client: "MlflowClient", run_id: str, publication: Publication) -> str:
    """A LoggedModel that waits for its artifacts."""
    name = model_name(publication.name)
    with creating(f"creating the model {name}"):
        model = client.create_logged_model(
            publication.experiment_id, name=name, source_run_id=run_id, tags=_tags(publication)
        )
    return str(model.model_id)


def record(
    client: "MlflowClient",
    run_id: str,
    model_id: str,
    ingredient_models: Sequence[str],
    publication: Publication,
) -> None:
    """Write what the run knows. A second time adds only what is new: values that are others than before.
    Parameters cannot change.
    """
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    run = client.get_run(run_id)
    models = [LoggedModelInput(model) for model in ingredient_models]
    client.log_inputs(run_id, datasets=_datasets(publication.measurements), models=models)
    if model_id not in {model.model_id for model in (run.outputs.model_outputs if run.outputs else ())}:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    metrics = _new_metrics(run, client.get_logged_model(model_id), publication.measurements)
    client.log_batch(run_id, metrics=metrics, params=_params(publication, known=run.data.params))
    _log_files(client, run_id, publication)
    client.set_terminated(run_id)


def _log_files(client: "MlflowClient", run_id: str, publication: Publication) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in publication.files.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        client.log_artifacts(run_id, folder)


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


def _versions(client: "MlflowClient", model: str, recipe: Digest) -> "list[MlflowVersion]":
    found: list[MlflowVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"tags.`{RECIPE}` = '{recipe}'", page_token=token)
        found += [version for version in page if version.name == model]
        token = page.token
        if not token:
            return found


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
            tags={**_tags(publication), LOGGED_MODEL: model_id},
        )
    # A version learns its number when it exists. Whoever is killed here leaves the word in the page.
    told = description(publication.description, run_id, str(version.version))
    return to_version(client.update_model_version(version.name, version.version, told))


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


def describe(client: "MlflowClient", version: ModelVersion, publication: Publication) -> None:
    """The tags last: one of them says which report the page shows."""
    if version.run_id is not None:
        _log_files(client, version.run_id, publication)
    text = description(publication.description, version.run_id or "", version.version)
    client.update_model_version(version.name, version.version, text)
    for key, value in _tags(publication).items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)


def to_version(version: "MlflowVersion") -> ModelVersion:
    """MLflow reads `model_id` back as None: a tag has it, or the source of a version by other hands."""
    _, _, source_model = (version.source or "").partition("models:/")
    return ModelVersion(
        name=version.name,
        version=str(version.version),
        run_id=version.run_id or None,
        model_id=version.tags.get(LOGGED_MODEL, source_model if source_model.startswith("m-") else None),
        tags=dict(version.tags),
        aliases=tuple(sorted(version.aliases)),
    )


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


def _tags(publication: Publication) -> dict[str, str]:
    return {key: cut(value, MOST_TAG) for key, value in soup_tags(publication).items()}


def _first_tagged(models: "Sequence[LoggedModel]", wanted: Mapping[str, str]) -> "LoggedModel | None":
    return next((model for model in models if wanted.items() <= model.tags.items()), None)


def _datasets(measurements: Sequence[Measurement]) -> "list[DatasetInput]":
    from mlflow.entities import Dataset, DatasetInput

    distinct = dict.fromkeys((m.split, m.dataset) for m in measurements)
    return [
        DatasetInput(
            Dataset(dataset_name(split), _dataset_digest(digest), source_type="stockpot", source=digest)
        )
        for split, digest in distinct
    ]


def _new_metrics(
    run: "MlflowRun", model: "LoggedModel", measurements: Sequence[Measurement]
) -> "list[Metric]":
    """What the run or the model does not say yet. MLflow keys a model's metrics by name and timestamp, and
    fails at another value for both: the first is at the run's start, another one now.
    """
    told = sorted(model.metrics or (), key=lambda metric: metric.timestamp)
    last = {metric.key: metric for metric in told}
    now = max(int(time.time() * 1000), *(metric.timestamp + 1 for metric in told), 0)
    new = []
    for measurement in measurements:
        metric = _metric(measurement, run.info.start_time, model.model_id)
        by_model, by_run = last.get(metric.key), run.data.metrics.get(metric.key)
        if by_model and by_run == metric.value and _said(by_model) == _said(metric):
            continue
        first = by_model is None and by_run in (None, metric.value)
        new.append(metric if first else _metric(measurement, now, model.model_id))
    return new


def _said(metric: "Metric") -> tuple[object, ...]:
    return metric.value, metric.dataset_name, metric.dataset_digest


def _metric(measurement: Measurement, timestamp: int, model_id: str) -> "Metric":
    from mlflow.entities import Metric

    return Metric(
        key_of(measurement.name),
        measurement.value,
        timestamp,
        step=0,
        model_id=model_id,
        dataset_name=dataset_name(measurement.split),
        dataset_digest=_dataset_digest(measurement.dataset),
    )


def _params(publication: Publication, known: Mapping[str, str]) -> "list[Param]":
    from mlflow.entities import Param

    params = {key_of(key): cut(value, MOST_PARAM) for key, value in publication.params.items()}
    return [Param(key, value) for key, value in params.items() if key not in known]


def _dataset_digest(digest: Digest) -> str:
    return digest.removeprefix("sha256:")[:MOST_DATASET_DIGEST]
