"""Scores recipes with torch: one live module, and batches that stay on the device."""

import copy
import math
from collections import UserDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from registry.entities import Digest, EvaluationProtocol, Outcome, Recipe, Score, TensorSpec, Trial, short
from registry.errors import BadTask, NotFinite
from registry.evaluation.checked_task import CheckedTask
from registry.evaluation.device import device_model, reproducible
from registry.evaluation.module_weights import architecture_of, fits, load_into
from registry.ports import Task

Weights = Callable[[Recipe], Iterable[tuple[str, Tensor]]]
"""The averaged tensors of a recipe, under canonical names."""


@dataclass(frozen=True)
class _Split:
    name: str
    examples: Sequence[Any]

    def padded(self, start: int, size: int) -> list[Any]:
        """`size` examples from `start` on; where the split ends, its last one is repeated."""
        read = [self.examples[i] for i in range(start, min(start + size, len(self.examples)))]
        return read + read[-1:] * (size - len(read))


class TorchBench:
    """A task on a device: makes evaluators, which share one live module.

    `identity` is the task's name and version; `weights` hands out a recipe's tensors. Nothing is
    evaluated, and no batch is made, before an evaluator is asked. Every method raises BadTask where the
    task breaks its contract, an unknown or empty split included.
    """

    def __init__(
        self,
        task: Task,
        *,
        identity: tuple[str, str],
        task_args: Mapping[str, str],
        weights: Weights,
        device: torch.device,
    ) -> None:
        self.device = device
        self.task = CheckedTask(task, identity[0])
        self._identity = identity
        self._task_args = tuple(sorted(task_args.items()))
        self._weights = weights
        self._splits: dict[str, _Split] = {}
        self._held: Digest | None = None

    @property
    def architecture(self) -> tuple[TensorSpec, ...]:
        """The tensors of the task's model under their canonical names."""
        return architecture_of(self._module)

    def fits(self, tensors: Sequence[TensorSpec]) -> tuple[str, ...]:
        """How a checkpoint's tensors differ from what the task's model takes; empty if they fit."""
        return fits(self._module, tensors)

    def evaluator(self, split: str) -> "TorchEvaluator":
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
        live = set(map(id, _named_tensors(self._module).values()))
        module = self.task.model()
        # A task may hand out the same module every time. Not every module can be copied: only that one is.
        if not live.isdisjoint(map(id, _named_tensors(module).values())):
            module = copy.deepcopy(module)
        load_into(module.cpu(), self._weights(recipe))
        return module

    def holding(self, recipe: Recipe) -> nn.Module:
        """The live module with the recipe's weights. Raises Incompatible."""
        if self._held != recipe.digest:
            self._held = None
            load_into(self._module, self._weights(recipe))
            self._held = recipe.digest
        return self._module.eval()

    @cached_property
    def _module(self) -> nn.Module:
        return self.task.model().to(self.device)

    def _split(self, name: str) -> _Split:
        if name not in self._splits:
            self._splits[name] = _Split(name, self.task.examples(name))
        return self._splits[name]


class TorchEvaluator:
    """Scores recipes on one split, in batches of fixed size and order: always in full."""

    def __init__(self, bench: TorchBench, split: _Split, protocol: EvaluationProtocol) -> None:
        self.protocol = protocol
        self._bench = bench
        self._split = split

    def evaluate(self, trials: Sequence[Trial]) -> list[Outcome]:
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
                parts.append(task.scores(module, _each_tensor(batch, Tensor.clone), size, span))
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
                batches.append(_each_tensor(batch, lambda tensor: tensor.to(self._bench.device)))
        return batches


@contextmanager
def _unchanged(module: nn.Module, where: str) -> Iterator[None]:
    """Raises BadTask for a module that carries something from one pass to the next in its tensors."""
    before = {name: (tensor, _version(tensor)) for name, tensor in _named_tensors(module).items()}
    yield
    for name, tensor in _named_tensors(module).items():
        known, version = before.get(name, (None, 0))
        if tensor is not known or _version(tensor) != version:
            raise BadTask(
                f"the model changes {name} while it predicts, {where}",
                mend="make it stateless in evaluation mode: scores must not depend on what was scored before",
            )


def _named_tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(chain(module.named_parameters(), module.named_buffers()))


def _version(tensor: Tensor) -> int:
    """How often it was changed in place; made in inference mode, it does not tell."""
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch documents it in its notes on autograd


def _each_tensor(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of tuples, lists and mappings, with every tensor changed and all else as it is."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        # Copies of dict and UserDict, such as transformers' BatchEncoding, share nothing with them.
        items = {key: _each_tensor(item, change) for key, item in batch.items()}
        same = copy.copy(batch) if isinstance(batch, dict | UserDict) else {}
        same.update(items)
        return same
    if isinstance(batch, tuple | list):
        members = [_each_tensor(item, change) for item in batch]
        if hasattr(batch, "_fields"):  # a named tuple
            return type(batch)(*members)
        return type(batch)(members)
    return batch


def _float_dtypes(module: nn.Module) -> str:
    """Such as "float32"; several are joined by "+" where a module mixes them."""
    tensors = chain(module.parameters(), module.buffers())
    return "+".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()}))
