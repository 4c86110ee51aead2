"""The card of an MLflow model folder, ``MLmodel``, and what it tells of the library that made the model."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

import yaml

from stockpot.entities import Schema, WeightsFormat, WeightsSource
from stockpot.errors import BadRequest, OtherLibrary

CARD = "MLmodel"
MOST_OF_A_CARD = 1 << 20
"""Bytes. A larger card is not read."""
HISTORY = "mlflow.log-model.history"
"""A tag of runs that MLflow 2 logged models to: JSON, with what the cards say."""
TORCH = frozenset({"pytorch", "transformers", "sentence_transformers", "diffusers"})
"""MLflow's flavors whose models may have torch weights. ``python_function`` stands beside any other."""

OF_ANY_LIBRARY = frozenset({WeightsFormat.TORCH, WeightsFormat.PICKLE})
"""Files whose names do not tell that torch wrote them: other libraries have a ``model.pkl``, too."""


def document_of(card: str) -> Mapping[str, Any]:
    """A card is plain YAML. Aliases are refused, since a few of them can stand for gigabytes.

    Raises ValueError, TypeError, and what the parser raises.
    """
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(card, Loader=yaml.CSafeLoader)):
        raise ValueError("aliases")
    document = yaml.load(card, Loader=yaml.CSafeLoader)
    if not isinstance(document, Mapping):
        raise TypeError("no mapping")
    return document


def schema_of(card: str) -> Schema | None:
    """The signature that a card tells of, if it does. Raises BadRequest for a card that cannot be read."""
    with _reading():
        told = document_of(card).get("signature")
        if not isinstance(told, Mapping):
            return None
        return Schema(_canonical(told.get("inputs")), _canonical(told.get("outputs")))


def flavours_of(card: str) -> tuple[str, ...]:
    """MLflow's flavours that a card tells of, in order. Raises BadRequest for a card that cannot be read."""
    with _reading():
        told = document_of(card).get("flavors")
        return tuple(sorted(map(str, told))) if isinstance(told, Mapping) else ()


def loaded_by(card: str, files: Iterable[str]) -> tuple[str, ...]:
    """Those of a version's files that a flavor in its card names, or that lie in a folder named there: what
    MLflow loads, as far as a card can tell. Where a file was logged from (``uri``) names nothing here.

    Raises BadRequest for a card that cannot be read.
    """
    with _reading():
        named = {PurePosixPath(normpath(text)) for text in _texts(document_of(card).get("flavors")) if text}
        paths = sorted(files)
        return tuple(path for path in paths if not named.isdisjoint((p := PurePosixPath(path), *p.parents)))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key != "uri":
                yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise BadRequest(
            f"its card {CARD} cannot be read: {' '.join(str(error).split())}", mend="log the model again"
        ) from error


def _canonical(told: object) -> str | None:
    """One text for each JSON document. MLflow keeps it as text in the card."""
    return None if told is None else json.dumps(json.loads(str(told)), sort_keys=True, separators=(",", ":"))


def require_torch(
    found: Iterable[WeightsSource], cards: Mapping[str, str], tags: Mapping[str, str]
) -> list[WeightsSource]:
    """What a run logged that no card says to be another library's. Raises OtherLibrary where nothing is left.

    `cards`: their texts, by the folders' paths, as in the sources. Of a card that cannot be read nothing is
    known. `tags`: the run's.
    """
    others = {**_in_history(tags), **{folder: _other_library(card) for folder, card in cards.items()}}
    folders = [folder for folder, library in others.items() if library]
    left = [
        source
        for source in found
        if source.format not in OF_ANY_LIBRARY
        or not any(PurePosixPath(source.path).is_relative_to(folder) for folder in folders)
    ]
    if folders and len(folders) == len(others) and not left:
        raise OtherLibrary(
            f"it logged no torch weights, but a model of {' and '.join(sorted(set(others.values())))}"
        )
    return left


def _other_library(card: str) -> str:
    try:
        return _library(document_of(card).get("flavors"))
    except (yaml.YAMLError, ValueError, TypeError):
        return ""


def _in_history(tags: Mapping[str, str]) -> dict[str, str]:
    try:
        return {
            str(model["artifact_path"]): _library(model["flavors"]) for model in json.loads(tags[HISTORY])
        }
    except (ValueError, TypeError, KeyError):
        return {}


def _library(flavors: object) -> str:
    """The flavors, if none of them may have torch weights; empty where they tell nothing."""
    named = (
        {str(flavor) for flavor in flavors} - {"python_function"} if isinstance(flavors, Mapping) else set()
    )
    return "" if named & TORCH else " and ".join(sorted(named))
