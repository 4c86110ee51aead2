"""Several devices that evaluate one task."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from stockpot.entities import Digest, EvaluationProtocol, Outcome, Recipe, Score, TensorSpec, Trial
from stockpot.errors import DeviceLost
from stockpot.evaluation.devices.device_faults import device_blamed, is_lost
from stockpot.evaluation.speculation.device_threads import DeviceThreads
from stockpot.evaluation.speculation.speculating_evaluator import SpeculatingEvaluator
from stockpot.prose import counted

if TYPE_CHECKING:
    from torch import nn

    from stockpot.evaluation.torch_bench import TorchBench


@dataclass(frozen=True)
class _Gone:
    """In the place of an evaluator whose device is gone: its thread has ended, and nobody asks it."""

    protocol: EvaluationProtocol

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        """Raises DeviceLost."""
        raise DeviceLost(f"a device that is gone was asked for {len([*trials, *then])} outcomes")


class DevicePool:
    """A bench over one `TorchBench` per device, each with a task object and a live module of its own.

    Its evaluators share the devices: a call of one interrupts what another left running. `keep` is given
    each completed score that nobody asked for, and `say` what a person should know. Close it, or use it
    in a ``with``. Once a device is gone, the others do what it would have done: every method but `close`
    raises DeviceLost where none is left.
    """

    def __init__(
        self,
        benches: "Sequence[TorchBench]",
        *,
        keep: Callable[[Recipe, EvaluationProtocol, Score], object] = lambda _recipe, _protocol, _score: None,
        say: Callable[[str], None] = lambda _message: None,
    ) -> None:
        self._benches = tuple(benches)
        for place, bench in enumerate(self._benches):
            bench.keep_apart(self._benches[:place])
        self._keep = keep
        self._say = say
        self._evaluators: list[SpeculatingEvaluator] = []
        self._wasted = 0
        """By evaluators that are gone."""
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
        return self._wasted + sum(evaluator.wasted for evaluator in self._evaluators)

    @property
    def passes(self) -> float:
        """Forward work on all devices so far, in full passes over a split."""
        return sum(bench.passes for bench in self._benches)

    def heed(self, recipe: Recipe, protocol: Digest, score: Score) -> None:
        """Let a score that was measured elsewhere, or earlier, help to foresee those of later trials."""
        for bench in self._benches:
            bench.heed(recipe, protocol, score)

    def fits(self, tensors: Sequence[TensorSpec]) -> tuple[str, ...]:
        """How a checkpoint's tensors differ from what the task's model takes; empty if they fit."""
        return self._at_rest.fits(tensors)

    def evaluator(self, split: str, *, plain: bool = False) -> SpeculatingEvaluator:
        """Scores recipes on this split, on all devices. Raises BadRequest where those differ."""
        self._threads.rest()
        opened = {place: self._benches[place].evaluator(split, plain=plain) for place in self._threads.left()}
        protocol = next(iter(opened.values())).protocol
        evaluators = [opened.get(place, _Gone(protocol)) for place in range(len(self._benches))]

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
        self._let_go_of_evaluators()  # of the larger batches, which they keep on every device
        first, *_ = [self._benches[place].halve_batch() for place in self._threads.left()]
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
        self._let_go_of_evaluators()
        if self.wasted:
            self._say(
                f"begun ahead of time on free devices, and not needed: {counted(self.wasted, 'evaluation')}"
            )

    def _let_go_of_evaluators(self) -> None:
        for evaluator in self._evaluators:
            evaluator.settle()
        self._wasted = self.wasted
        self._evaluators = []

    @property
    def _at_rest(self) -> "TorchBench":
        """The bench of the first device that is not gone, while no thread uses it."""
        self._threads.rest()
        return self._benches[self._threads.left()[0]]

    def _prepare(self, device: int) -> None:
        of = self._benches[device].device
        if of.type == "cuda":
            with device_blamed(of, "before an evaluation"):
                torch.cuda.set_device(of)
