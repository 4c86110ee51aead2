"""A sweep's runs, all pages."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from sys import intern
from typing import TYPE_CHECKING, Any, TypeVar

from stockpot.entities import Experiment, Run, SweepSelector
from stockpot.entities.tags import PARENT, ROLE
from stockpot.errors import BadRequest, UnknownSweep
from stockpot.tracking.mlflow_calls import asking, redacted, require_answer
from stockpot.tracking.names import trained_on

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment as MlflowExperiment
    from mlflow.entities import Run as MlflowRun

T = TypeVar("T")

PAGE = 1000
PER_QUESTION = 40
"""Runs that may be listed for nothing, to spare one question: so many cost about as much."""
AT_ONCE = 8
"""Questions, where each run is asked for its children."""
CONTEXT = "mlflow.data.context"
"""The tag of an input that tells what a dataset was for."""
NAMED = 500
"""Runs that one question names: databases take some thousand values at once."""


def list_runs(
    client: "MlflowClient", selector: SweepSelector, page_size: int = PAGE
) -> Iterator[tuple[Run, str]]:
    """Every active run of the sweep but our own, with the URI of its artifacts, by start time then run id.

    Of a parent all descendants, level by level. One page is held at a time, and below the children one level.
    Raises UnknownSweep at once; BadRequest for a filter that MLflow refuses.
    """
    if selector.parent_run_id is None:
        experiment_id = _experiment_by_name(client, selector.experiment or "")
        return _listed(client, [experiment_id], "", selector.filter, page_size)
    parent = _active_run(client, selector.parent_run_id)
    active = (one.experiment_id for one in experiments_of(client))
    experiments = sorted({str(parent.info.experiment_id), *active})
    return _Tree(client, experiments, selector.filter, page_size).below(selector.parent_run_id)


def select_runs(
    client: "MlflowClient",
    experiment_ids: Sequence[str],
    conditions: Sequence[str],
    run_ids: Collection[str] | None,
    told: str | None,
    size: int,
) -> Iterator[Run]:
    """Active runs but our own that meet all conditions and the filter that a person told; of these ids, where
    some are given. Raises BadRequest for a filter that MLflow refuses.
    """
    named = [""] if run_ids is None else _among_ids(run_ids)
    for ids in named if experiment_ids else ():
        condition = " and ".join(filter(None, (*conditions, ids)))
        for run, _ in _listed(client, [*experiment_ids], condition, told, size):
            yield run


def runs_named(client: "MlflowClient", run_ids: Collection[str], size: int) -> Iterator[tuple[Run, bool]]:
    """The runs of these ids, each with whether it is deleted: those of deleted experiments, too."""
    for run, active in _with_ids(client, run_ids, size):
        yield _run(run), not active


def datasets_of(client: "MlflowClient", run_ids: Collection[str], size: int) -> dict[str, tuple[str, ...]]:
    """By run, the names of the datasets that it was trained on, as far as it logged them."""
    found = {}
    for run, _ in _with_ids(client, run_ids, size):
        pairs = [
            (str(one.dataset.name), next((t.value for t in one.tags if t.key == CONTEXT), ""))
            for one in run.inputs.dataset_inputs
        ]
        if pairs:
            found[str(run.info.run_id)] = trained_on(pairs)
    return found


def _with_ids(client: "MlflowClient", run_ids: Collection[str], size: int) -> Iterator[tuple[Any, bool]]:
    """MLflow's runs of these ids, each with whether it and its experiment are active."""
    from mlflow.entities import ViewType

    if not run_ids:
        return
    stages = {str(one.experiment_id): one.lifecycle_stage for one in _experiments(client, deleted=True)}
    for ids in _among_ids(run_ids):
        token = None
        while stages:
            with asking("looking for runs"):
                page = client.search_runs([*stages], ids, ViewType.ALL, max_results=size, page_token=token)
            for run in page:
                yield run, {run.info.lifecycle_stage, stages[run.info.experiment_id]} == {"active"}
            token = page.token
            if not token:
                break


