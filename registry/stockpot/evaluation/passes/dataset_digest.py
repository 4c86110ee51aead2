"""A dataset's name, from the content of its examples."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stockpot.entities import Digest
from stockpot.errors import BadTask
from stockpot.evaluation.devices.device import seeded

_READ_TWICE = 16
"""Examples: what is drawn at random hardly ever gives so many alike."""


def digest_of_examples(examples: Sequence[Any], split: str) -> Digest:
    """SHA-256 over every example of a split: types, shapes and bytes.

    Examples are tensors, numpy arrays and scalars, numbers, strings, and tuples, lists and dicts of
    these. Those that are drawn from torch's generator have one name, since a pass seeds it alike. Raises
    BadTask, naming the example, for anything else, and for examples that are others when they are read again.
    """
    require_same(examples, examples, split)
    return _digest(examples, range(len(examples)), split)


def require_same(examples: Sequence[Any], again: Sequence[Any], split: str) -> None:
    """Raise BadTask where a split's examples are others each time that they are read, or the split opened."""
    first = range(min(_READ_TWICE, len(examples)))
    if len(examples) != len(again) or _digest(examples, first, split) != _digest(again, first, split):
        raise BadTask(
            f"the examples of split {split!r} are others each time they are read: no score of them would be "
            "found again",
            mend="let examples(split) give the same examples each time: nothing drawn at random, "
            "or drawn from a generator that is seeded anew with each example's index",
        )


def _digest(examples: Sequence[Any], places: range, split: str) -> Digest:
    content = hashlib.sha256()
    with seeded():
        for index in places:
            for part in _parts(examples[index], f"example {index} of split {split!r}"):
                content.update(part)
    return Digest(f"sha256:{content.hexdigest()}")


def _parts(value: Any, where: str) -> Iterator[bytes]:
    """What is hashed. Every value opens with its kind and size, so that no two values read alike."""
    if isinstance(value, Tensor):
        yield f"tensor {value.dtype} {list(value.shape)};".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        yield f"array {value.dtype.str} {list(value.shape)};".encode()
        yield value.tobytes()
    elif isinstance(value, bool | int | float | complex | str):
        text = repr(value).encode()
        yield f"{type(value).__name__} {len(text)};".encode()
        yield text
    elif isinstance(value, tuple | list):
        yield f"{'tuple' if isinstance(value, tuple) else 'list'} {len(value)};".encode()
        for item in value:
            yield from _parts(item, where)
    elif isinstance(value, dict):
        yield f"dict {len(value)};".encode()
        for pair in value.items():
            yield from _parts(pair, where)
    else:
        raise BadTask(
            f"{where} holds something of type {type(value).__qualname__}, whose content cannot be hashed",
            mend="give the task a method digest(split) -> str, which names the split's content",
        )
