"""The digits images that scikit-learn ships, split, scanned badly, and shifted, in one ``.npz``.

A model that was pre-trained on clean images is fine-tuned on few bad scans. That leaves room for a better
model, as a real sweep does. How bad the scans are was chosen with one fine-tune in the middle of the search's
ranges, by its accuracy on *validation* images: 89 %. No score on a test image or on a shifted set had a part
in any choice.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

Images = np.ndarray[Any, np.dtype[np.float32]]
"""``[n, 1, 8, 8]``, from 0 (paper) to 1 (ink)."""
Labels = np.ndarray[Any, np.dtype[np.int64]]

SHARES = MappingProxyType({"pretrain": 0.15, "finetune": 0.15, "validation": 0.30, "test": 0.40})
"""Of the 1,797 images; ``validation`` selects, ``test`` reports. Labels are few where models are trained."""
SCANS = MappingProxyType({"finetune": 1, "validation": 3, "test": 3})
"""How often each image of a split is scanned, each time with draws of its own. Scans of one image are no
independent evidence: they form a group, and intervals take them together."""
SEED = 0


def write_digits(path: Path) -> None:
    """Write every split and shifted set for `stockpot.tasks.arrays.ArrayClassification`, atomically.

    The content is the same each time. Raises ImportError without scikit-learn (the extra ``demo``).
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for split in ("validation", "test"):
        x, y, origin = scanned(split)
        arrays |= {f"{split}_x": x, f"{split}_y": y, f"{split}_group": origin}
    for name in SHIFTS:
        arrays |= {f"{name}_x": shifted(name, x), f"{name}_y": y, f"{name}_group": origin}
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


def scanned(split: str) -> tuple[Images, Labels, Labels]:
    """Bad scans of a split's images, ``[scans * n, 1, 8, 8]``, scan by scan; labels; each one's image."""
    x, y = load_splits()[split]
    rng = np.random.default_rng([SEED, list(SHARES).index(split)])
    copies = SCANS[split]
    scans = [_scan(image[0], rng) for _ in range(copies) for image in x]
    return _images(scans), np.tile(y, copies), np.tile(np.arange(len(y)), copies)


def shifted(name: str, x: Images) -> Images:
    """These images under one of `SHIFTS`, in their order."""
    rng = np.random.default_rng([SEED, len(SHARES) + list(SHIFTS).index(name)])
    return _images([SHIFTS[name](image[0], rng) for image in x])


def _images(pictures: Sequence[Any]) -> Images:
    clipped: Images = np.clip(np.stack(pictures)[:, None], 0, 1).astype(np.float32)
    return clipped


def _scan(image: Any, rng: np.random.Generator) -> Any:
    """A little turned, blurred, pale, grey and noisy."""
    from scipy.ndimage import gaussian_filter, rotate

    turned = rotate(image, rng.uniform(-12, 12), reshape=False, order=1)
    pale = gaussian_filter(turned, rng.uniform(0, 0.36)) * rng.uniform(0.76, 1) + rng.uniform(0, 0.12)
    return pale + rng.normal(0, rng.uniform(0.06, 0.21), image.shape)


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