def runs_on(client: "MlflowClient", dataset: str, size: int) -> tuple[str, ...]:
    """The ids of all runs but our own that logged a dataset with this digest."""
    told = f"dataset {dataset!r}"
    if {"'", '"'} <= {*dataset}:
        raise BadRequest(
            f"{told}: MLflow's digests hold no quotes", mend="give the digest as MLflow shows it"
        )
    quote = '"' if "'" in dataset else "'"
    found = _others(client, f"dataset.digest = {quote}{dataset}{quote}", f"the runs of {told}", size)
    return tuple(sorted({run.run_id for run in found}))


def runs_tagged(client: "MlflowClient", tag: str, size: int) -> tuple[Run, ...]:
    """All runs but our own that have this tag, by id."""
    found = {
        run.run_id: run for run in _others(client, f"tags.`{tag}` != ''", f"runs with tag {tag!r}", size)
    }
    return tuple(found[run_id] for run_id in sorted(found))


def _others(client: "MlflowClient", condition: str, told: str, size: int) -> Iterator[Run]:
    """The runs of all experiments that are not our own, deleted ones too."""
    from mlflow.entities import ViewType

    experiments = [str(one.experiment_id) for one in _experiments(client, deleted=True)]
    token = None
    while experiments:
        with asking(f"looking for {told}"):
            page = client.search_runs(experiments, condition, ViewType.ALL, size, page_token=token)
        yield from (_run(run) for run in page if ROLE not in run.data.tags)
        token = page.token
        if not token:
            break


def _among_ids(ids: Collection[str]) -> Iterator[str]:
    names = [f"'{run_id}'" for run_id in sorted(ids)]
    parts = (", ".join(names[begin : begin + NAMED]) for begin in range(0, len(names), NAMED))
    return (f"attributes.run_id IN ({part})" for part in parts)


def experiments_of(client: "MlflowClient") -> tuple[Experiment, ...]:
    """Every active experiment, by id."""
    found = (
        Experiment(str(one.experiment_id), one.name, one.creation_time or 0) for one in _experiments(client)
    )
    return tuple(sorted(found, key=lambda one: one.experiment_id))


def oldest_experiment(client: "MlflowClient") -> int:
    """When it was made, deleted or not, in milliseconds since the epoch; 0 where none is shown to us."""
    from mlflow.entities import ViewType

    with asking("looking for the oldest experiment"):
        found = client.search_experiments(ViewType.ALL, max_results=1, order_by=["creation_time ASC"])
    return next((one.creation_time or 0 for one in found), 0)


def parent_of(client: "MlflowClient", selector: SweepSelector) -> Run | None:
    """The sweep's parent run, where it has one. Raises UnknownSweep."""
    return _run(_active_run(client, selector.parent_run_id)) if selector.parent_run_id else None


class _Tree:
    """Runs below a parent, at any depth, in whichever experiment they are."""

    def __init__(
        self, client: "MlflowClient", experiments: list[str], condition: str | None, size: int
    ) -> None:
        self._client = client
        self._experiments = experiments
        self._filter = condition
        self._size = size

    def below(self, parent: str) -> Iterator[tuple[Run, str]]:
        """Those that meet the filter; the ones between need not."""
        level: set[str] = set()
        """Runs whose children come next."""
        for run, root in self._search(_child_of(parent)):
            level.add(run.run_id)
            if not self._filter:
                yield run, root
        if self._filter:
            yield from self._search(_child_of(parent), self._filter)
        known = {parent, *level}  # people can set a run's parent to a run below it
        while level:
            found = [entry for entry in self._next(level, parent) if entry[0].run_id not in known]
            found.sort(key=lambda entry: (entry[0].started, entry[0].run_id))
            level = {run.run_id for run, _ in found}
            yield from self._chosen(found, level)
            known |= level

    def _next(self, level: Collection[str], root: str) -> list[tuple[Run, str]]:
        """The children of all runs of a level.

        MLflow has no question for several parents: its filters know no `or`, and `in` for ids alone. So it is
        asked for all runs that are below others than the root. Only where a server holds many of those, each
        run of the level is asked for its own.
        """
        found = self._among_all(level, root) if len(level) > 1 else None
        if found is not None:
            return found
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(chain.from_iterable(pool.map(lambda run: [*self._search(_child_of(run))], level)))

    def _among_all(self, level: Collection[str], root: str) -> list[tuple[Run, str]] | None:
        """The children of a level, picked from all nested runs; None where these are too many."""
        most = PER_QUESTION * len(level)
        found = []
        nested = self._search(f"tags.`{PARENT}` != '{root}'", size=min(self._size, most + 1))
        for seen, (run, place) in enumerate(nested):
            if seen == most:
                return None
            if run.tags[PARENT] in level:
                found.append((run, place))
        return found

    def _chosen(self, found: list[tuple[Run, str]], ids: Collection[str]) -> Iterator[tuple[Run, str]]:
        """Those that meet the filter."""
        if not self._filter:
            return iter(found)
        questions = _among_ids(ids)
        met = {run.run_id for question in questions for run, _ in self._search(question, self._filter)}
        return (entry for entry in found if entry[0].run_id in met)

    def _search(
        self, condition: str, told: str | None = None, size: int | None = None
    ) -> Iterator[tuple[Run, str]]:
        return _listed(self._client, self._experiments, condition, told, size or self._size)


