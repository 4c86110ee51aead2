"""Soups in MLflow's Model Registry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from stockpot.entities.digest import Digest
from stockpot.entities.recipe import Recipe
from stockpot.entities.sweep import Candidate
from stockpot.entities.tags import ALIAS


class RegistrationState(StrEnum):
    """How far the registration of a soup has come."""

    REGISTERING = "REGISTERING"
    REGISTERED = "REGISTERED"


@dataclass(frozen=True, slots=True)
class Registration:
    """The one row per model name and recipe that makes registration happen once."""

    model: str
    recipe: Digest
    state: RegistrationState
    checkpoint: Digest | None = None
    """The soup's own digest, known once it is built."""
    run_id: str | None = None
    model_id: str | None = None
    version: str | None = None
    updated_at: float = field(default=0.0, compare=False)
    """When the store wrote this, in seconds since 1970: the store says."""

    @property
    def lease(self) -> str:
        """The name of the lease under which this row may be written."""
        return f"registration {self.recipe} {self.model}"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in MLflow's Model Registry."""

    name: str
    version: str
    run_id: str | None
    model_id: str | None
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    copy_of: str | None = None
    """The version that MLflow's Promote button copied it from, ``models:/NAME/VERSION``: it has the weights
    of that one, and had its tags."""
    created: int = 0
    """Milliseconds since the epoch; 0 where MLflow does not tell. Of two versions that have one number after
    the other it tells which one this is."""

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``."""
        return f"models:/{self.name}/{self.version}"

    @property
    def given(self) -> frozenset[str]:
        """The aliases that Stockpot gave to it, whoever has them now."""
        return frozenset(filter(None, self.tags.get(ALIAS, "").split(",")))

    def given_too(self, alias: str) -> str:
        """The tag ``stockpot.alias`` once it has this one as well."""
        return ",".join(sorted({*self.given, alias}))


@dataclass(frozen=True, slots=True)
class LoggedSoup:
    """A soup's LoggedModel in MLflow, with a version or without one."""

    model_id: str
    run_id: str
    created: int
    """Milliseconds since the epoch."""
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Packaged:
    """What became of a soup's MLflow model folder."""

    kind: str
    """"transformers" or "sentence_transformers" where an ingredient was logged so, else "pt2", else
    "pyfunc: <why>" where the module cannot be exported.
    """
    left_out: tuple[str, ...] = ()
    """Lines of an ingredient's requirements that are not passed on."""
    instead: str = ""
    """Why it is not what an ingredient was logged as."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number about a soup, on one dataset."""

    name: str
    value: float
    split: str
    dataset: Digest


@dataclass(frozen=True, slots=True)
class Publication:
    """All that MLflow is told about one soup. Built before the first call that creates anything."""

    model: str
    recipe: Recipe
    checkpoint: Digest
    """The soup's own digest."""
    ingredients: tuple[Candidate, ...]
    """In recipe order."""
    experiment_id: str
    parent_run_id: str | None
    name: str
    """Of the soup's run and LoggedModel: distinctive, since MLflow lists all models together."""
    description: str
    """Markdown, at most 5000 characters; the verdict first. ``{run_id}`` stands for the soup's run."""
    tags: Mapping[str, str]
    """For the run, the LoggedModel and the version alike."""
    params: Mapping[str, str]
    measurements: tuple[Measurement, ...]
    files: Mapping[str, bytes]
    """Artifacts of the soup's run and of its LoggedModel, by relative path."""
