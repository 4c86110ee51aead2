"""Weights files among a run's artifacts and in the LoggedModels that it made, and their download."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from stockpot.entities import MODULES, LoggedSoup, ModelVersion, Run, WeightsFormat, WeightsSource
from stockpot.entities.tags import ROLE
from stockpot.entities.weights_names import sources_among
from stockpot.errors import BadCheckpoint, NotArrived
from stockpot.ports.signing import ADDED_BY_MLFLOW
from stockpot.tracking.mlflow_addresses import Addresses, model_place, run_place, version_place
from stockpot.tracking.model_cards import CARD, MOST_OF_A_CARD, OF_ANY_LIBRARY, require_torch
from stockpot.tracking.names import companions_among, is_module_folder
from stockpot.workflow.gathering.workrooms import scratch

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo, LoggedModel

EXPERIMENTS = 500
"""That one question names: databases take some thousand values at once."""
TRIES = 2
"""To download a file: of another length than was listed, the first one may be a broken transfer."""
MOST_MODULES = 10
"""Folders of modules of sentence-transformers that are listed."""
MOST_FOLDERS = 200
"""Listing a folder is a request. A run with more folders is left out rather than half read."""


def told(source: WeightsSource) -> str:
    """What messages call the file. A version that people registered may come from no run."""
    return f"{source.path} of run {source.run_id}" if source.run_id else source.path


def find_weights(client: "MlflowClient", run: Run, addresses: Addresses) -> tuple[WeightsSource, ...]:
    """Every weights file of the run, by path.

    Two LoggedModels of one name are told apart by their ids: ``<name>/<model id>/<path>``.
    """
    root = addresses.of_run(client, run.run_id)
    found = list(_weights_below(client, run.run_id, run_place(run.run_id), root))
    models = [
        m
        for m in logged_models(client, run.experiment_id, run.run_id)
        if ROLE not in m.tags and m.status == "READY"
    ]
    names = Counter(model.name for model in models)
    steps = _steps(client, run.run_id) if len(models) > 1 else {}
    for model in models:
        prefix = _prefix(model, names)
        place = model_place(model.model_id)
        addresses.note(place, model.artifact_location)
        inside = _weights_below(client, run.run_id, place, model.artifact_location)
        step, metrics = steps.get(model.model_id), _metrics(model)
        found += [
            replace(s, path=f"{prefix}/{s.path}", model_id=model.model_id, step=step, metrics=metrics)
            for s in inside
        ]
    if all(source.format in OF_ANY_LIBRARY for source in found):
        known = [(_prefix(model, names), model.artifact_location) for model in models]
        cards = {prefix: _card(client, run.run_id, location) for prefix, location in known}
        found = require_torch(found, cards, run.tags)
    return tuple(sorted(found, key=lambda source: source.path))


def _prefix(model: "LoggedModel", names: Mapping[str, int]) -> str:
    """Of its files' paths. Names that several models have are not enough."""
    return str(model.name if names[model.name] == 1 else f"{model.name}/{model.model_id}")


def _card(client: "MlflowClient", run_id: str, location: str) -> str:
    """The text of a LoggedModel's card; empty for one that is missing, large or no regular file."""
    with suppress(BadCheckpoint):
        return _card_in(client, run_id, location)
    return ""


def _card_in(client: "MlflowClient", run_id: str, location: str) -> str:
    size = next((file.file_size for file in _listed(client, location, None) if file.path == CARD), None)
    if size is None:
        return ""
    if size > MOST_OF_A_CARD:
        raise BadCheckpoint(f"its card {CARD} has {size:,} bytes; at most {MOST_OF_A_CARD:,} are read")
    card = WeightsSource(run_id, WeightsFormat.OTHER, CARD, f"{location.rstrip('/')}/{CARD}", None, size)
    with scratch() as folder:
        return download_weights(client, card, folder).read_text(errors="replace")


def _steps(client: "MlflowClient", run_id: str) -> dict[str, int]:
    """At which the run logged its models, by their ids; empty where it told no step: then all have zero."""
    outputs = client.get_run(run_id).outputs
    steps = {output.model_id: output.step for output in (outputs.model_outputs if outputs else ())}
    return steps if any(steps.values()) else {}


def _metrics(model: "LoggedModel") -> tuple[tuple[str, float], ...]:
    newest = sorted(model.metrics or (), key=lambda metric: (metric.step, metric.timestamp))
    return tuple(sorted({metric.key: metric.value for metric in newest}.items()))


def weights_of_version(client: "MlflowClient", version: ModelVersion) -> tuple[WeightsSource, ...]:
    """Every weights file of a registered version, by path."""
    root = client.get_model_version_download_uri(version.name, version.version)
    found = _weights_below(client, version.run_id or "", version_place(version), root)
    return tuple(sorted(found, key=lambda source: source.path))


def files_of_version(client: "MlflowClient", version: ModelVersion) -> tuple[str, ...]:
    """The paths of all files of a registered version."""
    root = client.get_model_version_download_uri(version.name, version.version)
    return tuple(file.path for files in _folders_below(client, root) for file in files if not file.is_dir)


def download_version(client: "MlflowClient", version: ModelVersion, into: Path) -> Path:
    """Download all files of a registered version. Raises NotArrived where one has another length than was
    listed: not every server's broken transfer is an error of its client.
    """
    root = client.get_model_version_download_uri(version.name, version.version)
    sizes = {file.path: file.file_size for files in _folders_below(client, root) for file in files}
    folder = download(client, root, into)
    for path, size in sizes.items():
        file = folder / path
        if size is not None and file.is_file() and path != ADDED_BY_MLFLOW and file.stat().st_size != size:
            raise NotArrived(
                f"{path} of {version.uri} was listed with {size:,} bytes, but {file.stat().st_size:,} came",
                mend="try again: it is listed and downloaded anew",
            )
    return folder


