"""A sweep's runs, all pages."""

from collections.abc import Iterator, Mapping
from sys import intern
from typing import TYPE_CHECKING, TypeVar

from stockpot.entities import Run, SweepSelector
from stockpot.entities.tags import ROLE
from stockpot.errors import BadRequest, UnknownSweep
from stockpot.tracking.mlflow_calls import asking, redacted
from stockpot.tracking.names import PARENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

T = TypeVar("T")

PAGE = 1000


def list_runs(
    client: "MlflowClient", selector: SweepSelector, page_size: int = PAGE
) -> Iterator[tuple[Run, str]]:
    """Every active run of the sweep but our own, with the URI of its artifacts, by start time then run id.

    One page is held at a time. Raises UnknownSweep at once; BadRequest for a filter that MLflow refuses.
    """
    if selector.parent_run_id is not None:
        experiment_id = _experiment_of_parent(client, selector.parent_run_id)
        conditions = [f"tags.`{PARENT}` = '{selector.parent_run_id}'"]
    else:
        experiment_id = _experiment_by_name(client, selector.experiment or "")
        conditions = []
    if selector.filter:
        conditions.append(selector.filter)
    return _listed(client, [experiment_id], " and ".join(conditions), selector.filter, page_size)


def _listed(
    client: "MlflowClient", experiments: list[str], condition: str, told: str | None, size: int
) -> Iterator[tuple[Run, str]]:
    token, known = None, set[str]()
    while True:
        with asking(
            f"filter {told!r}",
            invalid=BadRequest,
            mend="write an MLflow search filter, for example: params.lr = '0.1' and metrics.accuracy > 0.8",
        ):
            runs, token = _page(client, experiments, condition, size, token)
        # Pages are counted off: a run that is restored meanwhile moves one that was listed to the next page.
        yield from ((run, root) for run, root in runs if run.run_id not in known)
        known |= {run.run_id for run, _ in runs}
        if not token:
            return


def _page(
    client: "MlflowClient", experiments: list[str], condition: str, size: int, token: str | None
) -> tuple[list[tuple[Run, str]], str | None]:
    """A page's runs as ours, so that MLflow's, which are larger, are gone; the next one's token."""
    page = client.search_runs(
        experiments,
        condition,
        max_results=size,
        # Oldest first: a run that starts meanwhile comes last, and shifts no page.
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
        page_token=token,
    )
    return [(_run(run), run.info.artifact_uri) for run in page if ROLE not in run.data.tags], page.token


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
        params=_named(run.data.params),
        metrics=_named(run.data.metrics),
        tags=_named(run.data.tags),
    )


def _named(values: Mapping[str, T]) -> dict[str, T]:
    """The same; the runs of a sweep share their names, which would take a third of the memory."""
    return {intern(name): value for name, value in values.items()}
