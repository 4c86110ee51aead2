"""Whether a model whose weights were swapped answers by the new ones."""

import torch
from torch import Tensor

SLIGHT = 0.01
"""Of what the two recipes' own answers differ by: far below what a part that keeps old weights would cost."""
_CLEAR = 4.0
"""Two recipes differ so many times more than rounding may make answers differ: then it can be judged."""


def swapped(live: Tensor, fresh: Tensor, before: Tensor) -> bool | None:
    """Whether `live` answers as `fresh` does and not as `before`; None where these differ too little to tell.

    `live`: what the model says whose weights were swapped; `fresh`: what one made anew says with the same
    weights; `before`: what one made anew says with those that the first one held earlier. Other kernels may
    round otherwise, so that equal bits are not asked for.
    """
    off, apart, rounding = _off(live, fresh), _apart(fresh, before), rounding_of(fresh)
    if off > max(SLIGHT * apart, rounding):
        return False
    if off <= SLIGHT * apart and apart > 0:
        return True
    return True if apart >= _CLEAR * rounding > 0 else None


def rounding_of(outputs: Tensor) -> float:
    """How much other kernels may change one of these outputs, or, of classes, how large a share of them."""
    if not outputs.is_floating_point():
        return SLIGHT
    finite = outputs[outputs.isfinite()].abs()
    greatest = float(finite.amax()) if len(finite) else 0.0
    return greatest * min(SLIGHT, 256 * torch.finfo(outputs.dtype).eps)


def _off(one: Tensor, other: Tensor) -> float:
    """The greatest difference of an output, infinite for NaN; of classes, the share that differs."""
    if one.shape != other.shape:
        return float("inf")
    differences = _differences(one, other)
    return float(differences.nan_to_num(float("inf"), float("inf")).amax()) if len(differences) else 0.0


def _apart(one: Tensor, other: Tensor) -> float:
    """The same, of numbers alone: 0 for outputs that cannot be compared."""
    if one.shape != other.shape:
        return 0.0
    finite = _differences(one, other)
    finite = finite[finite.isfinite()]
    return float(finite.amax()) if len(finite) else 0.0


def _differences(one: Tensor, other: Tensor) -> Tensor:
    if not one.is_floating_point():
        return (one != other).double().mean().reshape(1)
    one, other = one.double().reshape(-1), other.double().reshape(-1)
    same = (one == other) | (one.isnan() & other.isnan())
    return (one - other).abs().masked_fill(same, 0.0)
