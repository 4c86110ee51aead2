"""A model that is served by other code, in the place of a task's module."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stockpot.errors import Incompatible
from stockpot.ports import Served

ROUNDING = 1e-3
"""By which probabilities may add up to another number than one."""


class Named(dict[str, Tensor]):
    """Outputs by name, also as attributes: as models of transformers give theirs."""

    def __getattr__(self, name: str) -> Tensor:
        if name in self:
            return self[name]
        raise AttributeError(f"it predicts {', '.join(self) or 'nothing'}, and no {name}")


class ServedModule(nn.Module):
    """Asks the served model whatever the task asks its own. `own`: what that one says to the first batch,
    if it is one tensor. Where the served model gives probabilities, and the task's own none, their logarithms
    are given: what a softmax makes those probabilities of.

    `device`: where its answers are wanted. Raises Incompatible where questions are no arrays.
    """

    def __init__(self, served: Served, own: object, device: torch.device) -> None:
        super().__init__()
        self._served = served
        self._own = own if isinstance(own, Tensor) else None
        self._device = device
        self.gives_probabilities: bool | None = None
        """None before the first answer."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The answer to one array, or to several by their names; those without one are numbered."""
        named = {**{str(place): value for place, value in enumerate(args)}, **kwargs}
        if len(args) == 1 and not kwargs:
            asked = dict(args[0]) if isinstance(args[0], Mapping) else args[0]
        else:
            asked = named
        answer = self._served(
            {name: _array(value) for name, value in asked.items()}
            if isinstance(asked, dict)
            else _array(asked)
        )
        if isinstance(answer, Mapping):
            return Named({name: self._tensor(value) for name, value in answer.items()})
        return self._as_own(self._tensor(answer))

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array.copy()).to(self._device)  # a copy: what was read may not be written to

    def _as_own(self, answer: Tensor) -> Tensor:
        """The answer, whose shape is looked at where it is the first: then it is to the same batch."""
        if self.gives_probabilities is None and self._own is not None:
            require_alike(answer, self._own)
        found = are_probabilities(answer) and self._own is not None and not are_probabilities(self._own)
        if self.gives_probabilities is None:
            self.gives_probabilities = found
        if found is not self.gives_probabilities:
            raise Incompatible("it predicts probabilities for some examples, and for others none")
        return answer.clamp(min=torch.finfo(answer.dtype).tiny).log() if found else answer


def are_probabilities(outputs: Tensor) -> bool:
    """Whether each row is of two or more numbers that are not below zero and add up to one."""
    if outputs.ndim < 2 or outputs.shape[-1] < 2 or not outputs.is_floating_point():
        return False
    sums = outputs.sum(dim=-1)
    return bool((outputs >= 0).all() and ((sums - 1).abs() <= ROUNDING).all())


def require_alike(answer: Tensor, own: Tensor, *, same_batch: bool = True) -> Tensor:
    """The answer in the type of the own model's. Raises Incompatible where it is of another shape or another
    kind: whoever scores it may make something of it all the same. To another batch, lengths may be others.
    """
    shapes = answer.shape[1:] == own.shape[1:] if same_batch else answer.ndim == own.ndim
    if not shapes or answer.is_floating_point() != own.is_floating_point():
        raise Incompatible(f"its predictions are {_told(answer)}, and those of the task's model {_told(own)}")
    return answer.to(own.dtype)


def _told(tensor: Tensor) -> str:
    sizes = ", ".join(["n", *map(str, tensor.shape[1:])])
    return f"{str(tensor.dtype).removeprefix('torch.')} [{sizes}]"


def _array(value: object) -> Any:
    if not isinstance(value, Tensor):
        raise Incompatible(f"the task gives its model a {type(value).__name__}, which is no array")
    held = value.detach().cpu()
    return (held.float() if held.dtype == torch.bfloat16 else held).numpy()
