"""Experts that answer together, each as much as an example is near to its domain.

Source: Gururangan et al., "Scaling Expert Language Models with Unsupervised Domain Discovery" (2023), c-BTM,
section 2.3: the share of an expert is proportional to exp(-d^2 / T), d the Euclidean distance between the
features of the text so far and the center of the expert's cluster; the k greatest are kept. Here a center is
the mean of the domain's held-out examples, in place of one that k-means found.

That is the paper's formula. Its code (github.com/kernelmachine/cbtm, `metaseq/sequence_scorer_btm.py`)
squares what its k-means returns (kernelmachine/balanced-kmeans, `pairwise_distance`), which is squared
already.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TEMPERATURE = 0.1
"""T, by default in c-BTM's code as well, whose features have length one."""


def nearness(features: "Floats", known: "Floats", domains: Sequence[Sequence[int]]) -> "Floats":
    """How near each example is to each domain: ``[examples, domains]``, shares that add up to one.

    `features`: of the examples, ``[examples, dimensions]``. `known`: of others, of which these `domains` are
    some, by their places, at least one each.
    """
    import numpy as np

    centers = [known[[*places]].mean(axis=0) for places in domains]
    squared = np.stack([np.square(features - center).sum(axis=1) for center in centers], axis=1)
    # Less that of the nearest one, which changes no share: else all would be zero, far from all.
    shares = np.exp((squared.min(axis=1, keepdims=True) - squared) / TEMPERATURE)
    found: Floats = shares / shares.sum(axis=1, keepdims=True)
    return found


def nearest(shares: "Floats", k: int) -> "Floats":
    """Of each example only the `k` greatest shares, of equal ones the first, as they relate to each other."""
    import numpy as np

    kept = np.zeros_like(shares)
    places = np.argsort(-shares, axis=1, kind="stable")[:, :k]
    np.put_along_axis(kept, places, np.take_along_axis(shares, places, axis=1), axis=1)
    found: Floats = kept / kept.sum(axis=1, keepdims=True)
    return found
