"""The Tracker over an MLflow server or database."""
# ruff: noqa: D102 - the port's docstrings are the contract

import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from stockpot.entities import (
    CONFIG,
    UNFINISHED,
    Candidate,
    Digest,
    Experiment,
    LoggedSoup,
    ModelVersion,
    Packaged,
    Publication,
    RegisteredModel,
    Registration,
    Run,
    Schema,
    SweepSelector,
    WeightsSource,
)
from stockpot.entities.tags import ALIAS, TRAIL
from stockpot.errors import BadRequest, StockpotError, UnknownSweep
from stockpot.ports import Served, Tracker
from stockpot.secrets import keep_secret
from stockpot.tracking import mlflow_models as models
from stockpot.tracking import mlflow_publishing as publishing
from stockpot.tracking import mlflow_versions as versions
from stockpot.tracking.mlflow_addresses import Addresses, run_place
from stockpot.tracking.mlflow_blame import reading_one_run
from stockpot.tracking.mlflow_calls import (
    REGISTRY,
    asking,
    connecting,
    is_web,
    logging_left_alone,
    open_registry,
    probing,
    redacted,
    registry_uri,
    registry_variable,
    require_answer,
)
from stockpot.tracking.mlflow_heads import Heads
from stockpot.tracking.mlflow_limits import MOST_TAG, cut
from stockpot.tracking.mlflow_permissions import prove_experiment_writable, prove_model_writable
from stockpot.tracking.mlflow_runs import (
    PAGE,
    datasets_of,
    experiments_of,
    list_runs,
    oldest_experiment,
    parent_of,
    runs_named,
    runs_on,
    runs_tagged,
    select_runs,
    soup_runs,
)
from stockpot.tracking.mlflow_server import require_database, require_version, servers
from stockpot.tracking.mlflow_weights import (
    card_of_version,
    companions,
    download,
    download_version,
    download_weights,
    files_of_version,
    find_weights,
    soup_models,
    told,
    weights_of_version,
)
from stockpot.tracking.model_cards import flavours_of, loaded_by, schema_of
from stockpot.tracking.model_configs import complete_config
from stockpot.tracking.names import VERSION_URI
from stockpot.workflow.gathering.places import Places, fetch_all, files_beside
from stockpot.workflow.gathering.workrooms import scratch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

_one_connects = threading.Lock()
"""MLflow fills a table when a process first asks for a registry; a second thread would find it half empty."""