def _child_of(parent: str) -> str:
    return f"tags.`{PARENT}` = '{parent}'"


def _listed(
    client: "MlflowClient", experiments: list[str], nested: str, told: str | None, size: int
) -> Iterator[tuple[Run, str]]:
    condition = " and ".join(filter(None, (nested, told)))
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


def soup_runs(client: "MlflowClient", size: int) -> tuple[Run, ...]:
    """Our own active runs that are soups', by start time then run id."""
    experiments, condition = [one.experiment_id for one in experiments_of(client)], f"tags.`{ROLE}` = 'soup'"
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    found: dict[str, Run] = {}
    token = None
    while True:
        page = client.search_runs(experiments, condition, max_results=size, order_by=order, page_token=token)
        found |= {run.info.run_id: _run(run) for run in page}
        token = page.token
        if not token:
            return tuple(found.values())


def _experiments(client: "MlflowClient", *, deleted: bool = False) -> "Iterator[MlflowExperiment]":
    """Active ones, or all."""
    from mlflow.entities import ViewType

    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    token = None
    while True:
        with asking("listing the experiments"):
            page = client.search_experiments(view, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _active_run(client: "MlflowClient", run_id: str) -> "MlflowRun":
    place = f"at {redacted(client.tracking_uri)}"
    mend = "give the id of the sweep's parent run, the last part of its address in the MLflow UI"
    with asking(f"no run {run_id!r} {place}", invalid=UnknownSweep, missing=UnknownSweep, mend=mend):
        run = client.get_run(run_id)
    require_answer(run.info.run_id, client.tracking_uri)
    if run.info.lifecycle_stage != "active":
        with asking(f"the experiment of run {run_id!r} {place}"):
            experiment = client.get_experiment(run.info.experiment_id)
        _require_active(experiment, f"experiment {experiment.name!r} of run {run_id} {place}")
        raise UnknownSweep(f"run {run_id} {place} is deleted", mend=f"mlflow runs restore --run-id {run_id}")
    return run


def _experiment_by_name(client: "MlflowClient", name: str) -> str:
    place = f"at {redacted(client.tracking_uri)}"
    with asking(f"experiment {name!r} {place}", invalid=UnknownSweep):
        experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise UnknownSweep(f"no experiment {name!r} {place}", mend="mlflow experiments search")
    require_answer(experiment.experiment_id, client.tracking_uri)
    _require_active(experiment, f"experiment {name!r} {place}")
    return str(experiment.experiment_id)


def _require_active(experiment: "MlflowExperiment", told: str) -> None:
    if experiment.lifecycle_stage != "active":
        mend = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise UnknownSweep(f"{told} is deleted", mend=mend)


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
        ended=run.info.end_time or None,
    )


def _named(values: Mapping[str, T]) -> dict[str, T]:
    """The same; the runs of a sweep share their names, which would take a third of the memory."""
    return {intern(name): value for name, value in values.items()}
