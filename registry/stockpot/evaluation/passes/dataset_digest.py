"""A dataset's name, from the content of its examples."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stockpot.entities import Digest
from stockpot.errors import BadTask


def digest_of_examples(examples: Sequence[Any], split: str) -> Digest:
    """SHA-256 over every example of a split: types, shapes and bytes.

    Examples are tensors, numpy arrays and scalars, numbers, strings, and tuples, lists and dicts of
    these. Raises BadTask, naming the example, for anything else.
    """
    content = hashlib.sha256()
    for index in range(len(examples)):
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