def card_of_version(client: "MlflowClient", version: ModelVersion) -> str:
    """The text of a registered version's card; empty where there is none. Raises BadCheckpoint for one
    that is large, no regular file, or did not arrive.
    """
    return _card_in(client, "", client.get_model_version_download_uri(version.name, version.version))


def logged_models(client: "MlflowClient", experiment_id: str, run_id: str) -> "list[LoggedModel]":
    """The LoggedModels that this run is the source of, oldest first."""
    models: list[LoggedModel] = []
    token = None
    while True:
        page = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'", page_token=token)
        models += page
        token = page.token
        if not token:
            return sorted(models, key=lambda model: (model.creation_timestamp, model.model_id))


def soup_models(client: "MlflowClient", experiments: list[str]) -> tuple[LoggedSoup, ...]:
    """The LoggedModels of soups in these experiments, oldest first."""
    found: dict[str, LoggedSoup] = {}
    for begin in range(0, len(experiments), EXPERIMENTS):
        part, token = experiments[begin : begin + EXPERIMENTS], None
        while True:
            page = client.search_logged_models(part, f"tags.`{ROLE}` = 'soup'", page_token=token)
            found |= {
                model.model_id: LoggedSoup(
                    model.model_id, model.source_run_id or "", model.creation_timestamp, dict(model.tags)
                )
                for model in page
            }
            token = page.token
            if not token:
                break
    return tuple(sorted(found.values(), key=lambda model: (model.created, model.model_id)))


def download(client: "MlflowClient", uri: str, into: Path) -> Path:
    """Download an artifact, file or folder, into this folder."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=uri, dst_path=str(into), tracking_uri=client.tracking_uri))


def download_weights(client: "MlflowClient", source: WeightsSource, into: Path) -> Path:
    """Download a weights file from its address. Refuses anything but a regular file in this very folder, of
    the length that was listed: not every server's broken transfer is an error of its client. One that broke
    is tried once more. Of weights that were cut, all files are downloaded; the index's path is returned,
    whether it is there or not.
    """
    for part in source.parts:
        download_weights(client, source.beside(part), into)
    if source.parts:
        return into / source.path.rpartition("/")[2]
    _refuse_links(client, source)
    for _ in range(TRIES):
        file = download(client, source.uri, into)
        if file.is_symlink() or not file.is_file() or not file.resolve().is_relative_to(into.resolve()):
            raise _no_regular_file(source)
        if source.size in {None, came := file.stat().st_size}:
            return file
        file.unlink()
    raise NotArrived(
        f"{told(source)} was listed with {source.size:,} bytes, but {came:,} came",
        mend="run the request again, which lists and downloads the file anew; where this is said again, log "
        "the weights again",
    )


def _refuse_links(client: "MlflowClient", source: WeightsSource) -> None:
    """Where artifacts are a folder of this machine: MLflow follows a link in it to wherever it leads."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    folder, _, name = source.uri.rpartition("/")
    repository = get_artifact_repository(folder, tracking_uri=client.tracking_uri)
    if (
        isinstance(repository, LocalArtifactRepository)
        and (Path(repository.artifact_dir) / name).is_symlink()
    ):
        raise _no_regular_file(source)


def _no_regular_file(source: WeightsSource) -> BadCheckpoint:
    return BadCheckpoint(f"{told(source)} is no regular file", mend="log the weights as one file")


def companions(client: "MlflowClient", source: WeightsSource, address: str) -> tuple[WeightsSource, ...]:
    """The other files of the LoggedModel that holds a source, else of its folder, and where that is one by
    sentence-transformers of its modules' folders. `address`: the source's.
    """
    root = address.removesuffix(f"/{source.inner}")
    if source.model_id is not None:
        inside = [file for files in _folders_below(client, root) for file in files]
    else:
        folder = source.inner.rpartition("/")[0]
        inside = _listed(client, root, folder or None)
        if any(PurePosixPath(file.path).name == MODULES for file in inside):
            deeper = [file.path for file in inside if file.is_dir and is_module_folder(file.path, folder)]
            inside += [file for path in deeper[:MOST_MODULES] for file in _listed(client, root, path)]
    return companions_among(source, [(file.path, file.file_size) for file in inside if not file.is_dir])


def _weights_below(client: "MlflowClient", run_id: str, place: str, root: str) -> Iterator[WeightsSource]:
    for files in _folders_below(client, root):
        yield from sources_among(run_id, place, [(f.path, f.file_size) for f in files if not f.is_dir])


def _listed(client: "MlflowClient", root: str, folder: str | None) -> "list[FileInfo]":
    # Not client.list_artifacts: that adds LoggedModels named like a folder, at a search per folder.
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return list(get_artifact_repository(root, tracking_uri=client.tracking_uri).list_artifacts(folder))


def _folders_below(client: "MlflowClient", root: str) -> "Iterator[list[FileInfo]]":
    """What is in each folder. Raises BadCheckpoint where there are too many."""
    folders: list[str | None] = [None]
    for seen, folder in enumerate(folders):  # grows while it is walked
        if seen == MOST_FOLDERS:
            raise BadCheckpoint(
                f"more than {MOST_FOLDERS} folders of artifacts", mend="log its artifacts into fewer folders"
            )
        files = _listed(client, root, folder)
        folders += [file.path for file in files if file.is_dir]
        yield files
