"""What a task's collate makes: tensors in nests of tuples, lists and mappings."""

import copy
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def each_tensor(
    batch: Any, change: Callable[[Tensor], Any], others: Callable[[Any], Any] = lambda other: other
) -> Any:
    """The same nest of tuples, lists and mappings, with every tensor changed, and all else as it is unless
    `others` changes it.
    """
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        # Copies of dict and UserDict, such as transformers' BatchEncoding, share nothing with them.
        items = {key: each_tensor(item, change, others) for key, item in batch.items()}
        same = copy.copy(batch) if isinstance(batch, dict | UserDict) else {}
        same.update(items)
        return same
    if isinstance(batch, tuple | list):
        members = [each_tensor(item, change, others) for item in batch]
        if hasattr(batch, "_fields"):  # a named tuple
            return type(batch)(*members)
        return type(batch)(members)
    return others(batch)


def leaves(batch: Any) -> list[Tensor]:
    """The batch's tensors, in the order of `each_tensor`."""
    found: list[Tensor] = []
    each_tensor(batch, found.append)
    return found


def joined(parts: Sequence[Any]) -> Any:
    """Nests that are `alike`, as one: their tensors below each other, and all else as it is in the first."""
    columns = map(torch.cat, zip(*map(leaves, parts), strict=True))
    return each_tensor(parts[0], lambda _: next(columns))


def packing(batch: Any) -> str | None:
    """What a batch holds that cannot be copied to a device or gathered row by row, if anything."""
    if isinstance(batch, PackedSequence):
        return "a PackedSequence"
    if isinstance(batch, Tensor) and batch.layout != torch.strided:
        return f"a tensor of layout {batch.layout}"
    members = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, Mapping | tuple | list):
        return next(filter(None, map(packing, members)), None)
    return None


def alike(first: Any, other: Any, size: int) -> bool:
    """Whether two batches differ in nothing but the content of tensors with one row per example."""
    try:
        same = bool(_forms(first) == _forms(other))
    except (ValueError, RuntimeError):  # numpy and torch refuse to say whether arrays are equal
        return False
    return same and all(leaf.shape[:1] == (size,) for leaf in leaves(other))


def shapes(batch: Any) -> list[tuple[torch.dtype, torch.Size]]:
    """Of the batch's tensors, in the order of `each_tensor`."""
    return [(leaf.dtype, leaf.shape) for leaf in leaves(batch)]


def _forms(batch: Any) -> Any:
    """The batch with a dtype, a shape and strides in place of each tensor."""
    return each_tensor(batch, lambda tensor: (tensor.dtype, tensor.shape, tensor.stride()))
