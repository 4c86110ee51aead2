"""A task on a device, with one live module: makes the evaluators of its splits."""

import copy
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import nn

from registry.entities import Digest, EvaluationProtocol, Recipe, TensorSpec
from registry.evaluation.batches import Split
from registry.evaluation.checked_task import CheckedTask
from registry.evaluation.device import device_model
from registry.evaluation.live_module import Checkpoints, LiveModule
from registry.evaluation.module_weights import architecture_of, fits, named_tensors
from registry.evaluation.torch_evaluator import TorchEvaluator
from registry.ports import Task


class TorchBench:
    """A task on a device: makes evaluators, which share one live module.

    `identity` is the task's name and version; `checkpoints` hands out weights. Nothing is
    evaluated, and no batch is made, before an evaluator is asked. Every method raises BadTask where the
    task breaks its contract, an unknown or empty split included.
    """

    def __init__(
        self,
        task: Task,
        *,
        identity: tuple[str, str],
        task_args: Mapping[str, str],
        checkpoints: Checkpoints,
        device: torch.device,
    ) -> None:
        self.device = device
        self.task = CheckedTask(task, identity[0])
        self._identity = identity
        self._task_args = tuple(sorted(task_args.items()))
        self._checkpoints = checkpoints
        self._splits: dict[str, Split] = {}

    @property
    def architecture(self) -> tuple[TensorSpec, ...]:
        """The tensors of the task's model under their canonical names."""
        return architecture_of(self._module)

    def fits(self, tensors: Sequence[TensorSpec]) -> tuple[str, ...]:
        """How a checkpoint's tensors differ from what the task's model takes; empty if they fit."""
        return fits(self._module, tensors)

    def evaluator(self, split: str) -> TorchEvaluator:
        """Scores recipes on this split. Names the split's content, which may read every example."""
        examples = self._split(split).examples
        protocol = EvaluationProtocol(
            task=self._identity[0],
            task_version=self._identity[1],
            task_args=self._task_args,
            split=split,
            dataset=self.task.digest(split, examples),
            n=len(examples),
            dtype=_float_dtypes(self._module),
            tf32=False,
            batch_size=self.task.batch_size,
            device=device_model(self.device),
            torch_version=torch.__version__,
        )
        return TorchEvaluator(self, self._split(split), protocol)

    def groups(self, split: str) -> tuple[Hashable, ...] | None:
        """The origin of each example, where the task tells."""
        return self.task.groups(split, len(self._split(split).examples))

    def example(self, split: str, n: int) -> Any:
        """The model's input for the split's first `n` examples, padded like a batch, on the CPU."""
        examples = self._split(split).padded(0, n)
        return self.task.inputs(self.task.collate(examples, f"split {split!r}, examples from 0"))

    def module_with(self, recipe: Recipe) -> nn.Module:
        """A fresh module with the recipe's weights, on the CPU, in evaluation mode. Raises Incompatible."""
        live = set(map(id, named_tensors(self._module).values()))
        module = self.task.model()
        # A task may hand out the same module every time. Not every module can be copied: only that one is.
        if not live.isdisjoint(map(id, named_tensors(module).values())):
            module = copy.deepcopy(module)
        return LiveModule(module.cpu(), self._checkpoints, torch.device("cpu")).hold(recipe)

    def holding(self, recipe: Recipe, *, anew: bool = False) -> nn.Module:
        """The live module with the recipe's weights. Raises Incompatible.

        `anew`: made of its ingredients alone, and of nothing that was kept from the recipes before.
        """
        if anew:
            self._live.forget()
        return self._live.hold(recipe).eval()

    def prepare(self, checkpoint: Digest) -> None:
        """Say that the next recipe likely ends in this checkpoint: loaded ahead of time. Never fails."""
        self._live.prepare(checkpoint)

    @cached_property
    def _live(self) -> LiveModule:
        return LiveModule(self._module, self._checkpoints, self.device)

    @cached_property
    def _module(self) -> nn.Module:
        return self.task.model().to(self.device)

    def _split(self, name: str) -> Split:
        if name not in self._splits:
            self._splits[name] = Split(name, self.task.examples(name))
        return self._splits[name]


def _float_dtypes(module: nn.Module) -> str:
    """Such as "float32"; several are joined by "+" where a module mixes them."""
    tensors = chain(module.parameters(), module.buffers())
    return "+".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()}))
