"""Language models that answer together at each position, each with its share."""

import numpy as np
import torch
from torch import Tensor

from stockpot.evaluation.outputs import Floats


class Mixture:
    """Of several experts, one by one: how likely their mean by shares finds each position. On the CPU."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        """Log likelihoods so far, ``[examples, positions]``."""

    def add(self, logs: Tensor, shares: Floats) -> None:
        """An expert's ``[examples, positions]``, and its share of each example. Without a share it has no
        part, whatever it says, NaN included.
        """
        share = torch.from_numpy(np.ascontiguousarray(shares))[:, None]
        part = torch.where(share > 0, share.log() + logs, -torch.inf)
        self._total = part if self._total is None else torch.logaddexp(self._total, part)

    def sums(self) -> Floats:
        """Of each example, over its positions. Raises ValueError before anything was added."""
        if self._total is None:
            raise ValueError("a mixture of nothing")
        sums: Floats = self._total.sum(dim=1).numpy()
        return sums
