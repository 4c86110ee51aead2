"""A split as batches of fixed shape on a device."""

import copy
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Split:
    """A split's examples, in their fixed order."""

    name: str
    examples: Sequence[Any]

    def padded(self, start: int, size: int) -> list[Any]:
        """`size` examples from `start` on; where the split ends, its last one is repeated."""
        read = [self.examples[i] for i in range(start, min(start + size, len(self.examples)))]
        return read + read[-1:] * (size - len(read))


def each_tensor(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of tuples, lists and mappings, with every tensor changed and all else as it is."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        # Copies of dict and UserDict, such as transformers' BatchEncoding, share nothing with them.
        items = {key: each_tensor(item, change) for key, item in batch.items()}
        same = copy.copy(batch) if isinstance(batch, dict | UserDict) else {}
        same.update(items)
        return same
    if isinstance(batch, tuple | list):
        members = [each_tensor(item, change) for item in batch]
        if hasattr(batch, "_fields"):  # a named tuple
            return type(batch)(*members)
        return type(batch)(members)
    return batch
