"""A tracker that forgets: the same promises without MLflow, for tests and for trying things out."""
# ruff: noqa: D102 - the port's docstrings are the contract

import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from stockpot.entities import (
    MODULES,
    UNFINISHED,
    Candidate,
    Digest,
    Experiment,
    LoggedSoup,
    ModelVersion,
    Packaged,
    Publication,
    Registration,
    Run,
    Schema,
    SweepSelector,
    WeightsSource,
)
from stockpot.entities.tags import DUPLICATE_OF, MODEL, PARENT, RECIPE, ROLE, VERSION
from stockpot.errors import (
    BadCheckpoint,
    BadModelName,
    BadRequest,
    NotArrived,
    TrackingError,
    UnknownSweep,
)
from stockpot.ports import Served, Tracker
from stockpot.tracking.memory_filter import conditions_of, holds
from stockpot.tracking.memory_kept import (
    PYFUNC,
    KeptModel,
    KeptPyfunc,
    KeptRun,
    answering_together,
    weights_among,
)
from stockpot.tracking.memory_registry import MemoryRegistry
from stockpot.tracking.model_cards import (
    CARD,
    MOST_OF_A_CARD,
    OF_ANY_LIBRARY,
    flavours_of,
    loaded_by,
    require_torch,
    schema_of,
)
from stockpot.tracking.names import (
    companions_among,
    ingredient_tags,
    is_module_folder,
    note,
    noted,
    soup_tags,
    trained_on,
)

if TYPE_CHECKING:
    from torch import nn


