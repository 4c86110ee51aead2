"""The canonical form of a checkpoint: names, order and header, so that equal weights are equal bytes.

The layout is that of the safetensors library (``serialize`` in ``safetensors/src/tensor.rs``): an
eight-byte little-endian length, a JSON header padded with spaces to a multiple of eight, then the
tensors by falling alignment of their dtype, by name within one dtype.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import MappingProxyType

from stockpot.entities import TensorSpec

ITEM_SIZES = MappingProxyType(
    {
        "U64": 8,
        "I64": 8,
        "F64": 8,
        "F32": 4,
        "U32": 4,
        "I32": 4,
        "BF16": 2,
        "F16": 2,
        "U16": 2,
        "I16": 2,
        "I8": 1,
        "U8": 1,
        "BOOL": 1,
    }
)
"""Bytes per element of every dtype that can be averaged or copied, in the order of the layout."""

FLOATS = frozenset({"F64", "F32", "BF16", "F16"})
"""The dtypes that are averaged; tensors of all others must agree."""

RESERVED_NAME = "__metadata__"
_METADATA = {"format": "pt"}
_ORDER = {dtype: place for place, dtype in enumerate(ITEM_SIZES)}
_WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel and DDP, torch.compile, Lightning


def byte_length(tensor: TensorSpec) -> int:
    """Bytes that the tensor's elements take."""
    return math.prod(tensor.shape) * ITEM_SIZES[tensor.dtype]


def in_layout_order(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The tensors in the order in which a canonical file holds them."""
    return tuple(sorted(tensors, key=lambda tensor: (_ORDER[tensor.dtype], tensor.name)))


def header_of(tensors: Sequence[TensorSpec]) -> bytes:
    """All that precedes the data in a canonical file. The tensors come in layout order."""
    entries: dict[str, object] = {RESERVED_NAME: _METADATA}
    begin = 0
    for tensor in tensors:
        end = begin + byte_length(tensor)
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    padded = text + b" " * (-len(text) % 8)
    return len(padded).to_bytes(8, "little") + padded


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """Map each name to the one without the wrappers' prefixes that all of the names carry.

    ``module.``, ``_orig_mod.`` and ``model.`` are taken off again and again, but only from all names
    at once, and never so that a name gets lost. The rule looks at nothing but the names: digests
    depend on it. A loader compares a module's names and a checkpoint's under this same mapping.
    """
    originals = stripped = list(names)
    while (prefix := _shared_wrapper(stripped)) is not None:
        stripped = [name.removeprefix(prefix) for name in stripped]
    return dict(zip(originals, stripped, strict=True))


def canonical_tensors(tensors: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The tensors under their canonical names, by name."""
    names = canonical_names(tensor.name for tensor in tensors)
    renamed = (replace(tensor, name=names[tensor.name]) for tensor in tensors)
    return tuple(sorted(renamed, key=lambda tensor: tensor.name))


def _shared_wrapper(names: Sequence[str]) -> str | None:
    for prefix in _WRAPPERS:
        unusable = (prefix, prefix + RESERVED_NAME)
        if names and all(name.startswith(prefix) and name not in unusable for name in names):
            return prefix
    return None