class MlflowTracker(Tracker):
    """Follows MLflow's own settings where a URI is None; credentials come from MLflow's own variables,
    and are neither kept nor shown.
    """

    def __init__(
        self, tracking_uri: str | None = None, registry_uri: str | None = None, *, page_size: int = PAGE
    ) -> None:
        for uri in (tracking_uri, registry_uri):
            keep_secret(uri)
        self._tracking_uri = tracking_uri
        self._registry_uri = registry_uri
        self._page_size = page_size
        self._heads = Heads()
        self._addresses = Addresses()

    @property
    def client(self) -> "MlflowClient":
        """MLflow's own, connected, for what no port asks of a tracker."""
        return self._client

    @cached_property
    def _client(self) -> "MlflowClient":
        """Connected at first use: importing MLflow takes seconds, and a server may be down."""
        with _one_connects, asking("connecting to MLflow"):
            from mlflow import MlflowClient, get_tracking_uri

            tracking = self._tracking_uri or get_tracking_uri()
            keep_secret(tracking)  # MLflow may know it from elsewhere
            with connecting(tracking):
                client = MlflowClient(self._tracking_uri, self._registry_uri)
            registry = registry_uri(client)
            keep_secret(registry)
            with connecting(registry, registry_variable(client)):
                open_registry(client)
        if is_web(tracking):
            with probing(tracking):
                client.search_experiments(max_results=1)
            require_version(tracking)
        if is_web(registry) and registry != tracking:
            with probing(registry, REGISTRY):
                client.search_registered_models(max_results=1)
        return client

    def servers(self) -> tuple[str, ...]:
        with asking("looking for MLflow"):
            from mlflow import get_registry_uri, get_tracking_uri

            places = [self._tracking_uri or get_tracking_uri(), self._registry_uri or get_registry_uri()]
            if self._registry_uri is None and places[1] == get_tracking_uri():
                del places[1]  # nobody has set one: it is where the runs are
        for uri in places:
            require_database(uri)
        return servers(self._client)

    def runs(self, selector: SweepSelector) -> Iterator[Run]:
        return map(self._noted, list_runs(self._client, selector, self._page_size))

    def born(self) -> int:
        return oldest_experiment(self._client)

    def experiments(self) -> tuple[Experiment, ...]:
        return experiments_of(self._client)

    def select_runs(
        self,
        experiment_ids: Sequence[str],
        *,
        ended_since: int | None = None,
        unfinished: bool = False,
        run_ids: Collection[str] | None = None,
        tag: str | None = None,
        filter: str | None = None,  # noqa: A002 - as in SweepSelector
    ) -> Iterator[Run]:
        conditions = [f"attributes.end_time >= {ended_since}"] if ended_since is not None else []
        conditions += [f"tags.`{tag}` != ''"] if tag is not None else []
        # MLflow's filters know no `or`.
        stages = [[f"attributes.status = '{status}'"] for status in UNFINISHED] if unfinished else [[]]
        for stage in stages:
            yield from select_runs(
                self._client, experiment_ids, [*conditions, *stage], run_ids, filter, self._page_size
            )

    def runs_named(self, run_ids: Collection[str]) -> Iterator[tuple[Run, bool]]:
        return runs_named(self._client, run_ids, self._page_size)

    def runs_on(self, dataset: str) -> tuple[str, ...]:
        return runs_on(self._client, dataset, self._page_size)

    def datasets(self, run_ids: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        return datasets_of(self._client, run_ids, self._page_size)

    def runs_tagged(self, tag: str) -> tuple[Run, ...]:
        return runs_tagged(self._client, tag, self._page_size)

    def tag_run(self, run_id: str, tag: str, value: str) -> None:
        with asking(f"tag {tag!r} of run {run_id}", invalid=UnknownSweep, missing=UnknownSweep):
            self._client.set_tag(run_id, tag, value)

    def parent(self, selector: SweepSelector) -> Run | None:
        return parent_of(self._client, selector)

    def weights(self, run: Run) -> tuple[WeightsSource, ...]:
        with reading_one_run(self._client, f"listing the weights of run {run.name} ({run.run_id})"):
            return find_weights(self._client, run, self._addresses)

    def head(self, source: WeightsSource, length: int) -> bytes | None:
        with reading_one_run(self._client, f"reading the header of {told(source)}"):
            return self._heads.of(self._client, self._addresses.located(self._client, source), length)

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        with reading_one_run(self._client, f"downloading {told(source)}"):
            return download_weights(self._client, self._addresses.located(self._client, source), into)

    def companions(self, source: WeightsSource) -> tuple[WeightsSource, ...]:
        with reading_one_run(self._client, f"listing what lies beside {told(source)}"):
            return companions(self._client, source, self._addresses.located(self._client, source).uri)

    def prove_writable(self, model: str, experiment_id: str) -> None:
        prove_model_writable(self._client, model)
        prove_experiment_writable(self._client, experiment_id)

    def find_run(self, publication: Publication) -> str | None:
        with asking(f"looking for the run {publication.name}"):
            return publishing.find_run(self._client, publication)

    def create_run(self, publication: Publication) -> str:
        return publishing.create_run(self._client, publication)

    def find_ingredient_model(self, candidate: Candidate) -> str | None:
        with asking(f"looking for the model of run {candidate.run.name}"):
            return publishing.find_ingredient_model(self._client, candidate)

    def create_ingredient_model(self, candidate: Candidate) -> str:
        return publishing.create_ingredient_model(self._client, candidate)

    def find_model(self, run_id: str, publication: Publication) -> str | None:
        with asking(f"looking for the model {publication.name}"):
            return publishing.find_model(self._client, run_id, publication)

    def create_model(self, run_id: str, publication: Publication) -> str:
        return publishing.create_model(self._client, run_id, publication)

    def record(
        self, run_id: str, model_id: str, ingredient_models: Sequence[str], publication: Publication
    ) -> None:
        with asking(f"writing to the run {publication.name} ({run_id})"):
            publishing.record(self._client, run_id, model_id, ingredient_models, publication)

    def fail(self, run_id: str) -> None:
        with probing(self._client.tracking_uri):
            self._client.set_terminated(run_id, "FAILED")

    def package(
        self,
        module: "nn.Module",
        weights: Path,
        example: Any,
        into: Path,
        *,
        model_id: str | None,
        like: Candidate,
        architecture: tuple[str, Mapping[str, str]],
    ) -> Packaged:
        with asking(f"packaging {weights} as an MLflow model"):
            with logging_left_alone():
                from stockpot.tracking.mlflow_packaging import package

            with tempfile.TemporaryDirectory(dir=into.parent) as folder:
                theirs = self._beside(like.source, Path(folder))
                complete_config(theirs / CONFIG, module, adapted=like.source.base is not None)
                return package(
                    self._client,
                    module,
                    weights,
                    example,
                    into,
                    model_id=model_id,
                    theirs=theirs,
                    architecture=architecture,
                )

    def package_together(
        self, models: Iterable[tuple["nn.Module", Any, Path]], prior: Sequence[float], into: Path
    ) -> None:
        with asking(f"packaging {into} as an MLflow model"):
            with logging_left_alone():
                from stockpot.tracking.mlflow_ensemble import package_together

            package_together(models, prior, into)

    def _beside(self, source: WeightsSource, into: Path) -> Path:
        """The folder, with the card, configuration and tokenizer that lie beside these weights, of an adapter
        beside its base: what cannot be had is left out.
        """
        from stockpot.tracking.mlflow_cards import fetch

        with suppress(StockpotError):
            places = Places(self)
            fetch_all(files_beside(source, places), places, into)
        if source.model_id is not None:
            with suppress(Exception):
                model = self._client.get_logged_model(source.model_id)
                fetch(self._client, str(model.artifact_location), into)
        return into

    def has_model(self, version: ModelVersion) -> bool:
        with asking(f"looking for the model of {version.uri}"):
            return versions.has_model(self._client, version)

    def read_file(self, model_id: str, path: str) -> bytes:
        with (
            asking(f"{path} of model {model_id}", invalid=BadRequest, missing=BadRequest),
            scratch() as folder,
        ):
            location = self._client.get_logged_model(model_id).artifact_location
            return download(self._client, f"{location}/{path}", folder).read_bytes()

    def upload(self, model_id: str, folder: Path) -> None:
        with asking(f"uploading the model {model_id}"):
            self._client.log_model_artifacts(model_id, str(folder))
            self._client.finalize_logged_model(model_id, "READY")

    def download(self, model_id: str, into: Path) -> Path:
        with asking(f"downloading the model {model_id}"):
            return download(self._client, self._client.get_logged_model(model_id).artifact_location, into)

    def reconcile(self, model: str, recipe: Digest) -> ModelVersion | None:
        with asking(f"looking through the versions of {model!r}"):
            return versions.reconcile(self._client, model, recipe)

    def create_version(self, run_id: str, model_id: str, publication: Publication) -> ModelVersion:
        return versions.create_version(self._client, run_id, model_id, publication)

    def note_version(self, version: ModelVersion) -> None:
        with asking(f"noting {version.uri} on the run {version.run_id}"):
            versions.note_version(self._client, version)

    def noted_versions(self, recipe: Digest, experiment_ids: Iterable[str]) -> tuple[str, ...]:
        with asking("looking through the runs of soups"):
            return versions.noted_versions(self._client, recipe, experiment_ids)

    def may_have_made(self, registration: Registration) -> bool:
        with asking(f"looking for the run {registration.run_id}"):
            return versions.may_have_made(self._client, registration)

    def describe(self, version: ModelVersion, publication: Publication) -> None:
        with asking(f"describing {version.uri}"):
            versions.describe(self._client, version, publication)

    def edit_description(self, version: ModelVersion, edit: Callable[[str], str]) -> None:
        with asking(f"the description of {version.uri}", invalid=BadRequest, missing=BadRequest):
            versions.edit_description(self._client, version, edit)

    def put_file(self, run_id: str, path: str, content: bytes) -> None:
        with asking(f"writing {path} to the run {run_id}", invalid=BadRequest, missing=BadRequest):
            publishing.log_files(self._client, run_id, {path: content})

    def soup_versions(self) -> tuple[ModelVersion, ...]:
        with asking("looking through the versions of soups"):
            return versions.soup_versions(self._client)

    def versions_tagged(self, tag: str, value: str) -> tuple[ModelVersion, ...]:
        with asking(f"listing the versions with the tag {tag!r}"):
            return versions.versions_tagged(self._client, tag, value)

    def versions_of(self, run_id: str) -> tuple[ModelVersion, ...]:
        with asking(f"listing the versions of run {run_id}"):
            return versions.versions_of(self._client, run_id)

    def soup_runs(self) -> tuple[Run, ...]:
        with asking("looking through the runs of soups"):
            return soup_runs(self._client, self._page_size)

    def soup_models(self) -> tuple[LoggedSoup, ...]:
        with asking("looking through the models of soups"):
            return soup_models(self._client, [one.experiment_id for one in experiments_of(self._client)])

    def delete_model(self, model_id: str) -> None:
        with asking(f"deleting the model {model_id}"):
            self._client.delete_logged_model(model_id)

    def tag_version(self, version: ModelVersion, tag: str, value: str) -> None:
        with asking(f"tag {tag!r} of {version.uri}", invalid=BadRequest, missing=BadRequest):
            self._client.set_model_version_tag(version.name, version.version, tag, cut(value, MOST_TAG))

    def set_alias(self, model: str, alias: str, version: str) -> None:
        given = self.version(f"models:/{model}/{version}").given_too(alias)
        with asking(f"alias {alias!r} of {model!r}", invalid=BadRequest, missing=BadRequest):
            self._client.set_model_version_tag(model, version, ALIAS, given)
            self._client.set_registered_model_alias(model, alias, version)

    def point_alias(self, model: str, alias: str, version: str) -> None:
        with asking(f"alias {alias!r} of {model!r}", invalid=BadRequest, missing=BadRequest):
            self._client.set_registered_model_alias(model, alias, version)

    def schema(self, version: ModelVersion) -> Schema | None:
        with asking(f"reading the card of {version.uri}", missing=BadRequest):
            card = card_of_version(self._client, version)
        return schema_of(card) if card else None

    def flavours(self, version: ModelVersion) -> tuple[str, ...]:
        with asking(f"reading the card of {version.uri}", missing=BadRequest):
            card = card_of_version(self._client, version)
        return flavours_of(card) if card else ()

    def registered_models(self) -> tuple[RegisteredModel, ...]:
        with asking("listing the registered models"):
            return models.registered_models(self._client)

    def registered_model(self, name: str) -> RegisteredModel | None:
        with asking(f"the registered model {name!r}"):
            return models.registered_model(self._client, name)

    def anchor_trail(self, model: str, digest: Digest) -> None:
        with asking(f"tagging the registered model {model!r}", invalid=BadRequest, missing=BadRequest):
            self._client.set_registered_model_tag(model, TRAIL, digest)

    def version(self, uri: str) -> ModelVersion:
        mend = "write models:/NAME/VERSION or models:/NAME@ALIAS, as the MLflow UI names them"
        parts = VERSION_URI.fullmatch(uri)
        if parts is None:
            raise BadRequest(f"{uri!r} names no model version", mend=mend)
        name, version, alias = parts["name"], parts["version"], parts["alias"]
        with asking(f"no {uri}", invalid=BadRequest, missing=BadRequest, mend=mend):
            client = self._client
            found = (
                client.get_model_version(name, version)
                if alias is None
                else client.get_model_version_by_alias(name, alias)
            )
            require_answer(found.name, registry_uri(client), registry_variable(client))
            return versions.to_version(found)

    def version_weights(self, version: ModelVersion) -> tuple[WeightsSource, ...]:
        with asking(f"listing the weights of {version.uri}", missing=BadRequest):
            return weights_of_version(self._client, version)

    def served(self, folder: Path) -> AbstractContextManager[Served]:
        from stockpot.tracking.mlflow_serving import served

        return served(folder)

    def loaded(self, version: ModelVersion) -> tuple[str, ...]:
        with asking(f"listing the files of {version.uri}", missing=BadRequest):
            card = card_of_version(self._client, version)
            return loaded_by(card, files_of_version(self._client, version)) if card else ()

    def download_version(self, version: ModelVersion, into: Path) -> Path:
        with asking(f"downloading {version.uri}", missing=BadRequest):
            return download_version(self._client, version, into)

    def link(self, version: ModelVersion) -> str | None:
        host = _host(registry_uri(self._client))
        return host and f"{host}/#/models/{quote(version.name, safe='')}/versions/{version.version}"

    def run_link(self, run: Run) -> str | None:
        host = _host(self._client.tracking_uri)
        return host and f"{host}/#/experiments/{run.experiment_id}/runs/{run.run_id}"

    def _noted(self, listed: tuple[Run, str]) -> Run:
        run, root = listed
        self._addresses.note(run_place(run.run_id), root)
        return run


def _host(uri: str) -> str | None:
    """What a browser opens, without credentials; None for a database."""
    return redacted(uri).replace("***@", "").rstrip("/") if is_web(uri) else None
