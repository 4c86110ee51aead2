"""Values as their annotation says, where a program gives something near: a list, a path, an enum's text."""

import os
from collections.abc import Iterable, Mapping, Sequence
from enum import EnumType
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_PLAIN = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", NoneType: "None"}


def fit_fields(instance: object) -> list[str]:
    """Put each field of a frozen dataclass into its annotated type; tell what cannot be, all at once.

    Nothing is guessed: numbers and paths become text only as values of a mapping, a single name becomes a
    tuple of one, and the text of an enum's member that member.
    """
    faults = []
    for name, wanted in get_type_hints(type(instance)).items():
        given = getattr(instance, name)
        try:
            object.__setattr__(instance, name, _fit(given, wanted))
        except (TypeError, ValueError):
            faults.append(f"{name} must be {_told(wanted)}, got {given!r}")
    return faults


def _fit(value: Any, wanted: Any) -> Any:
    """Raises TypeError or ValueError where it does not fit."""
    arms = get_args(wanted)
    if _is_union(wanted):
        return _first_fit(value, arms)
    if get_origin(wanted) is Literal:
        return arms[arms.index(value)]
    if get_origin(wanted) is tuple:
        return tuple(_fit(part, arms[0]) for part in _sequence(value))
    if get_origin(wanted) is Mapping:
        return {
            _fit(name, str): _text(part) if arms[1] is str else _fit(part, arms[1])
            for name, part in _items(value)
        }
    return wanted(value) if isinstance(wanted, EnumType) else _plain(value, wanted)


def _first_fit(value: Any, arms: Sequence[Any]) -> Any:
    for arm in arms:
        try:
            return _fit(value, arm)
        except (TypeError, ValueError):
            continue
    raise TypeError


def _plain(value: Any, wanted: type) -> Any:
    kinds = {int: Integral, float: Real}
    if not isinstance(value, kinds.get(wanted, wanted)) or (isinstance(value, bool) and wanted is not bool):
        raise TypeError
    return wanted(value) if wanted in kinds else value


def _sequence(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):  # a set has no order
        raise TypeError
    return value


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if not isinstance(value, Mapping):
        raise TypeError
    return value.items()


def _text(value: Any) -> str:
    """As a command line would give it."""
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, str):
        return value
    return str(_first_fit(value, (int, float)))


def _is_union(wanted: Any) -> bool:
    return get_origin(wanted) in (Union, UnionType)


def _told(wanted: Any) -> str:
    if _is_union(wanted):
        return " or ".join(_told(arm) for arm in get_args(wanted))
    if get_origin(wanted) is Literal:
        return " or ".join(map(repr, get_args(wanted)))
    if get_origin(wanted) is tuple:
        return "a tuple of texts"
    if get_origin(wanted) is Mapping:
        return "a mapping of texts to texts, numbers or paths"
    if isinstance(wanted, EnumType):
        return f"one of {', '.join(wanted)}"
    return _PLAIN[wanted]
