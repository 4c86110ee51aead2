"""A model's inputs and outputs: one tensor, or tensors in a tuple, list or dict; arrays likewise."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

TOLERANCE = {torch.float64: (1e-7, 1e-8), torch.float16: (1e-2, 1e-2), torch.bfloat16: (5e-2, 5e-2)}
TOLERANCE_FP32 = (1e-4, 1e-5)
"""Relative and absolute, by the outputs' dtype. Export reorders sums, and no more."""

LARGE_IMAGE = 1 << 16
"""Pixels."""
BATCH_SIZES = (1, 7)
"""At which outputs are compared: one example, and a number that nothing was traced with."""


def arrays(tree: Any) -> Any:
    """NumPy has no bfloat16: it becomes float32."""
    return _mapped(lambda t: (t.float() if t.dtype == torch.bfloat16 else t).detach().cpu().numpy(), tree)


def tensors(tree: Any) -> Any:
    """Tensors from arrays."""
    return _mapped(torch.from_numpy, tree)


def rows(tree: Any, count: int) -> Any:
    """The first `count` examples, over again from the first where there are fewer."""
    return _mapped(lambda leaf: leaf[np.arange(count) % len(leaf)], tree)


def shortened(tree: Any) -> Any | None:
    """The same with each example one shorter: a text by a token. None unless all arrays are equally long."""
    lengths = {leaf.shape[1] if leaf.ndim > 1 else 0 for leaf in leaves(tree)}
    return _mapped(lambda leaf: leaf[:, :-1], tree) if len(lengths) == 1 and max(lengths) > 1 else None


def resized(tree: Any) -> Any | None:
    """Two examples of another height and width: larger, or a part of large ones, which would take long. None
    unless all arrays are of images, ``[n, channels, height, width]``.
    """
    if not all(leaf.ndim == 4 and min(leaf.shape[2:]) > 1 for leaf in leaves(tree)):
        return None
    return _mapped(_resized, rows(tree, 2))


def _resized(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[2:]
    if height * width > LARGE_IMAGE:
        return images[:, :, : height // 2, : width * 3 // 4]
    return np.tile(images, (1, 1, 2, 3))


def call(model: nn.Module, batch: Any) -> Any:
    """The model's outputs: a tuple is passed by position, a dict by name."""
    with torch.inference_mode():
        if isinstance(batch, Mapping):
            return model(**batch)
        return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def agree(found: Any, wanted: Any) -> bool:
    """Whether outputs are the same within the tolerance of their dtype."""
    left, right = leaves(found), leaves(wanted)
    return len(left) == len(right) and all(map(_close, left, right))


def _close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    rtol, atol = TOLERANCE.get(wanted.dtype, TOLERANCE_FP32)
    return torch.allclose(found, wanted, rtol=rtol, atol=atol, equal_nan=True)


def leaves(tree: Any) -> list[Any]:
    """The tensors or arrays, in their order."""
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    return [leaf for value in tree for leaf in leaves(value)] if isinstance(tree, tuple | list) else [tree]


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _mapped(function, value) for name, value in tree.items()}
    return tuple(_mapped(function, v) for v in tree) if isinstance(tree, tuple | list) else function(tree)
