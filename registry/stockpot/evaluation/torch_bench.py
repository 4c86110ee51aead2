"""A task on a device, with one live module: makes the evaluators of its splits."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from stockpot.entities import (
    Conditions,
    Digest,
    EvaluationProtocol,
    Question,
    Recipe,
    Score,
    SourceIdentity,
    TensorSpec,
    digest_of_bytes,
    short,
)
from stockpot.errors import OutOfDeviceMemory
from stockpot.evaluation.devices.device import compute_with, device_model, software
from stockpot.evaluation.devices.device_faults import device_blamed
from stockpot.evaluation.ensemble import ensemble_score
from stockpot.evaluation.jackknife import blocks
from stockpot.evaluation.outputs import RememberedOutputs
from stockpot.evaluation.passes.batches import Batches, Split
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.task_models import TaskModels
from stockpot.evaluation.torch_evaluator import TorchEvaluator
from stockpot.evaluation.weights.module_weights import architecture_of, fits
from stockpot.ports import Checkpoints, Task

T = TypeVar("T")


class TorchBench:
    """A task on a device: makes evaluators, which share one live module.

    `identity` is the task's name and version, `source` its code, `task_args` its arguments as the question
    names them, which are asked for when a split was opened; `checkpoints` hands out weights.
    `outputs` remembers completed passes: several benches may share it. `say` is told, once each, what stands
    in the way of exact early rejection. `device` is a name of torch's; without it CUDA where there is one. It
    is opened for the first evaluator; nothing is evaluated, and no batch is made, before one is asked. Every
    method raises BadTask where the task breaks its contract, an unknown or empty split included,
    and DeviceLost where the device cannot be used any more.
    """

    def __init__(
        self,
        task: Task,
        *,
        identity: tuple[str, str],
        source: SourceIdentity = SourceIdentity(),  # noqa: B008 - frozen
        task_args: Mapping[str, str],
        checkpoints: Checkpoints,
        device: str | torch.device | None = None,
        outputs: RememberedOutputs | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._tell = say
        self._said: set[str] = set()
        self.task = CheckedTask(task, identity[0])
        self._identity = identity
        self._source = source
        self._task_args = task_args
        self.models = TaskModels(self.task, checkpoints, device, self.say)
        self.outputs = outputs or RememberedOutputs()
        self._splits: dict[str, Split] = {}
        self._batches: dict[str, Batches] = {}
        self._evaluators: dict[tuple[str, bool, bool], TorchEvaluator] = {}
        self._threads = torch.get_num_threads()
        self._halvings = 0
        self._passes = 0.0
        """By evaluators that are gone."""

    @property
    def device(self) -> torch.device:
        """Opened when it is first asked for."""
        return self.models.device

    @property
    def architecture(self) -> tuple[TensorSpec, ...]:
        """The tensors of the task's model under their canonical names."""
        return architecture_of(self.models.made)

    @property
    def passes(self) -> float:
        """Forward work of all its evaluators so far, in full passes over a split."""
        return self._passes + sum(evaluator.passes for evaluator in self._evaluators.values())

    def heed(self, recipe: Recipe, protocol: Digest, score: Score) -> None:
        """Let a score that was measured elsewhere, or earlier, help to foresee those of later trials."""
        if score.gaps is not None:
            self.outputs.hint(recipe.digest, protocol, score.examples, score.gaps)

    def fits(self, tensors: Sequence[TensorSpec]) -> tuple[str, ...]:
        """How a checkpoint's tensors differ from what the task's model takes; empty if they fit."""
        return fits(self.models.made, tensors)

    def evaluator(self, split: str, *, compared: bool = True, plain: bool = False) -> TorchEvaluator:
        """Scores recipes on this split; the same one each time.

        `compared`: a metric of the whole split has the replicates of the jackknife. `plain`: always in full, in order, on batches made anew for each pass, from weights set anew without
        the hot swap, and remembering nothing: what every faster way must agree with. Names the split's
        content, which may read every example.
        """
        compared &= self.task.measures_whole  # else it makes no difference
        key = split, compared, plain
        if key not in self._evaluators:
            other = self._evaluators.get((split, compared, not plain))
            protocol = other.protocol if other is not None else self._protocol(split, compared=compared)
            batches = self._made_batches(split, fresh=True) if plain else self._batches_of(split)
            self._evaluators[key] = TorchEvaluator(self, batches, protocol, compared=compared, plain=plain)
        return self._evaluators[key]

    def ensemble(self, recipe: Recipe, split: str, *, compared: bool = True) -> Score | None:
        """What the recipe's ingredients score as an ensemble: the mean of their outputs, no forward pass.

        None where the outputs of one are not remembered, or cannot be averaged.
        """
        evaluator = self.evaluator(split, compared=compared)
        protocol = evaluator.protocol.digest
        alone = [Recipe.mean([checkpoint]).digest for checkpoint in recipe.checkpoints]
        passes = [self.outputs.get(digest, protocol, outputs=True) for digest in alone]
        outputs = [known.outputs for known in passes if known is not None and known.outputs is not None]
        if len(outputs) < len(alone):
            return None
        where = f"split {split!r}, the ensemble of recipe {short(recipe.digest)}"
        batches = self._batches_of(split)
        return self.on_device(
            lambda: ensemble_score(self.task, batches, outputs, self.device, where, evaluator.whole), where
        )

    def on_device(self, work: Callable[[], T], where: str) -> T:
        """Do this work; where it does not fit the device, once more with no batches kept there.

        Raises OutOfDeviceMemory where it does not fit then, and DeviceLost.
        """
        compute_with(self._threads)
        try:
            with device_blamed(self.device, where):
                return work()
        except OutOfDeviceMemory:
            if not sum(batches.let_go() for batches in self._batches.values()):
                raise
        with device_blamed(self.device, where):
            self._free_blocks()
            done = work()
        self.say(f"{self.device} has no room to keep batches: they are made again for each pass")
        return done

    def say(self, sentence: str) -> None:
        """Tell whoever listens, once."""
        if self._tell is not None and sentence not in self._said:
            self._said.add(sentence)
            self._tell(sentence)

    @property
    def batch_size(self) -> int:
        """Examples that are evaluated at a time."""
        return max(1, self.task.batch_size >> self._halvings)

    def halve_batch(self) -> None:
        """Make the evaluators that are opened from now on take half as many examples at a time, or one."""
        self._halvings += 1
        self._passes = self.passes
        self._batches.clear()
        self._evaluators.clear()
        self._free_blocks()  # in the sizes of the larger batches

    def groups(self, split: str) -> tuple[Hashable, ...] | None:
        """The origin of each example, where the task tells."""
        return self.task.groups(split, len(self._split(split).examples))

    def example(self, split: str, n: int) -> Any:
        """The model's input for the split's first `n` examples, padded like a batch, on the CPU."""
        examples = self._split(split).padded(0, n)
        return self.task.inputs(self.task.collate(examples, f"split {split!r}, examples from 0"))

    def module_with(self, recipe: Recipe) -> nn.Module:
        """A fresh module with the recipe's weights, on the CPU, in evaluation mode. Raises Incompatible."""
        return self.models.on_cpu(recipe)

    def _free_blocks(self) -> None:
        """Give back what torch keeps of memory that it does not use."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _protocol(self, split: str, *, compared: bool) -> EvaluationProtocol:
        examples = self._split(split).examples
        question = Question(
            task=self._identity[0],
            task_version=self._identity[1] + self._measuring(split, compared=compared),
            split=split,
            dataset=self.task.digest(split, examples),
            # Last, so that what the task downloads or makes when it opens its examples is there.
            task_args=tuple(sorted(self._task_args.items())),
            n=len(examples),
            modules=self._source.modules,
            distributions=self._source.distributions,
        )
        conditions = Conditions(
            dtype=_float_dtypes(self.models.module),
            tf32=False,
            batch_size=self.batch_size,
            device=self._computing,
            torch_version=torch.__version__,
            software=software(self.device),
        )
        return EvaluationProtocol(question, conditions)

    def _measuring(self, split: str, *, compared: bool) -> str:
        """What a metric adds to the task's version: what an older release scored by the mean, or a base class
        measures now, is another protocol; so are other blocks of the jackknife, which groups decide, and none.
        """
        if not self.task.measures_whole:
            return ""
        if not compared:
            return "+metric-value"
        groups = self.groups(split)
        if groups is None:
            return "+metric"
        content = repr(blocks(len(groups), groups)).encode()
        return f"+metric-{short(digest_of_bytes(content))}"

    @property
    def _computing(self) -> str:
        """What the protocol calls the device; a metric of the whole split is computed on the CPU."""
        devices = [self.device]
        if self.task.measures_whole and self.device.type != "cpu":
            devices.append(torch.device("cpu"))
        return ", metric on ".join(device_model(device, self._threads) for device in devices)

    def _batches_of(self, split: str) -> Batches:
        if split not in self._batches:
            self._batches[split] = self._made_batches(split)
        return self._batches[split]

    def _made_batches(self, split: str, *, fresh: bool = False) -> Batches:
        return Batches(self._split(split), self.batch_size, self.task, self.device, fresh=fresh)

    def _split(self, name: str) -> Split:
        if name not in self._splits:
            self._splits[name] = Split(name, self.task.examples(name))
        return self._splits[name]


def _float_dtypes(module: nn.Module) -> str:
    """Such as "float32"; several are joined by "+" where a module mixes them."""
    tensors = chain(module.parameters(), module.buffers())
    return "+".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()}))
