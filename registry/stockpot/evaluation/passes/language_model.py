"""A task's model as a function of token ids: what the task makes of it, and of others in its place."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stockpot.errors import BadTask
from stockpot.evaluation.devices.device import reproducible
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.served_module import Named
from stockpot.ports import Served

IDS = "input_ids"
"""What models of transformers call them."""
EXPORTED = 2
"""Examples that a model is exported with."""
CPU = torch.device("cpu")


class NextTokens(nn.Module):
    """From ids ``[n, t]`` to the logits of the token behind each, ``[n, t, vocabulary]``, whatever else the
    module takes and gives. `named`: whether it takes them by their name.
    """

    def __init__(self, module: nn.Module, *, named: bool) -> None:
        super().__init__()
        self.module = module
        self._named = named

    def forward(self, ids: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = logits_of(self.asked(ids))
        return logits

    def asked(self, ids: Tensor) -> Any:
        """What the module says to these ids."""
        return self.module(**{IDS: ids}) if self._named else self.module(ids)


def logits_of(said: Any) -> Any:
    """An answer itself, or what transformers calls its logits."""
    return said if isinstance(said, Tensor) else said.logits


class LanguageModel:
    """A task's module with weights, on the CPU, and some examples that it is asked about.

    Raises BadTask where it does not predict the next token from ids of tokens.
    """

    def __init__(self, task: CheckedTask, module: nn.Module, examples: Sequence[Any], where: str) -> None:
        self._task = task
        self._module = module
        self._examples = examples
        self._where = where
        inputs = task.inputs(self._batch([*examples][:EXPORTED]))
        named = isinstance(inputs, Mapping)
        ids = inputs.get(IDS) if isinstance(inputs, Mapping) else inputs
        if not isinstance(ids, Tensor) or ids.dtype != torch.int64 or ids.ndim != 2:
            raise self._other(f"its input is no tensor of ids, int64 [n, t], nor has one named {IDS}")
        self.ids = ids
        """Of the first examples, ``[n, t]``."""
        self.next_tokens = NextTokens(module, named=named).eval()
        with task.blame("the model", where), reproducible(CPU), torch.inference_mode():
            said = self.next_tokens.asked(ids)
            logits = logits_of(said)
        self._wraps = not isinstance(said, Tensor)
        if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != ids.shape:
            raise self._other("it does not give logits [n, t, vocabulary] for ids [n, t]")

    def log_likelihoods(self) -> tuple[float, ...]:
        """Of each of the examples, the sum over its positions."""
        return self._sums(self._module)

    def log_likelihoods_by(self, served: Served) -> tuple[float, ...]:
        """The same by a model that is served, takes ids alone, and answers the logarithms of probabilities.

        Raises Incompatible where it cannot be asked.
        """
        return self._sums(_InPlace(served, wraps=self._wraps).eval())

    def _sums(self, module: nn.Module) -> tuple[float, ...]:
        """Text by text: a vocabulary is large, and served models answer about all of it."""
        sums = []
        for example in self._examples:
            batch = self._batch([example])
            with reproducible(CPU), torch.inference_mode():
                outputs = self._task.outputs(module, batch, 1, self._where)
                logs = self._task.log_likelihoods(outputs, batch, 1, self._where)
            sums.append(float(logs.sum()))
        return tuple(sums)

    def _batch(self, examples: Sequence[Any]) -> Any:
        """Made anew: whoever gets one may change it."""
        return self._task.collate([*examples], self._where)

    def _other(self, what: str) -> BadTask:
        return BadTask(
            f"the task's model is none that predicts the next token: {what}",
            mend="serve one specialist alone: models:/NAME@challenger-DOMAIN",
        )


class _InPlace(nn.Module):
    """Stands where the task's module does. `wraps`: whether that one's logits are an attribute."""

    def __init__(self, served: Served, *, wraps: bool) -> None:
        super().__init__()
        self._served = served
        self._wraps = wraps
        self.nothing = nn.Parameter(torch.empty(0))  # a task may ask a model's first one where that is

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What it says to the ids alone."""
        first: Tensor = kwargs[IDS] if IDS in kwargs else args[0]
        logs = torch.from_numpy(self._served(first.numpy()).copy())  # what was read may not be written to
        return Named(logits=logs) if self._wraps else logs
