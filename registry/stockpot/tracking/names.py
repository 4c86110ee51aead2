"""What both trackers call things: tags, weights files, version URIs."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from stockpot.entities import Candidate, ModelVersion, Part, Publication, WeightsFormat, WeightsSource
from stockpot.entities.tags import CHECKPOINT, MODEL, RECIPE, ROLE, VERSION

FORMATS = {
    ".safetensors": WeightsFormat.SAFETENSORS,
    ".pt2": WeightsFormat.PT2,
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".pkl"), WeightsFormat.TORCH),
    ".distcp": WeightsFormat.PICKLE,
}
INDEX_SUFFIX = ".index.json"
SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}(?P<suffix>\.safetensors|\.bin)", re.ASCII)
"""A file that weights were cut into, as ``save_pretrained`` names it beside ``<stem><suffix>.index.json``."""
_NO_WEIGHTS = re.compile(
    r"(optimizer|scheduler|scaler|sampler|rng_state|random_states)(_\d+)?\.(pt|pth|bin|pkl)"
    r"|training_args\.bin|python_model\.pkl|.*_optim_states\.pt",
    re.ASCII,
)
"""What the trainers of transformers, Accelerate and DeepSpeed, and MLflow, log beside weights."""
_NEEDS_CODE = re.compile(r"(.*/)?data/model\.pth|.*_model_states\.pt", re.ASCII)
"""A module that MLflow pickled whole; what each process of DeepSpeed wrote of one."""
VERSION_URI = re.compile(r"models:/(?P<name>[^/]+)(/(?P<version>\d+)|@(?P<alias>[\w-]+))", re.ASCII)


def weights_format(path: str) -> WeightsFormat | None:
    """What kind of weights a file of this name holds; None for other files."""
    if _NO_WEIGHTS.fullmatch(PurePosixPath(path).name):
        return None
    if _NEEDS_CODE.fullmatch(path):
        return WeightsFormat.PICKLE
    return FORMATS.get(PurePosixPath(path).suffix.lower())


def sources_among(
    run_id: str, place: str, files: Iterable[tuple[str, int | None]]
) -> Iterator[WeightsSource]:
    """The weights among all files of one or more folders: by path, with their sizes. `place`: a URI.

    Files that weights were cut into are one source, the index of which may be missing.
    """
    cut: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
    for path, size in files:
        shard = SHARD.fullmatch(path)
        if shard is not None:
            cut[f"{shard['stem']}{shard['suffix']}{INDEX_SUFFIX}"].append((path, size))
        elif path.endswith(INDEX_SUFFIX) and weights_format(path.removesuffix(INDEX_SUFFIX)):
            cut[path].append((path, size))
        elif form := weights_format(path):
            yield WeightsSource(run_id, form, path, f"{place}/{path}", None, size)
    for index, found in cut.items():
        parts = tuple(Part(PurePosixPath(path).name, size) for path, size in sorted(found))
        sizes = [part.size for part in parts if part.size is not None]
        size = sum(sizes) if len(sizes) == len(parts) else None
        form = FORMATS[PurePosixPath(index.removesuffix(INDEX_SUFFIX)).suffix.lower()]
        yield WeightsSource(run_id, form, index, f"{place}/{index}", None, size, parts=parts)


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
