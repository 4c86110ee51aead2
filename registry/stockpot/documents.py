"""Entities as JSON documents, and back: for the store, for artifacts and for `--json`.

The entities stay free of third-party code; pydantic reads their annotations.
"""

import math
from dataclasses import fields
from functools import cache
from threading import Lock
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from stockpot.entities import Conditions, Question
from stockpot.errors import StockpotError

T = TypeVar("T")
_one_reads = Lock()
"""pydantic parses our classes' source for their docstrings, which two threads of Python cannot do at once."""


def to_document(entity: Any) -> Any:
    """Plain dicts, lists, strings and numbers; NaN and infinities as strings, since JSON has neither. Fields
    that came later are left out where they are not set: older documents keep their digests.
    """
    kind: Any = type(entity)
    return _plain(_adapter(kind).dump_python(entity, mode="json"))


def from_document(kind: type[T], document: object) -> T:
    """Read an entity back, also one that was written before protocols had two parts. Raises StockpotError
    naming every field that does not fit.
    """
    try:
        entity: T = _adapter(cast("Any", kind)).validate_python(_in_two_parts(document))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise StockpotError(
            f"this document is no {getattr(kind, '__name__', kind)}", faults=faults
        ) from error
    return entity


_PARTS = {
    "question": {field.name for field in fields(Question)},
    "conditions": {field.name for field in fields(Conditions)},
}


def _in_two_parts(document: Any) -> Any:
    """The document with its protocols as they are today. Snapshots beside versions are never migrated."""
    if isinstance(document, list | tuple):
        return [_in_two_parts(item) for item in document]
    if not isinstance(document, dict):
        return document
    if {"task_version", "torch_version"} <= document.keys():
        return {
            part: {name: document[name] for name in names & document.keys()} for part, names in _PARTS.items()
        }
    within = document.keys() & {"report", "protocols"}
    return document | {name: _in_two_parts(document[name]) for name in within}


_LATER = {
    "adapter",
    "aim",
    "base",
    "best_runs",
    "cast",
    "cast_from",
    "coefficients",
    "collisions",
    "compare_all",
    "contrasts",
    "copy_of",
    "curve",
    "domain_from",
    "domains",
    "dtype",
    "groups",
    "hint",
    "mix",
    "mixture",
    "objective",
    "own",
    "own_beside",
    "references",
    "statistics",
    "statistics_on",
    "target",
    "unit",
    "versus_base",
    "versus_specialists",
}
"""Fields of entities that are older than these."""


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        known = ((key, item) for key, item in value.items() if key not in _LATER or not _is_off(item))
        return {key: _plain(item) for key, item in known}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _is_off(value: Any) -> bool:
    """Whether a field is not set: no zero, and no empty text."""
    return value is None or value is False


def _adapter(kind: Any) -> Any:
    with _one_reads:
        return _made_adapter(kind)


@cache
def _made_adapter(kind: Any) -> Any:
    """Building an adapter costs milliseconds; there are a dozen kinds."""
    return TypeAdapter(kind)
