"""A task on a device, with one live module: makes the evaluators of its splits."""

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from registry.entities import Digest, EvaluationProtocol, Recipe, Score, TensorSpec, digest_of_bytes, short
from registry.errors import BadTask, NoRoomForWeights, OutOfDeviceMemory
from registry.evaluation.devices.device import compute_with, device_model, seeded
from registry.evaluation.devices.device_faults import device_blamed
from registry.evaluation.ensemble import ensemble_score
from registry.evaluation.jackknife import blocks
from registry.evaluation.outputs import RememberedOutputs
from registry.evaluation.passes.batches import Batches, Split
from registry.evaluation.passes.checked_task import CheckedTask
from registry.evaluation.torch_evaluator import TorchEvaluator
from registry.evaluation.weights.live_module import Checkpoints, LiveModule
from registry.evaluation.weights.module_weights import architecture_of, fits, named_tensors
from registry.evaluation.weights.plain_weights import put_plainly
from registry.ports import Task

T = TypeVar("T")
SLIGHT = 0.01
"""Of the greatest output: far above what rounding does, 16 bits included, far below what other weights do."""


class TorchBench:
    """A task on a device: makes evaluators, which share one live module.

    `identity` is the task's name and version; `checkpoints` hands out weights. `outputs` remembers
    completed passes: several benches may share it. `say` is told, once each, what stands in the way of
    exact early rejection. Nothing is evaluated, and no batch is made, before an evaluator is asked. Every
    method raises BadTask where the task breaks its contract, an unknown or empty split included, and
    DeviceLost where the device cannot be used any more.
    """

    def __init__(
        self,
        task: Task,
        *,
        identity: tuple[str, str],
        task_args: Mapping[str, str],
        checkpoints: Checkpoints,
        device: torch.device,
        outputs: RememberedOutputs | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.device = device
        self.task = CheckedTask(task, identity[0])
        self._identity = identity
        self._task_args = tuple(sorted(task_args.items()))
        self._checkpoints = checkpoints
        self.outputs = outputs or RememberedOutputs()
        self._tell = say
        self._said: set[str] = set()
        self._splits: dict[str, Split] = {}
        self._batches: dict[str, Batches] = {}
        self._evaluators: dict[tuple[str, bool], TorchEvaluator] = {}
        self._threads = torch.get_num_threads()
        self._first_held: Digest | None = None
        self._proven = False
        """Whether a second recipe was held, and the module's answers compared with another's."""
        self._lone = False
        """Whether the task hands out one model again and again, which another bench holds."""
        self._batch_size: int | None = None
        """None: the task's own."""

    @property
    def architecture(self) -> tuple[TensorSpec, ...]:
        """The tensors of the task's model under their canonical names."""
        return architecture_of(self._module)

    def fits(self, tensors: Sequence[TensorSpec]) -> tuple[str, ...]:
        """How a checkpoint's tensors differ from what the task's model takes; empty if they fit."""
        return fits(self._module, tensors)

    def evaluator(self, split: str, *, plain: bool = False) -> TorchEvaluator:
        """Scores recipes on this split; the same one each time.

        `plain`: always in full, in order, on batches made anew for each pass, from weights set anew without
        the hot swap, and remembering nothing: what every faster way must agree with. Names the split's
        content, which may read every example.
        """
        if (split, plain) not in self._evaluators:
            other = self._evaluators.get((split, not plain))
            protocol = other.protocol if other is not None else self._protocol(split)
            batches = self._made_batches(split, fresh=True) if plain else self._batches_of(split)
            self._evaluators[split, plain] = TorchEvaluator(self, batches, protocol, plain=plain)
        return self._evaluators[split, plain]

    def ensemble(self, recipe: Recipe, split: str) -> Score | None:
        """What the recipe's ingredients score as an ensemble: the mean of their outputs, no forward pass.

        None where the outputs of one are not remembered, or cannot be averaged.
        """
        evaluator = self.evaluator(split)
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

    def halve_batch(self) -> tuple[int, int] | None:
        """Make the evaluators that are opened from now on take half of the examples at a time.

        Returns the numbers before and after; None, with nothing changed, where it is one example already.
        """
        before = self._batch_size or self.task.batch_size
        if before == 1:
            return None
        self._batch_size = before // 2
        self._batches.clear()
        self._evaluators.clear()
        self._free_blocks()  # in the sizes of the larger batches
        return before, self._batch_size

    def groups(self, split: str) -> tuple[Hashable, ...] | None:
        """The origin of each example, where the task tells."""
        return self.task.groups(split, len(self._split(split).examples))

    def example(self, split: str, n: int) -> Any:
        """The model's input for the split's first `n` examples, padded like a batch, on the CPU."""
        examples = self._split(split).padded(0, n)
        return self.task.inputs(self.task.collate(examples, f"split {split!r}, examples from 0"))

    def module_with(self, recipe: Recipe) -> nn.Module:
        """A fresh module with the recipe's weights, on the CPU, in evaluation mode. Raises Incompatible."""
        module = self._seeded_model()
        # A task may hand out the same module every time. Not every module can be copied: only that one is.
        if self._lone or self._shares(module):
            module = copy.deepcopy(module)
        return LiveModule(module.cpu().train(), self._checkpoints, torch.device("cpu")).hold(recipe).eval()

    def holding(self, recipe: Recipe, *, anew: bool = False) -> nn.Module:
        """The live module with the recipe's weights. Raises Incompatible, and NoRoomForWeights.

        `anew`: another module, made anew where the task hands out more than one, of nothing that was kept
        from the recipes before, and without the hot swap.
        """
        with self._weighing(f"putting the weights of recipe {short(recipe.digest)} into the model"):
            if not anew:
                return self._live.hold(recipe).eval()
            module = self._made_anew()
            if module is None:
                self._live.forget()
                module = self._module
            return self._loaded(module, recipe)

    def prove_swap(self, recipe: Recipe, answers: Callable[[nn.Module], Tensor], where: str) -> None:
        """Once, when the live module holds its second recipe: that it answers as one made anew does.

        `answers`: what a module says to some batch. Raises BadTask for a model that keeps something of the
        weights before: a value derived from them, or adapters merged into them.
        """
        if self._proven or self._first_held in (None, recipe.digest):
            self._first_held = recipe.digest
            return
        self._proven = True
        try:
            with device_blamed(self.device, where):
                same = self._answers_as_one_made_anew(recipe, answers)
        except OutOfDeviceMemory:
            self.say(f"{self.device} has no room for another model beside the live one to compare it with")
            return
        if not same:
            raise BadTask(
                f"task {self._identity[0]}: with the same weights, the model answers otherwise than one that "
                f"Task.model() makes anew, {where}",
                mend="make model() build the same model each time, and let the model keep nothing that was "
                "made of weights it held before: no cached tensors, no adapters merged in eval(). Where that "
                "is so already, Stockpot is at fault",
            )

    def _answers_as_one_made_anew(self, recipe: Recipe, answers: Callable[[nn.Module], Tensor]) -> bool:
        """True also for a model that never answers the same twice: that is not the swap's fault."""
        fresh = self._made_anew()
        if fresh is None:
            return True
        live = answers(self._module)
        return _close(live, answers(self._loaded(fresh, recipe))) or not _close(live, answers(self._module))

    def _loaded(self, module: nn.Module, recipe: Recipe) -> nn.Module:
        """As people load weights: first those, then evaluation mode, either of which may derive something."""
        put_plainly(module.train(), recipe, self._checkpoints)
        with self.task.blame("load_state_dict() of its model"):
            module.load_state_dict(module.state_dict(), strict=False)  # for hooks that make something of them
            return module.eval()

    def _made_anew(self) -> nn.Module | None:
        """Another model of the task's, on the device; None where it hands out but one."""
        if self._lone or self._shares(module := self._seeded_model()):
            return None
        return _staying_flat(module.to(self.device))

    def keep_apart(self, others: "Sequence[TorchBench]") -> None:
        """Give this bench a model of its own, where its task hands out that of another bench.

        Before anything else is asked of it: one module cannot hold two recipes' weights.
        """
        taken = {id(tensor) for other in others for tensor in named_tensors(other._model).values()}  # noqa: SLF001  # of its own class
        if not taken.isdisjoint(map(id, named_tensors(self._model).values())):
            self._model = copy.deepcopy(self._model)
            self._lone = True

    def prepare(self, checkpoint: Digest) -> None:
        """Say that the next recipe likely ends in this checkpoint: loaded ahead of time. Never fails."""
        self._live.prepare(checkpoint)

    @cached_property
    def _live(self) -> LiveModule:
        module = self._module
        with device_blamed(self.device, "before the first weights"):
            return LiveModule(module, self._checkpoints, self.device)

    @cached_property
    def _model(self) -> nn.Module:
        """As the task makes it: not on the device yet."""
        with device_blamed(self.device, "as the task's model was made"):
            return self._seeded_model()

    def _seeded_model(self) -> nn.Module:
        """As the task makes it. What no checkpoint holds may be drawn at random: the same each time."""
        with seeded():
            return self.task.model()

    def _shares(self, module: nn.Module) -> bool:
        """Whether it has a tensor of the live module."""
        live = set(map(id, named_tensors(self._module).values()))
        return not live.isdisjoint(map(id, named_tensors(module).values()))

    @cached_property
    def _module(self) -> nn.Module:
        with self._weighing("as the task's model was moved there"):
            return _staying_flat(self._model.to(self.device))

    @contextmanager
    def _weighing(self, where: str) -> Iterator[None]:
        """Put something onto the device that is as large however small the batches are."""
        try:
            with device_blamed(self.device, where):
                yield
        except OutOfDeviceMemory as error:
            raise NoRoomForWeights(
                error.what,
                mend="name a device with more memory in STOCKPOT_DEVICE, or end what else uses this one",
            ) from error

    def _free_blocks(self) -> None:
        """Give back what torch keeps of memory that it does not use."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _protocol(self, split: str) -> EvaluationProtocol:
        examples = self._split(split).examples
        return EvaluationProtocol(
            task=self._identity[0],
            task_version=self._identity[1] + self._measuring(split),
            task_args=self._task_args,
            split=split,
            dataset=self.task.digest(split, examples),
            n=len(examples),
            dtype=_float_dtypes(self._module),
            tf32=False,
            batch_size=self._batch_size or self.task.batch_size,
            device=self._computing,
            torch_version=torch.__version__,
        )

    def _measuring(self, split: str) -> str:
        """What a metric adds to the task's version: what an older release scored by the mean, or a base class
        measures now, is another protocol; so are other blocks of the jackknife, which groups decide.
        """
        if not self.task.measures_whole:
            return ""
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
        size = self._batch_size or self.task.batch_size
        return Batches(self._split(split), size, self.task, self.device, fresh=fresh)

    def _split(self, name: str) -> Split:
        if name not in self._splits:
            self._splits[name] = Split(name, self.task.examples(name))
        return self._splits[name]


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether two models' outputs differ by no more than other kernels may make them differ."""
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return bool((one != other).double().mean() <= SLIGHT)
    one, other = one.double(), other.double()
    slight = SLIGHT * other[other.isfinite()].abs().amax() if other.isfinite().any() else 0.0
    same = (one == other) | (one.isnan() & other.isnan()) | ((one - other).abs() <= slight)
    return bool(same.all())


def _staying_flat(module: nn.Module) -> nn.Module:
    """`to` has made one block of each recurrent layer's weights, as cuDNN wants it.

    A model that does so again whenever it predicts would have its weights elsewhere each time.
    """
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters = _done_already  # type: ignore[method-assign]  # of this layer alone
    return module


def _done_already() -> None:
    pass


def _float_dtypes(module: nn.Module) -> str:
    """Such as "float32"; several are joined by "+" where a module mixes them."""
    tensors = chain(module.parameters(), module.buffers())
    return "+".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()}))
