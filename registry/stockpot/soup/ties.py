"""TIES: which elements of an update are large enough to stay. What is made of them is `arithmetic.averaged`.

Source: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (NeurIPS 2023), section 4:
the trim is over all of a model's parameters. PEFT trims each tensor by itself (`peft/utils/merge_utils.py`).
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stockpot.soup.canonical import FLOATS
from stockpot.soup.weights_file import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor

ONE_OF = 5
"""So many elements stay: the paper's 20 %."""
_HALF = 16  # bits of a float32 number that are looked at in each of two passes


def least_that_stays(model: WeightsFile, base: WeightsFile) -> float:
    """The least magnitude, as a float32 number, among the fifth of the update's elements with the largest.

    The files are in canonical form and of one layout. Reads both twice, and takes a few MiB of memory.
    """
    import torch

    count = sum(math.prod(spec.shape) for spec in base.tensors if spec.dtype in FLOATS)
    rank, upper = max(1, count // ONE_OF), 0
    if not count:
        return 0.0
    for shift in (_HALF, 0):
        counts = torch.zeros(1 << _HALF, dtype=torch.int64)
        for bits in _magnitudes(model, base):
            among = bits if shift else bits[bits >> _HALF == upper] & ((1 << _HALF) - 1)
            counts += torch.bincount(among >> shift, minlength=1 << _HALF)
        found, rank = _bin_of(rank, counts)
        upper = upper << _HALF | found if shift == 0 else found
    return torch.tensor(upper, dtype=torch.int32).view(torch.float32).item()


def _bin_of(rank: int, counts: "Tensor") -> tuple[int, int]:
    """Which bin holds the element of this rank, counted from the last bin's, and its rank there; from 1."""
    import torch

    above = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(above, rank))
    return len(counts) - 1 - place, rank - (int(above[place - 1]) if place else 0)


def _magnitudes(model: WeightsFile, base: WeightsFile) -> "Iterator[Tensor]":
    """Those of the update, part by part, as the bits of float32 numbers: these have the same order."""
    import torch

    from stockpot.soup.arithmetic import DTYPES, update_of

    for spec in base.tensors:
        if spec.dtype in FLOATS:
            for pair in zip(model.pieces(spec.name), base.pieces(spec.name), strict=True):
                one, start = (torch.frombuffer(piece, dtype=DTYPES[spec.dtype]) for piece in pair)
                yield update_of(one, start).abs().float().view(torch.int32)
