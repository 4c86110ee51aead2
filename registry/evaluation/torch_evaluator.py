"""Scores recipes with torch: one live module, and batches that stay on the device."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from registry.entities import EvaluationProtocol, Outcome, Recipe, Score, Trial, short
from registry.errors import BadTask, NotFinite
from registry.evaluation.batches import Split, each_tensor
from registry.evaluation.device import reproducible
from registry.evaluation.module_weights import named_tensors

if TYPE_CHECKING:
    from registry.evaluation.torch_bench import TorchBench


class TorchEvaluator:
    """Scores recipes on one split, in batches of fixed size and order: always in full."""

    def __init__(self, bench: "TorchBench", split: Split, protocol: EvaluationProtocol) -> None:
        self.protocol = protocol
        self._bench = bench
        self._split = split

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:  # noqa: ARG002 - nothing to prepare yet
        """Score each trial; outcomes in the trials' order. Raises BadTask or Incompatible.

        A soup whose weights overflow, of ingredients that are finite, scores NaN: no method accepts it.
        """
        return [self._score(trial.recipe) for trial in trials]

    def _score(self, recipe: Recipe) -> Score:
        task, where = self._bench.task, f"split {self._split.name!r}, recipe {short(recipe.digest)}"
        try:
            module = self._bench.holding(recipe)
        except NotFinite:
            if not recipe.is_soup:
                raise
            return Score((math.nan,) * self.protocol.n)
        batches, size, parts = self._batches, self.protocol.batch_size, []
        with reproducible(self._bench.device), torch.inference_mode(), _unchanged(module, where):
            for place, batch in enumerate(batches):
                span = f"examples {place * size} to {min((place + 1) * size, self.protocol.n) - 1} of {where}"
                # A copy: a model may change its input in place, and the next recipe needs it as it was.
                parts.append(task.scores(module, each_tensor(batch, Tensor.clone), size, span))
        scores = torch.cat(parts)[: self.protocol.n].tolist()
        task.check_bounds(scores, where)
        return Score(tuple(scores))

    @cached_property
    def _batches(self) -> list[Any]:
        """Made once, kept on the device."""
        size, where = self.protocol.batch_size, f"split {self._split.name!r}"
        batches = []
        with reproducible(self._bench.device):
            for start in range(0, self.protocol.n, size):
                examples = self._split.padded(start, size)
                batch = self._bench.task.collate(examples, f"{where}, examples from {start}")
                batches.append(each_tensor(batch, lambda tensor: tensor.to(self._bench.device)))
        return batches


@contextmanager
def _unchanged(module: nn.Module, where: str) -> Iterator[None]:
    """Raises BadTask for a module that carries something from one pass to the next in its tensors."""
    before = {name: (tensor, _version(tensor)) for name, tensor in named_tensors(module).items()}
    yield
    for name, tensor in named_tensors(module).items():
        known, version = before.get(name, (None, 0))
        if tensor is not known or _version(tensor) != version:
            raise BadTask(
                f"the model changes {name} while it predicts, {where}",
                mend="make it stateless in evaluation mode: scores must not depend on what was scored before",
            )


def _version(tensor: Tensor) -> int:
    """How often it was changed in place; made in inference mode, it does not tell."""
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch documents it in its notes on autograd
