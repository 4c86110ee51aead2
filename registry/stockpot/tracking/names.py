"""What both trackers call things: tags, weights files, version URIs."""

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from stockpot.entities import Candidate, ModelVersion, Publication, WeightsFormat
from stockpot.entities.tags import CHECKPOINT, MODEL, RECIPE, ROLE, VERSION

FORMATS = {
    ".safetensors": WeightsFormat.SAFETENSORS,
    ".pt2": WeightsFormat.PT2,
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".pkl"), WeightsFormat.PICKLE),
}
VERSION_URI = re.compile(r"models:/(?P<name>[^/]+)(/(?P<version>\d+)|@(?P<alias>[\w-]+))", re.ASCII)


def weights_format(path: str) -> WeightsFormat | None:
    """What kind of weights a file of this name holds; None for other files."""
    return FORMATS.get(PurePosixPath(path).suffix.lower())


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
