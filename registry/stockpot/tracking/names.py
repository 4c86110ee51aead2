"""What both trackers call things: tags, what lies beside weights, version URIs."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from stockpot.entities import (
    MODULE_FOLDER,
    Candidate,
    ModelVersion,
    Publication,
    WeightsFormat,
    WeightsSource,
)
from stockpot.entities.tags import CHECKPOINT, MODEL, RECIPE, ROLE, VERSION
from stockpot.entities.weights_names import weights_format

VERSION_URI = re.compile(r"models:/(?P<name>[^/]+)(/(?P<version>\d+)|@(?P<alias>[\w-]+))", re.ASCII)


def is_module_folder(path: str, folder: str) -> bool:
    """Whether it is by its name one of a module of sentence-transformers, right below the other."""
    parent, _, name = path.rpartition("/")
    return parent == folder and MODULE_FOLDER.fullmatch(name) is not None


def companions_among(
    source: WeightsSource, files: Iterable[tuple[str, int | None]]
) -> tuple[WeightsSource, ...]:
    """The files that are no part of the source, of paths below what holds it, with their sizes."""
    ends = len(source.inner)
    own = {source.inner, *(source.beside(part).inner for part in source.parts)}
    return tuple(
        replace(
            source,
            format=weights_format(path) or WeightsFormat.OTHER,
            path=source.path[:-ends] + path,
            uri=source.uri[:-ends] + path,
            size=size,
            parts=(),
        )
        for path, size in files
        if path not in own
    )


def soup_tags(publication: Publication) -> dict[str, str]:
    """The publication's tags, and those by which a soup is found."""
    keys = {
        ROLE: "soup",
        MODEL: publication.model,
        RECIPE: publication.recipe.digest,
        CHECKPOINT: publication.checkpoint,
    }
    return {**publication.tags, **keys}


def ingredient_tags(candidate: Candidate) -> dict[str, str]:
    """The tags by which the model that stands for an ingredient is found."""
    return {ROLE: "ingredient", CHECKPOINT: candidate.checkpoint.digest}


def noted(tags: Mapping[str, str]) -> list[str]:
    """The URIs of the versions that are noted on a run. People may have written anything there."""
    try:
        told = json.loads(tags.get(VERSION, "[]"))
    except ValueError:
        return []
    return [uri for uri in told if isinstance(uri, str)] if isinstance(told, list) else []


def note(tags: Mapping[str, str], version: ModelVersion) -> str:
    """The same with this version, in place of an earlier one of its registered model."""
    others = [uri for uri in noted(tags) if uri.rpartition("/")[0] != version.uri.rpartition("/")[0]]
    return json.dumps([*others, version.uri])


def trained_on(datasets: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Of names and contexts, the names of those for training; of all, where no context says so. In order."""
    told = [*datasets]
    training = [name for name, context in told if "train" in context.lower()]
    return tuple(sorted(set(training or [name for name, _ in told])))