class MemoryTracker(MemoryRegistry, Tracker):
    """A tracker in this process's memory.

    The ``add_`` methods plant a sweep; `runs_kept` and the other dicts show what was made of it.
    Filters are conditions on params, metrics and tags joined by ``and``. Where `writable` is False,
    everything that writes raises NotPermitted.
    """

    def __init__(self, *, writable: bool = True) -> None:
        super().__init__(writable=writable)
        self.oldest = time.time()
        self.experiments_kept: dict[str, str] = {}
        self.runs_kept: dict[str, KeptRun] = {}
        self.models_kept: dict[str, KeptModel] = {}
        self.pyfuncs: dict[str, Callable[[Any], Any]] = {}
        """What is served of a model with a file `pyfunc`, by what that file holds."""
        self.descriptions: dict[str, str] = {}
        """What versions' pages show, by URI."""
        self._started = 0

    def add_experiment(self, name: str) -> str:
        """Create an experiment. Returns its id."""
        return self.experiments_kept.setdefault(name, str(len(self.experiments_kept)))

    def add_run(
        self,
        experiment_id: str,
        name: str,
        *,
        parent: str | None = None,
        status: str = "FINISHED",
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Log a run, started after all others. Returns its id."""
        self._started += 1
        nesting = {PARENT: parent} if parent else {}
        run = Run(
            run_id=f"run-{len(self.runs_kept)}",
            name=name,
            experiment_id=experiment_id,
            status=status,
            started=self._started,
            params=dict(params or {}),
            metrics=dict(metrics or {}),
            tags={**(tags or {}), **nesting},
            ended=None if status in UNFINISHED else self._started,
        )
        self.runs_kept[run.run_id] = KeptRun(run)
        return run.run_id

    def add_file(self, run_id: str, path: str, content: bytes | Path) -> None:
        """Log an artifact."""
        self.runs_kept[run_id].files[path] = content if isinstance(content, bytes) else content.read_bytes()

    def add_model(
        self, run_id: str, name: str, files: Mapping[str, bytes], tags: Mapping[str, str] | None = None
    ) -> str:
        """Log a model with these files. Returns its id."""
        model_id = f"m-{len(self.models_kept)}"
        self.models_kept[model_id] = KeptModel(name, run_id, tags or {}, dict(files))
        return model_id

    def add_dataset(self, run_id: str, digest: str, name: str = "data", context: str = "") -> None:
        """Log that a run used a dataset, for what."""
        self.runs_kept[run_id].datasets[digest] = name, context

    def delete_run(self, run_id: str) -> None:
        """Delete a run, as people do: MLflow keeps it."""
        self.runs_kept[run_id].deleted = True

    def copy_version(self, uri: str, model: str) -> ModelVersion:
        """Copy a version into another model, as MLflow's Promote button does."""
        versions = self.versions_kept.setdefault(model, [])
        copy = replace(
            self.version(uri),
            name=model,
            version=str(len(versions) + 1),
            aliases=(),
            copy_of=uri,
            created=self.tick(),
        )
        versions.append(copy)
        return copy

    def servers(self) -> tuple[str, ...]:
        return ("runs and versions: this process's memory",)

    def runs(self, selector: SweepSelector) -> Iterator[Run]:
        conditions = conditions_of(selector.filter or "")
        if selector.parent_run_id is None:
            if selector.experiment not in self.experiments_kept:
                raise UnknownSweep(f"no experiment {selector.experiment!r}", mend="name another")
            below = None
        elif selector.parent_run_id not in self.runs_kept:
            raise UnknownSweep(f"no run {selector.parent_run_id!r}", mend="name another")
        else:
            below = self._below(selector.parent_run_id)
        runs = self._candidates()
        experiment = self.experiments_kept.get(selector.experiment or "")
        chosen = [r for r in runs if (r.experiment_id == experiment if below is None else r.run_id in below)]
        kept = [run for run in chosen if all(holds(run, condition) for condition in conditions)]
        return iter(sorted(kept, key=lambda run: (run.started, run.run_id)))

    def born(self) -> int:
        return round(self.oldest * 1000)

    def experiments(self) -> tuple[Experiment, ...]:
        found = [Experiment(number, name, self.born()) for name, number in self.experiments_kept.items()]
        return tuple(sorted(found, key=lambda one: one.experiment_id))

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
        conditions = conditions_of(filter or "")
        runs = self._candidates()
        chosen = (
            run
            for run in runs
            if run.experiment_id in experiment_ids
            and (ended_since is None or (run.ended is not None and run.ended >= ended_since))
            and (not unfinished or run.status in UNFINISHED)
            and (run_ids is None or run.run_id in run_ids)
            and (tag is None or run.tags.get(tag))
            and all(holds(run, condition) for condition in conditions)
        )
        return iter(sorted(chosen, key=lambda run: (run.started, run.run_id)))

    def _candidates(self) -> list[Run]:
        """The active runs that are not Stockpot's own."""
        kept = (kept for kept in self.runs_kept.values() if not kept.deleted)
        return [one.run for one in kept if ROLE not in one.run.tags]

    def runs_named(self, run_ids: Collection[str]) -> Iterator[tuple[Run, bool]]:
        found = (kept for run_id, kept in self.runs_kept.items() if run_id in run_ids)
        return iter([(kept.run, kept.deleted) for kept in found])

    def runs_on(self, dataset: str) -> tuple[str, ...]:
        kept = self.runs_kept.items()
        return tuple(sorted(i for i, one in kept if dataset in one.datasets and ROLE not in one.run.tags))

    def datasets(self, run_ids: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        known = {one: self.runs_kept[one].datasets for one in run_ids if one in self.runs_kept}
        return {one: trained_on(datasets.values()) for one, datasets in known.items() if datasets}

    def runs_tagged(self, tag: str) -> tuple[Run, ...]:
        runs = (kept.run for _, kept in sorted(self.runs_kept.items()))
        return tuple(run for run in runs if run.tags.get(tag) and ROLE not in run.tags)

    def tag_run(self, run_id: str, tag: str, value: str) -> None:
        self._require_writable("run")
        if run_id not in self.runs_kept:
            raise UnknownSweep(f"no run {run_id!r}", mend="name another")
        kept = self.runs_kept[run_id]
        kept.run = replace(kept.run, tags={**kept.run.tags, tag: value})

    def parent(self, selector: SweepSelector) -> Run | None:
        if selector.parent_run_id is None:
            return None
        if selector.parent_run_id not in self.runs_kept:
            raise UnknownSweep(f"no run {selector.parent_run_id!r}", mend="name another")
        return self.runs_kept[selector.parent_run_id].run

    def _below(self, parent: str) -> set[str]:
        """The runs below this one, at any depth."""
        found: set[str] = set()
        level = {parent}
        while level:
            parents = {run_id: kept.run.tags.get(PARENT) for run_id, kept in self.runs_kept.items()}
            level = {run_id for run_id, above in parents.items() if above in level} - found - {parent}
            found |= level
        return found

    def weights(self, run: Run) -> tuple[WeightsSource, ...]:
        found = list(weights_among(run.run_id, run.run_id, self.runs_kept[run.run_id].files))
        mine = {
            i: m for i, m in self.models_kept.items() if m.source_run_id == run.run_id and ROLE not in m.tags
        }
        names, cards = Counter(model.name for model in mine.values()), {}
        for model_id, model in mine.items():
            prefix = model.name if names[model.name] == 1 else f"{model.name}/{model_id}"
            inside = weights_among(run.run_id, model_id, model.files)
            found += [replace(s, path=f"{prefix}/{s.path}", model_id=model_id) for s in inside]
            cards[prefix] = model.files.get(CARD, b"").decode(errors="replace")
        if all(source.format in OF_ANY_LIBRARY for source in found):
            found = require_torch(found, cards, run.tags)
        return tuple(sorted(found, key=lambda source: source.path))

    def head(self, source: WeightsSource, length: int) -> bytes | None:
        content = self._content(source)
        return None if content is None else content[:length]

    def companions(self, source: WeightsSource) -> tuple[WeightsSource, ...]:
        place = source.uri.removesuffix(f"/{source.inner}")
        owner = place.removeprefix("memory:/")
        kept = self.models_kept[owner] if source.model_id else self.runs_kept[owner]
        folder = "" if source.model_id else source.inner.rpartition("/")[0]
        folders = {folder}
        if f"{folder}/{MODULES}".lstrip("/") in kept.files:
            below = {p.rpartition("/")[0] for p in kept.files}
            folders |= {path for path in below if is_module_folder(path, folder)}
        inside = {
            p: len(c) for p, c in kept.files.items() if source.model_id or p.rpartition("/")[0] in folders
        }
        return companions_among(source, sorted(inside.items()))

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        for part in source.parts:
            self.fetch(source.beside(part), into)
        if source.parts:
            return into / PurePosixPath(source.uri).name
        content = self._content(source)
        if content is None:
            raise BadCheckpoint(f"{source.uri} is gone", mend="log it again")
        if source.size not in {None, len(content)}:
            raise NotArrived(f"{source.uri} is not as long as it was listed", mend="list it again")
        file = into / PurePosixPath(source.uri).name
        file.write_bytes(content)
        return file

    def prove_writable(self, model: str, experiment_id: str) -> None:
        self._require_writable(f"experiment {experiment_id}")
        if not model.strip() or set("/:") & set(model):
            raise BadModelName(
                f"registered model {model!r}: no / or : in a name", mend="give another --model"
            )
        if experiment_id not in self.experiments_kept.values():
            raise TrackingError(f"no experiment {experiment_id}", mend="name another")

    def find_run(self, publication: Publication) -> str | None:
        wanted = {ROLE: "soup", MODEL: publication.model, RECIPE: publication.recipe.digest}.items()
        return next((i for i, kept in self.runs_kept.items() if wanted <= kept.run.tags.items()), None)

    def create_run(self, publication: Publication) -> str:
        self._require_writable("run")
        return self.add_run(
            publication.experiment_id,
            publication.name,
            parent=publication.parent_run_id,
            status="RUNNING",
            tags=soup_tags(publication),
        )

    def find_ingredient_model(self, candidate: Candidate) -> str | None:
        return candidate.source.model_id or self._find_model(candidate.run.run_id, ingredient_tags(candidate))

    def create_ingredient_model(self, candidate: Candidate) -> str:
        self._require_writable("model")
        return self.add_model(candidate.run.run_id, candidate.run.name, {}, ingredient_tags(candidate))

    def find_model(self, run_id: str, publication: Publication) -> str | None:
        return self._find_model(run_id, {ROLE: "soup", RECIPE: publication.recipe.digest})

    def create_model(self, run_id: str, publication: Publication) -> str:
        self._require_writable("model")
        return self.add_model(run_id, publication.name, {}, soup_tags(publication))

    def record(
        self, run_id: str, model_id: str, ingredient_models: Sequence[str], publication: Publication
    ) -> None:
        self._require_writable("run")
        kept = self.runs_kept[run_id]
        kept.run = replace(
            kept.run,
            status="FINISHED",
            params={**publication.params, **kept.run.params},
            metrics={measurement.name: measurement.value for measurement in publication.measurements},
        )
        kept.inputs, kept.outputs = tuple(ingredient_models), (model_id,)
        kept.measurements = publication.measurements
        kept.files.update(publication.files)

    def fail(self, run_id: str) -> None:
        self._require_writable("run")
        kept = self.runs_kept[run_id]
        kept.run = replace(kept.run, status="FAILED")

    def package(
        self,
        module: "nn.Module",  # noqa: ARG002 - only MLflow exports
        weights: Path,
        example: Any,  # noqa: ARG002
        into: Path,
        *,
        model_id: str | None,  # noqa: ARG002
        like: Candidate,  # noqa: ARG002
        architecture: tuple[str, Mapping[str, str]],  # noqa: ARG002
    ) -> Packaged:
        into.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, into / "model.safetensors")
        return Packaged("pt2")

    def package_together(
        self, models: Iterable[tuple["nn.Module", Any, Path]], prior: Sequence[float], into: Path
    ) -> None:
        into.mkdir()
        name = f"together-{len(self.pyfuncs)}"
        self.pyfuncs[name] = answering_together([module for module, _, _ in models], prior)
        (into / PYFUNC).write_text(name)

    def has_model(self, version: ModelVersion) -> bool:
        return version.model_id is None or version.model_id in self.models_kept

    def read_file(self, model_id: str, path: str) -> bytes:
        if model_id not in self.models_kept or path not in self.models_kept[model_id].files:
            raise BadRequest(f"{path} of model {model_id} does not exist", mend="name another")
        return self.models_kept[model_id].files[path]

    def upload(self, model_id: str, folder: Path) -> None:
        self._require_writable("model")
        files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
        self.models_kept[model_id].files.update({path: file.read_bytes() for path, file in files.items()})
        self.models_kept[model_id].ready = True

    def download(self, model_id: str, into: Path) -> Path:
        for path, content in self.models_kept[model_id].files.items():
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            (into / path).write_bytes(content)
        return into

    def reconcile(self, model: str, recipe: Digest) -> ModelVersion | None:
        versions = self.versions_kept.get(model, [])
        same = [place for place, version in enumerate(versions) if version.tags.get(RECIPE) == recipe]
        for place in same[1:]:
            tags = {**versions[place].tags, DUPLICATE_OF: versions[same[0]].version}
            versions[place] = replace(versions[place], tags=tags)
        return self.version(versions[same[0]].uri) if same else None

    def create_version(self, run_id: str, model_id: str, publication: Publication) -> ModelVersion:
        self._require_writable("version")
        version = self._new_version(publication.model, run_id, model_id, soup_tags(publication))
        self.descriptions[version.uri] = publication.description
        return version

    def note_version(self, version: ModelVersion) -> None:
        self._require_writable("run")
        kept = self.runs_kept.get(version.run_id or "")
        if kept is not None:
            kept.run = replace(kept.run, tags={**kept.run.tags, VERSION: note(kept.run.tags, version)})

    def noted_versions(self, recipe: Digest, experiment_ids: Iterable[str]) -> tuple[str, ...]:
        wanted = {ROLE: "soup", RECIPE: recipe}.items()
        runs = [kept.run for kept in self.runs_kept.values() if kept.run.experiment_id in {*experiment_ids}]
        return tuple(uri for run in runs if wanted <= run.tags.items() for uri in noted(run.tags))

    def may_have_made(self, registration: Registration) -> bool:
        return registration.run_id in self.runs_kept or self.oldest < registration.updated_at

    def describe(self, version: ModelVersion, publication: Publication) -> None:
        self._require_writable("version")
        if version.run_id in self.runs_kept:
            self.runs_kept[version.run_id].files.update(publication.files)
        versions = self.versions_kept[version.name]
        place = next(i for i, kept in enumerate(versions) if kept.version == version.version)
        versions[place] = replace(versions[place], tags={**versions[place].tags, **soup_tags(publication)})
        self.descriptions[version.uri] = publication.description

    def edit_description(self, version: ModelVersion, edit: Callable[[str], str]) -> None:
        self._require_writable("version")
        uri = self.version(version.uri).uri
        self.descriptions[uri] = edit(self.descriptions.get(uri, ""))

    def put_file(self, run_id: str, path: str, content: bytes) -> None:
        self._require_writable("run")
        if run_id not in self.runs_kept:
            raise BadRequest(f"no run {run_id!r}", mend="name another")
        self.add_file(run_id, path, content)

    def soup_versions(self) -> tuple[ModelVersion, ...]:
        return tuple(version for version in self._versions() if RECIPE in version.tags)

    def versions_tagged(self, tag: str, value: str) -> tuple[ModelVersion, ...]:
        return tuple(version for version in self._versions() if version.tags.get(tag) == value)

    def versions_of(self, run_id: str) -> tuple[ModelVersion, ...]:
        return tuple(version for version in self._versions() if version.run_id == run_id)

    def _versions(self) -> Iterator[ModelVersion]:
        return (version for name in sorted(self.versions_kept) for version in self.versions_kept[name])

    def soup_runs(self) -> tuple[Run, ...]:
        return tuple(kept.run for kept in self.runs_kept.values() if kept.run.tags.get(ROLE) == "soup")

    def soup_models(self) -> tuple[LoggedSoup, ...]:
        return tuple(
            LoggedSoup(model_id, kept.source_run_id, kept.created, kept.tags)
            for model_id, kept in self.models_kept.items()
            if kept.tags.get(ROLE) == "soup"
        )

    def delete_model(self, model_id: str) -> None:
        self._require_writable("model")
        del self.models_kept[model_id]

    def tag_version(self, version: ModelVersion, tag: str, value: str) -> None:
        self._require_writable("version")
        found = self.version(version.uri)
        versions = self.versions_kept[version.name]
        place = next(i for i, kept in enumerate(versions) if kept.version == version.version)
        versions[place] = replace(found, tags={**found.tags, tag: value}, aliases=())

    def schema(self, version: ModelVersion) -> Schema | None:
        card = self._card(version)
        return schema_of(card) if card else None

    def served(self, folder: Path) -> AbstractContextManager[Served]:
        named = folder / PYFUNC
        return nullcontext(KeptPyfunc(self.pyfuncs, named.read_text() if named.is_file() else ""))

    def loaded(self, version: ModelVersion) -> tuple[str, ...]:
        card = self._card(version)
        return loaded_by(card, self._files(version)) if card else ()

    def _card(self, version: ModelVersion) -> str:
        card = self._files(version).get(CARD, b"")
        if len(card) > MOST_OF_A_CARD:
            raise BadCheckpoint(f"its card {CARD} has {len(card):,} bytes")
        return card.decode(errors="replace")

    def _files(self, version: ModelVersion) -> Mapping[str, bytes]:
        kept = self.models_kept.get(version.model_id or "")
        return kept.files if kept else {}

    def flavours(self, version: ModelVersion) -> tuple[str, ...]:
        card = self._card(version)
        return flavours_of(card) if card else ()

    def version_weights(self, version: ModelVersion) -> tuple[WeightsSource, ...]:
        model_id = version.model_id or ""
        found = weights_among(version.run_id or "", model_id, self._files(version))
        return tuple(sorted((replace(s, model_id=model_id) for s in found), key=lambda source: source.path))

    def download_version(self, version: ModelVersion, into: Path) -> Path:
        found = self.version(version.uri)
        return self.download(found.model_id, into) if found.model_id in self.models_kept else into

    def link(self, version: ModelVersion) -> str | None:  # noqa: ARG002 - there is no server
        return None

    def run_link(self, run: Run) -> str | None:  # noqa: ARG002 - there is no server
        return None

    def _content(self, source: WeightsSource) -> bytes | None:
        owner, _, path = source.uri.removeprefix("memory:/").partition("/")
        return (self.models_kept[owner] if source.model_id else self.runs_kept[owner]).files.get(path)

    def _find_model(self, run_id: str, wanted: Mapping[str, str]) -> str | None:
        models = ((i, m) for i, m in self.models_kept.items() if m.source_run_id == run_id)
        return next((i for i, model in models if wanted.items() <= model.tags.items()), None)
