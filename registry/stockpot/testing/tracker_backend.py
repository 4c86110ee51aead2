"""Sweeps to plant in a tracker under test, and a way to look at what it made of them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Measurement,
    ModelVersion,
    Publication,
    Recipe,
    Run,
    SweepSelector,
    digest_of_bytes,
)
from stockpot.ports import Tracker

VALIDATION = digest_of_bytes(b"validation images")
TEST = digest_of_bytes(b"test images")


@dataclass(frozen=True)
class Logged:
    """What a run holds."""

    name: str
    status: str
    parent: str | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Sequence[tuple[str, float]]
    """Every value ever logged, by name."""
    datasets: Sequence[str]
    """Names, sorted."""
    inputs: Sequence[str]
    """Ids of LoggedModels, sorted, as below."""
    outputs: Sequence[str]
    files: Sequence[str]
    """Paths, sorted."""


class Backend(Protocol):
    """A tracker, with the means to plant sweeps in it and to look at what it made."""

    @property
    def tracker(self) -> Tracker:
        """The tracker under test."""
        ...

    def add_experiment(self, name: str) -> str:
        """Create an experiment. Returns its id."""
        ...

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
        """Log a run. Returns its id."""
        ...

    def add_file(self, run_id: str, path: str, content: bytes) -> None:
        """Log an artifact."""
        ...

    def add_model(self, run_id: str, name: str, files: Mapping[str, bytes]) -> str:
        """Log a model with these files. Returns its id."""
        ...

    def logged(self, run_id: str) -> Logged:
        """What the run holds now."""
        ...

    def content(self, run_id: str, path: str) -> bytes:
        """Of an artifact of a run, which may be deleted."""
        ...

    def everything(self, experiment_id: str) -> Sequence[str]:
        """All that one may leave behind: the experiment's runs, deleted ones too, its artifacts and tags, and
        all registered models. A line each, sorted.
        """
        ...

    def add_dataset(self, run_id: str, digest: str, name: str = "data", context: str = "") -> None:
        """Log that a run used a dataset, for what."""
        ...

    def delete_run(self, run_id: str) -> None:
        """Delete a run, as people do."""
        ...

    def copy_version(self, uri: str, model: str) -> object:
        """Copy a version into another model, as MLflow's Promote button does."""
        ...

    def versions(self, model: str) -> Sequence[str]:
        """All versions of a registered model."""
        ...

    def add_version(self, model: str) -> str:
        """Register a version by other hands, without a run. Returns its number."""
        ...

    def move_alias(self, model: str, alias: str, version: str | None) -> None:
        """Point it at a version, or remove it, as a person does."""
        ...

    def remove_version(self, model: str, version: str) -> None:
        """Delete a version, as a person does."""
        ...

    def remove_model(self, model: str) -> None:
        """Delete a registered model, as a person does."""
        ...

    def rename_model(self, model: str, name: str) -> None:
        """Rename a registered model, as a person does."""
        ...


@dataclass(frozen=True)
class PlantedSweep:
    """A parent run with children, in an experiment that holds nothing else."""

    experiment: str
    experiment_id: str
    parent: str
    children: Sequence[str]

    @property
    def selector(self) -> SweepSelector:
        """Names it by its parent."""
        return SweepSelector(parent_run_id=self.parent)


def fresh(name: str) -> str:
    """This name, never used before."""
    return f"{name} {uuid.uuid4().hex}"


def plant(backend: Backend, size: int) -> PlantedSweep:
    """Plant a sweep whose runs each log ``model.safetensors``."""
    experiment = fresh("sweep")
    experiment_id = backend.add_experiment(experiment)
    parent = backend.add_run(experiment_id, "parent")
    children = []
    for seed in range(size):
        logged: dict[str, Any] = {"params": {"seed": str(seed)}, "metrics": {"accuracy": seed / 10}}
        children.append(backend.add_run(experiment_id, f"child {seed}", parent=parent, **logged))
        backend.add_file(children[-1], "model.safetensors", f"weights {seed}".encode())
    return PlantedSweep(experiment, experiment_id, parent, children)


def child(backend: Backend) -> Run:
    """A finished run in an experiment of its own, as it is listed."""
    experiment = fresh("sweep")
    backend.add_run(backend.add_experiment(experiment), "child")
    (run,) = backend.tracker.runs(SweepSelector(experiment=experiment))
    return run


def publication_of(backend: Backend, sweep: PlantedSweep) -> Publication:
    """The mean of the sweep's first two children."""
    ingredients = []
    for run in list(backend.tracker.runs(sweep.selector))[:2]:
        (source,) = backend.tracker.weights(run)
        digest = digest_of_bytes(run.run_id.encode())
        checkpoint = Checkpoint(digest, 9, (), digest_of_bytes(b"no integers"))
        ingredients.append(Candidate(run, source, digest, checkpoint))
    recipe = Recipe.mean([candidate.checkpoint.digest for candidate in ingredients])
    return Publication(
        model=fresh("it's a model"),
        recipe=recipe,
        checkpoint=digest_of_bytes(b"the soup"),
        ingredients=tuple(ingredients),
        experiment_id=sweep.experiment_id,
        parent_run_id=sweep.parent,
        name=f"soup-of-{len(ingredients)}",
        description="+0.5 points\n\n![figure](/get-artifact?path=figure.png&run_uuid={run_id})",
        tags={"stockpot.verdict": "better"},
        params={"methods": "greedy", "shifts": ""},
        measurements=(
            Measurement("score.validation", 0.8, "validation", VALIDATION),
            Measurement("score.test", 0.75, "test", TEST),
        ),
        files={"stockpot.json": b"{}", "plots/figure.png": b"png"},
    )


def publish(tracker: Tracker, publication: Publication) -> str:
    """Everything but the version, resumed where an earlier call stopped. Returns the run's id."""
    run_id = tracker.find_run(publication) or tracker.create_run(publication)
    ingredients = [
        tracker.find_ingredient_model(candidate) or tracker.create_ingredient_model(candidate)
        for candidate in publication.ingredients
    ]
    model_id = tracker.find_model(run_id, publication) or tracker.create_model(run_id, publication)
    tracker.record(run_id, model_id, ingredients, publication)
    return run_id


def registered(tracker: Tracker, publication: Publication) -> ModelVersion:
    """A new version of the publication's soup."""
    run_id = tracker.find_run(publication) or tracker.create_run(publication)
    return tracker.create_version(run_id, tracker.create_model(run_id, publication), publication)
