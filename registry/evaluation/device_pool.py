"""Several devices that evaluate one task."""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch

from registry.entities import EvaluationProtocol, Outcome, Recipe, Score, TensorSpec, Trial
from registry.errors import DeviceLost
from registry.evaluation.device_faults import is_lost
from registry.evaluation.device_threads import DeviceThreads
from registry.evaluation.speculation import SpeculatingEvaluator

if TYPE_CHECKING:
    from torch import nn

    from registry.evaluation.torch_bench import TorchBench


class DevicePool:
    """A bench over one `TorchBench` per device, each with a task object and a live module of its own.

    Its evaluators share the devices: a call of one interrupts what another left running. `keep` is given
    each completed score that nobody asked for, and `say` what a person should know. Close it, or use it
    in a ``with``.
    """

    def __init__(
        self,
        benches: "Sequence[TorchBench]",
        *,
        keep: Callable[[Recipe, EvaluationProtocol, Score], object] = lambda _recipe, _protocol, _score: None,
        say: Callable[[str], None] = lambda _message: None,
    ) -> None:
        self._benches = tuple(benches)
        self._keep = keep
        self._say = say
        self._intra_op_threads = torch.get_num_threads()
        self._evaluators: list[SpeculatingEvaluator] = []
        names = [str(bench.device) for bench in benches]
        self._threads = DeviceThreads(names, lost=is_lost, prepare=self._prepare, say=say)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def architecture(self) -> tuple[TensorSpec, ...]:
        """The tensors of the task's model under their canonical names."""
        return self._at_rest.architecture

    @property
    def wasted(self) -> int:
        """Evaluations that were begun and turned out to be needless."""
        return sum(evaluator.wasted for evaluator in self._evaluators)

    def fits(self, tensors: Sequence[TensorSpec]) -> tuple[str, ...]:
        """How a checkpoint's tensors differ from what the task's model takes; empty if they fit."""
        return self._at_rest.fits(tensors)

    def evaluator(self, split: str, *, plain: bool = False) -> SpeculatingEvaluator:
        """Scores recipes on this split, on all devices. Raises BadRequest where those differ."""
        self._threads.rest()
        evaluators = [bench.evaluator(split, plain=plain) for bench in self._benches]
        protocol = evaluators[0].protocol

        def keep(recipe: Recipe, score: Score) -> None:
            if not plain:
                self._keep(recipe, protocol, score)

        self._evaluators.append(SpeculatingEvaluator(evaluators, self._threads, keep=keep))
        return self._evaluators[-1]

    def ensemble(self, recipe: Recipe, split: str) -> Score | None:
        """What the ingredients score as an ensemble, where all devices remember outputs in one place."""
        return self._at_rest.ensemble(recipe, split)

    def halve_batch(self) -> tuple[int, int] | None:
        """Halve every device's batch. Returns its size before and after; None where it is one example."""
        self._threads.rest()
        first, *_ = [bench.halve_batch() for bench in self._benches]
        return first

    def groups(self, split: str) -> tuple[Hashable, ...] | None:
        """The origin of each example, where the task tells."""
        return self._at_rest.groups(split)

    def example(self, split: str, n: int) -> Any:
        """The model's input for the split's first `n` examples, padded like a batch, on the CPU."""
        return self._at_rest.example(split, n)

    def module_with(self, recipe: Recipe) -> "nn.Module":
        """A fresh module with the recipe's weights, on the CPU, in evaluation mode. Raises Incompatible."""
        return self._at_rest.module_with(recipe)

    def close(self) -> None:
        """Interrupt what is running, end the threads, and tell how many evaluations were needless."""
        self._threads.close()
        for evaluator in self._evaluators:
            evaluator.settle()
        if self.wasted:
            self._say(f"{self.wasted} evaluations were begun ahead of time on free devices and not needed")

    @property
    def _at_rest(self) -> "TorchBench":
        """The first device's bench, while its thread does not use it."""
        self._threads.rest()
        return self._benches[0]

    def _prepare(self, device: int) -> None:
        # A thread that torch has not met computes with a number of threads of its own choice: sums would
        # be taken in another order than on one device.
        torch.set_num_threads(self._intra_op_threads)
        if self._benches[device].device.type == "cuda":
            torch.cuda.set_device(self._benches[device].device)
