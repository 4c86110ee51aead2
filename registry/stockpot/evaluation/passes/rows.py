"""Rows of a large tensor that most metrics never look at."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from stockpot.evaluation.passes.tensor_nests import each_tensor


class Rows(Tensor):
    """Some rows of a tensor on the CPU, picked when they are first looked at: a copy then, in all respects a
    tensor. Until then it has no memory: code that does not go through torch finds nothing, and says so.
    """

    def __new__(cls, shape: Sequence[int], dtype: torch.dtype, pick: Callable[[], Tensor]) -> Self:  # noqa: ARG004, D102 - `pick` is for __init__
        return Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=dtype)  # noqa: SLF001 - torch documents it

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, pick: Callable[[], Tensor]) -> None:  # noqa: ARG002 - for __new__
        self._pick = pick

    @cached_property
    def _picked(self) -> Tensor:
        return self._pick()

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return func(*each_tensor(args, _plain), **each_tensor(kwargs or {}, _plain))

    # torch insists on it; what comes through Python does not get as far.
    __torch_dispatch__ = __torch_function__  # type: ignore[assignment]  # torch leaves out `func`


def _plain(tensor: Tensor) -> Tensor:
    return tensor._picked if isinstance(tensor, Rows) else tensor  # noqa: SLF001 - its own
