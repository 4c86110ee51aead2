"""A sweep's runs, all pages."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry.entities import Run, SweepSelector
from registry.errors import BadRequest, UnknownSweep
from registry.tracking.mlflow_calls import asking, redacted
from registry.tracking.names import PARENT, ROLE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

PAGE = 1000


def list_runs(client: "MlflowClient", selector: SweepSelector, page_size: int = PAGE) -> list[Run]:
    """Every active run of the sweep but our own, by start time then run id.

    Raises UnknownSweep, and BadRequest for a filter that MLflow refuses.
    """
    if selector.parent_run_id is not None:
        experiment_id = _experiment_of_parent(client, selector.parent_run_id)
        conditions = [f"tags.`{PARENT}` = '{selector.parent_run_id}'"]
    else:
        experiment_id = _experiment_by_name(client, selector.experiment or "")
        conditions = []
    if selector.filter:
        conditions.append(selector.filter)
    with asking(
        f"filter {selector.filter!r}",
        invalid=BadRequest,
        mend="write an MLflow search filter, for example: params.lr = '0.1' and metrics.accuracy > 0.8",
    ):
        found = [_run(run) for run in _pages(client, experiment_id, " and ".join(conditions), page_size)]
    return sorted((run for run in found if ROLE not in run.tags), key=lambda run: (run.started, run.run_id))


def _pages(client: "MlflowClient", experiment_id: str, condition: str, size: int) -> "Iterator[MlflowRun]":
    token = None
    while True:
        # Oldest first: a run that starts meanwhile comes last, and shifts no page.
        page = client.search_runs(
            [experiment_id],
            condition,
            max_results=size,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _experiment_of_parent(client: "MlflowClient", run_id: str) -> str:
    place = f"at {redacted(client.tracking_uri)}"
    mend = "give the id of the sweep's parent run, the last part of its address in the MLflow UI"
    with asking(f"no run {run_id!r} {place}", invalid=UnknownSweep, missing=UnknownSweep, mend=mend):
        parent = client.get_run(run_id)
    if parent.info.lifecycle_stage != "active":
        raise UnknownSweep(f"run {run_id} {place} is deleted", mend=f"mlflow runs restore --run-id {run_id}")
    return str(parent.info.experiment_id)


def _experiment_by_name(client: "MlflowClient", name: str) -> str:
    place = f"at {redacted(client.tracking_uri)}"
    with asking(f"experiment {name!r} {place}", invalid=UnknownSweep):
        experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise UnknownSweep(f"no experiment {name!r} {place}", mend="mlflow experiments search")
    if experiment.lifecycle_stage != "active":
        mend = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise UnknownSweep(f"experiment {name!r} {place} is deleted", mend=mend)
    return str(experiment.experiment_id)


def _run(run: "MlflowRun") -> Run:
    return Run(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        experiment_id=run.info.experiment_id,
        status=run.info.status,
        started=run.info.start_time or 0,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )
