"""A plain function as a task: ``score(model, split)`` in a module that makes the model, too."""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from stockpot.errors import BadTask, StockpotError
from stockpot.evaluation.devices.device_faults import is_out_of_memory
from stockpot.evaluation.passes.tensor_nests import each_tensor

MAKER = "make_model"
GIVEN = 2
"""Parameters of the function that are no arguments of the task: the model and the split."""

Example = tuple[str, int]
Batch = tuple[Tensor, str]


class FunctionTask:
    """What a function says of all examples of a split at once, as a task. Every evaluation is a full pass.

    The function takes the model, in evaluation mode on its device, and a split's name, and returns one score
    per example: a tensor, an array or a list of floats, higher is better, in a fixed order. It raises
    ValueError or KeyError for a split that does not exist. Beside it, its module has ``make_model()``, and
    may have ``version`` and ``unit`` as a task has, and ``digest(split)``, which names the split's content.

    When a split is opened, the function is called once with the model as it is made, from fixed random
    numbers: to learn how many examples there are, and what a model takes. Without ``digest`` these scores
    stand for the data. Where they would not change with it, change ``version``.
    """

    bounds: tuple[float, float] | None = None
    outputs_are_scores = True
    """Their mean over several models is no ensemble's answer: they are not kept for one."""
    version = "1"
    unit: str | None = None
    function: Callable[..., Any]
    """The user's; each one has a class of its own."""

    def __init__(self, **task_args: str) -> None:
        self._args = task_args
        self._opened: dict[str, list[float]] = {}
        self._inputs: Any = None
        self._scores = torch.empty(0, dtype=torch.float64)

    def model(self) -> nn.Module:
        """What the module's ``make_model()`` makes."""
        module: nn.Module = _beside(self.function, MAKER)()
        return module

    def examples(self, split: str) -> Sequence[Example]:
        """The places of the scores: nothing else is known of the examples."""
        if split not in self._opened:
            model = self.model().eval()
            with torch.inference_mode(), self._watching(model):
                self._opened[split] = self._called(model, split).tolist()
        return [(split, place) for place in range(len(self._opened[split]))]

    def digest(self, split: str) -> str:
        """The module's own, else the name of what a model without training scores."""
        own = _beside(self.function, "digest", None)
        if own is not None:
            return str(own(split))
        scores = repr((split, self._opened[split])).encode()
        return f"sha256:{hashlib.sha256(scores).hexdigest()}"

    def collate(self, examples: list[Example]) -> Batch:
        """Their places, and the split."""
        return torch.tensor([place for _, place in examples]), examples[0][0]

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The scores of these examples. The first batch of a pass calls the function, for all of them."""
        places, split = batch
        if places[0] == 0:
            self._scores = self._called(model, split)
            known = len(self._opened[split])
            if len(self._scores) != known:
                gave = f"{len(self._scores)} scores of split {split!r}, and {known} before"
                what = f"{_told(self.function)} gave {gave}"
                raise BadTask(what, mend="return one score per example, of the same examples each time")
        return self._scores.to(places.device)[places]

    def score(self, outputs: Tensor, batch: Batch) -> Tensor:  # noqa: ARG002 - all is said
        """The same."""
        return outputs

    def inputs(self, batch: Batch) -> Any:
        """What the function gave to the model first, of as many examples."""
        if self._inputs is None:
            raise BadTask(
                f"{_told(self.function)} does not call the model with tensors: what it takes is not known",
                mend="call model(...) itself, not its parts, with tensors whose rows are examples",
            )
        rows = torch.arange(len(batch[0]))
        return each_tensor(self._inputs, lambda tensor: tensor[rows.clamp(max=len(tensor) - 1)])

    def _called(self, model: nn.Module, split: str) -> Tensor:
        try:
            found = type(self).function(model, split, **self._args)
        except Exception as error:
            if isinstance(error, StockpotError | KeyError | ValueError) or is_out_of_memory(error):
                raise  # of an unknown split, or of the device
            what = f"{_told(self.function)} raised {type(error).__name__} for split {split!r}: {error}"
            raise BadTask(what, mend=f"mend {_told(self.function)}") from error
        scores = torch.as_tensor(found, dtype=torch.float64)
        if scores.ndim != 1:
            what = f"{_told(self.function)} returned scores of shape {list(scores.shape)} for split {split!r}"
            raise BadTask(what, mend="return one score per example: a tensor, an array or a list of floats")
        return scores

    @contextmanager
    def _watching(self, model: nn.Module) -> Iterator[None]:
        """Note what the model is called with first."""

        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = kwargs if not args else args[0] if len(args) == 1 else args
            if self._inputs is None and not (args and kwargs):
                self._inputs = each_tensor(given, lambda tensor: tensor.detach().cpu().clone())

        hook = model.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


def task_of(found: FunctionType) -> type[FunctionTask]:
    """The task's class that a function stands for.

    It is called as the function, in the function's module: scores are remembered under that name. Raises
    BadTask for a function that does not take a model and a split, or whose module makes no model.
    """
    _beside(found, MAKER)
    signature = inspect.signature(found)
    given = [*signature.parameters.values()]
    if len(given) < GIVEN or any(one.kind is not one.POSITIONAL_OR_KEYWORD for one in given[:GIVEN]):
        mend = f"write it as {found.__name__}(model, split), with the task's arguments behind"
        raise BadTask(f"{_told(found)} does not take a model and a split: {signature}", mend=mend)
    members = {
        "__module__": found.__module__,
        "__doc__": found.__doc__,
        "__signature__": signature.replace(parameters=given[GIVEN:]),
        "function": staticmethod(found),
        **{name: _beside(found, name, getattr(FunctionTask, name)) for name in ("version", "unit")},
    }
    return type(found.__name__, (FunctionTask,), members)


_NEEDED = object()


def _beside(function: Callable[..., Any], name: str, default: Any = _NEEDED) -> Any:
    """What the function's module has under this name."""
    found = getattr(sys.modules[function.__module__], name, default)
    if found is _NEEDED:
        raise BadTask(
            f"{_told(function)} stands for a task, but its module has no {name}()",
            mend=f"define {name}() beside it, which returns the architecture as a torch.nn.Module",
        )
    return found


def _told(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"
