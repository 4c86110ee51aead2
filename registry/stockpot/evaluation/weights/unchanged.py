"""A module that is the same after a pass as before it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stockpot.errors import BadTask
from stockpot.evaluation.weights.module_weights import named_tensors


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
