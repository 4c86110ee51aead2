"""What a soup is in MLflow before it is a version: a run, with LoggedModels in and out.

They and the version carry the same tags, set by the very call that creates them: they are found by those.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stockpot.entities import Candidate, Digest, Measurement, Publication
from stockpot.entities.tags import MODEL, PARENT, RECIPE, ROLE
from stockpot.tracking.mlflow_calls import creating
from stockpot.tracking.mlflow_limits import (
    MOST_PARAM,
    MOST_TAG,
    cut,
    dataset_name,
    key_of,
    model_name,
)
from stockpot.tracking.mlflow_weights import logged_models
from stockpot.tracking.names import ingredient_tags, soup_tags
from stockpot.workflow.gathering.workrooms import scratch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModel, Metric, Param
    from mlflow.entities import Run as MlflowRun

MOST_DATASET_DIGEST = 36
ATTEMPTS = 5
"""At writing datasets, each of which others may write first."""


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
            publication.experiment_id, tags={**tags_of(publication), **parent}, run_name=publication.name
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


def create_model(client: "MlflowClient", run_id: str, publication: Publication) -> str:
    """A LoggedModel that waits for its artifacts."""
    name = model_name(publication.name)
    with creating(f"creating the model {name}"):
        model = client.create_logged_model(
            publication.experiment_id, name=name, source_run_id=run_id, tags=tags_of(publication)
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
    _log_inputs(client, run_id, datasets=_datasets(publication.measurements), models=models)
    if model_id not in {model.model_id for model in (run.outputs.model_outputs if run.outputs else ())}:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    metrics = _new_metrics(run, client.get_logged_model(model_id), publication.measurements)
    client.log_batch(run_id, metrics=metrics, params=_params(publication, known=run.data.params))
    log_files(client, run_id, publication.files)
    client.set_terminated(run_id)


def _log_inputs(client: "MlflowClient", run_id: str, **inputs: list[Any]) -> None:
    """Again where another soup of the sweep wrote the same dataset in the same moment: MLflow looks for it
    and then inserts it, and its database refuses the second of two. What is there by then is found.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(ATTEMPTS - 1):
        try:
            client.log_inputs(run_id, **inputs)
        except MlflowException as error:
            if "IntegrityError" not in str(error):
                raise
        else:
            return
    client.log_inputs(run_id, **inputs)


def log_files(client: "MlflowClient", run_id: str, files: Mapping[str, bytes]) -> None:
    """Write files, by their paths, to the run, in place of earlier ones of the same names."""
    with scratch() as folder:
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        client.log_artifacts(run_id, str(folder))


def tags_of(publication: Publication) -> dict[str, str]:
    """Those of the run, the LoggedModel and the version, none longer than MLflow takes."""
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
