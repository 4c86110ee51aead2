"""Whether a model answers by the weights that it was given, and keeps them while it does."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stockpot.errors import BadTask
from stockpot.evaluation.weights.module_weights import named_tensors

_SLIGHT = 0.01
"""Of what the two recipes' own answers differ by: far below what a part that keeps old weights would cost."""
_CLEAR = 4.0
"""Two recipes differ so many times more than rounding may make answers differ: then it can be judged."""


@contextmanager
def unchanged(module: nn.Module, where: str) -> Iterator[None]:
    """Raises BadTask for a module that carries something from one pass to the next in its tensors."""
    before = {name: (tensor, _place(tensor)) for name, tensor in named_tensors(module).items()}
    yield
    for name, tensor in named_tensors(module).items():
        known, place = before.get(name, (None, None))
        if tensor is not known or _place(tensor) != place:
            raise BadTask(
                f"the model changes {name} while it predicts, {where}",
                mend="make it stateless in evaluation mode: scores must not depend on what was scored before",
            )


def _place(tensor: Tensor) -> tuple[int, torch.dtype, int]:
    """Where it lies, since ``.data`` may be set to another tensor, and how often it was changed in place,
    which it does not tell if it was made in inference mode.
    """
    version = 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch documents it in its notes on autograd
    return tensor.data_ptr(), tensor.dtype, version


def swapped(live: Tensor, fresh: Tensor, before: Tensor) -> bool | None:
    """Whether `live` answers as `fresh` does and not as `before`; None where these differ too little to tell.

    `live`: what the model says whose weights were swapped; `fresh`: what one made anew says with the same
    weights; `before`: what one made anew says with those that the first one held earlier. Other kernels may
    round otherwise, so that equal bits are not asked for.
    """
    off, apart = _difference(live, fresh, unlike=float("inf")), _difference(fresh, before, unlike=0.0)
    rounding = _rounding(fresh)
    if off > max(_SLIGHT * apart, rounding):
        return False
    if off <= _SLIGHT * apart and apart > 0:
        return True
    return True if apart >= _CLEAR * rounding > 0 else None


def _rounding(outputs: Tensor) -> float:
    """How much other kernels may change one of these outputs, or, of classes, how large a share of them."""
    if not outputs.is_floating_point():
        return _SLIGHT
    finite = outputs[outputs.isfinite()].abs()
    greatest = float(finite.amax()) if len(finite) else 0.0
    return greatest * min(_SLIGHT, 256 * torch.finfo(outputs.dtype).eps)


def _difference(one: Tensor, other: Tensor, *, unlike: float) -> float:
    """The greatest difference of an output; of classes, the share that differs. `unlike`: that of outputs
    which cannot be subtracted, as another shape, or NaN and a number.
    """
    if one.shape != other.shape:
        return unlike
    if one.is_floating_point():
        one, other = one.double().reshape(-1), other.double().reshape(-1)
        same = (one == other) | (one.isnan() & other.isnan())
        differences = (one - other).abs().masked_fill(same, 0.0)
    else:
        differences = (one != other).double().mean().reshape(1)
    return float(differences.nan_to_num(unlike, unlike).amax()) if len(differences) else 0.0
