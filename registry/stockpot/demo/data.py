"""The digits images that scikit-learn ships, split and shifted, in one ``.npz``.

Nothing here was picked by looking at a score on the test images or on a shifted set. Where a choice
needed a score (how strong a shift is), it was made on shifted *validation* images.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

Images = np.ndarray[Any, np.dtype[np.float32]]
"""``[n, 1, 8, 8]``, from 0 (paper) to 1 (ink)."""
Labels = np.ndarray[Any, np.dtype[np.int64]]

SHARES = MappingProxyType({"pretrain": 0.20, "finetune": 0.25, "validation": 0.25, "test": 0.30})
"""Of the 1,797 images; ``validation`` selects, ``test`` reports."""
SEED = 0
COPIES = 3
"""Shifted versions of each test image, each with its own draw."""


def write_digits(path: Path) -> None:
    """Write every split and shifted set for `stockpot.tasks.arrays.ArrayClassification`, atomically.

    The content is the same each time. Raises ImportError without scikit-learn (the extra ``demo``).
    """
    splits = load_splits()
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, (x, y) in splits.items():
        arrays |= {f"{name}_x": x, f"{name}_y": y}
    x, y = splits["test"]
    for name in SHIFTS:
        arrays |= {
            f"{name}_x": shifted(name, x),
            f"{name}_y": np.tile(y, COPIES),
            # Copies of an image are no independent evidence: intervals resample images.
            f"{name}_group": np.tile(np.arange(len(y)), COPIES),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(unfinished, allow_pickle=False, **arrays)
    unfinished.replace(path)


def load_splits() -> Mapping[str, tuple[Images, Labels]]:
    """Deal the images out, disjoint, each digit in the same proportions."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images[:, None] / 16).astype(np.float32)
    y = digits.target.astype(np.int64)
    rng = np.random.default_rng(SEED)
    bounds = np.cumsum(list(SHARES.values()))[:-1]
    dealt: list[list[Any]] = [[] for _ in SHARES]
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(y == digit))
        for hand, part in zip(
            dealt, np.split(members, np.round(bounds * len(members)).astype(int)), strict=True
        ):
            hand.append(part)
    parts = [rng.permutation(np.concatenate(hand)) for hand in dealt]
    return {name: (x[part], y[part]) for name, part in zip(SHARES, parts, strict=True)}


def shifted(name: str, x: Images) -> Images:
    """All copies of these images under one of `SHIFTS`: ``[COPIES * n, 1, 8, 8]``, copy by copy."""
    rng = np.random.default_rng([SEED, list(SHIFTS).index(name)])
    moved = [SHIFTS[name](image[0], rng) for _ in range(COPIES) for image in x]
    clipped: Images = np.clip(np.stack(moved)[:, None], 0, 1).astype(np.float32)
    return clipped


def _noise(image: Any, rng: np.random.Generator) -> Any:
    return image + rng.normal(0, rng.uniform(0.2, 0.5), image.shape)


def _blur(image: Any, rng: np.random.Generator) -> Any:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, rng.uniform(0.6, 1.2))


def _rotation(image: Any, rng: np.random.Generator) -> Any:
    from scipy.ndimage import rotate

    return rotate(image, rng.choice([-1, 1]) * rng.uniform(10, 35), reshape=False, order=1)


def _contrast(image: Any, rng: np.random.Generator) -> Any:
    return image * rng.uniform(0.15, 0.5) + rng.uniform(0, 0.5)


def _occlusion(image: Any, rng: np.random.Generator) -> Any:
    top, left = rng.integers(0, 6, 2)
    hidden = image.copy()
    hidden[top : top + 3, left : left + 3] = 0
    return hidden


SHIFTS: Mapping[str, Callable[[Any, np.random.Generator], Any]] = MappingProxyType(
    {"noise": _noise, "blur": _blur, "rotation": _rotation, "contrast": _contrast, "occlusion": _occlusion}
)
