"""A task's models on a device: the live one, whose weights are swapped, and others made anew beside it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn

from stockpot.entities import Composition, Recipe, short
from stockpot.errors import BadTask, NoRoomForWeights, OutOfDeviceMemory
from stockpot.evaluation.devices.device import choose_device, seeded
from stockpot.evaluation.devices.device_faults import device_blamed
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.running_statistics import RunningStatistics, lay
from stockpot.evaluation.weights.live_module import LiveModule
from stockpot.evaluation.weights.module_weights import named_tensors
from stockpot.evaluation.weights.plain_weights import put_plainly
from stockpot.evaluation.weights.proofs import swapped
from stockpot.ports import Checkpoints


class TaskModels:
    """Puts recipes' weights into a task's models. `say` is told what could not be compared.

    Every method raises BadTask where the task breaks its contract, Incompatible for weights that do not fit,
    NoRoomForWeights where the device has no room for them, and DeviceLost.
    """

    def __init__(
        self,
        task: CheckedTask,
        checkpoints: Checkpoints,
        device: str | torch.device | None,
        say: Callable[[str], None],
        statistics: "RunningStatistics",
    ) -> None:
        self._task = task
        self._checkpoints = checkpoints
        self._named = device
        self._say = say
        self._statistics = statistics
        self._first_held: Recipe | None = None
        self._proven = False
        """Whether the module's answers were compared with another's, for two recipes that differ."""

    @cached_property
    def device(self) -> torch.device:
        """Where the live model is."""
        return choose_device(self._named)

    @cached_property
    def module(self) -> nn.Module:
        """The live one."""
        with self._weighing("as the task's model was moved there"):
            return _staying_flat(self.made.to(self.device))

    def holding(self, recipe: Recipe, count: Callable[[], None] = lambda: None) -> nn.Module:
        """The live module with the recipe's weights. `count` is told each batch that statistics take."""
        with self._weighing(f"putting the weights of recipe {short(recipe.digest)} into the model"):
            module = self._live.hold(recipe.average).eval()
        if recipe.overlay is not None:
            self._live.forget_held()
            lay(self._statistics.of(recipe, module, count), module)
        return module

    def made_anew(self, recipe: Recipe, count: Callable[[], None] = lambda: None) -> nn.Module:
        """Another module with the recipe's weights, by their definition: of nothing that was kept from the
        recipes before, and without the hot swap. The live one, where the task hands out but one.
        """
        module = self._average_anew(recipe)
        if recipe.overlay is not None:
            lay(self._statistics.of(recipe, module, count, fresh=True), module)
        return module

    def _average_anew(self, recipe: Recipe) -> nn.Module:
        with self._weighing(f"putting the weights of recipe {short(recipe.digest)} into another model"):
            module = self._another()
            if module is None:
                self._live.forget()
                module = self.module
            return self._loaded(module, recipe)

    def on_cpu(self, recipe: Recipe) -> nn.Module:
        """A fresh module with the recipe's weights, on the CPU, in evaluation mode."""
        module = self._made()
        # Not every module can be copied: only one that the task hands out again is.
        if self._is_held(module):
            module = copy.deepcopy(module)
        live = LiveModule(module.cpu().train(), self._checkpoints, torch.device("cpu"))
        return self._with_statistics(live.hold(recipe.average).eval(), recipe)

    def _with_statistics(self, module: nn.Module, recipe: Recipe) -> nn.Module:
        if recipe.overlay is not None:
            lay(self._statistics.known(recipe), module)
        return module

    def prepare(self, recipe: Composition) -> None:
        """Say that this is likely evaluated next: its weights are loaded ahead of time. Never fails."""
        self._live.prepare(recipe if isinstance(recipe, Recipe) else recipe.members[-1])

    def prove_swap(self, recipe: Recipe, answers: Callable[[nn.Module], Tensor], where: str) -> None:
        """That the live module, whose weights were swapped, answers as one made anew does.

        Asked for each recipe after the first one, until one differs enough from the first to tell.
        `answers`: what a module says to some batch. Raises BadTask for a model that keeps something of the
        weights before: a value derived from them, or adapters merged into them.
        """
        first = self._first_held = self._first_held or recipe
        if self._proven or first == recipe:
            return
        try:
            with device_blamed(self.device, where):
                same = self._swapped(first, recipe, answers)
        except OutOfDeviceMemory:
            self._proven = True
            self._say(f"{self.device} has no room for another model beside the live one to compare it with")
            return
        self._proven = same is not None
        if same is False:
            raise BadTask(
                f"with the same weights, the task's model answers otherwise than one that Task.model() makes "
                f"anew, {where}",
                mend="make model() build the same model each time, and let the model keep nothing that was "
                "made of weights it held before: no cached tensors, no adapters merged in eval(). Where that "
                "is so already, Stockpot is at fault",
            )

    def _swapped(self, first: Recipe, recipe: Recipe, answers: Callable[[nn.Module], Tensor]) -> bool | None:
        """As `swapped`; True also for a model that never answers the same twice: no fault of the swap."""
        fresh, before = (self._fresh(each, answers) for each in (recipe, first))
        if fresh is None or before is None:
            return True
        same = swapped(answers(self.module), fresh, before)
        if same is False and swapped(answers(self.module), answers(self.module), before) is False:
            return True
        return same

    def _fresh(self, recipe: Recipe, answers: Callable[[nn.Module], Tensor]) -> Tensor | None:
        """What a model made anew says; None where the task hands out but one."""
        another = self._another()
        return (
            None if another is None else answers(self._with_statistics(self._loaded(another, recipe), recipe))
        )

    def _loaded(self, module: nn.Module, recipe: Recipe) -> nn.Module:
        """As people load weights: first those, then evaluation mode, either of which may derive something."""
        put_plainly(module.train(), recipe.average, self._checkpoints)
        with self._task.blame("load_state_dict() of its model"):
            module.load_state_dict(module.state_dict(), strict=False)  # for hooks that make something of them
            return module.eval()

    def _another(self) -> nn.Module | None:
        """On the device; None where the task hands out but one."""
        module = self._made()
        return None if self._is_held(module) else _staying_flat(module.to(self.device))

    def _is_held(self, module: nn.Module) -> bool:
        """Whether the live weights are in it."""
        live = set(map(id, named_tensors(self.module).values()))
        return not live.isdisjoint(map(id, named_tensors(module).values()))

    @cached_property
    def _live(self) -> LiveModule:
        module = self.module
        with device_blamed(self.device, "before the first weights"):
            return LiveModule(module, self._checkpoints, self.device, self._say)

    @cached_property
    def made(self) -> nn.Module:
        """The live one, perhaps not on the device yet."""
        with device_blamed(torch.device("cpu"), "as the task's model was made"):
            return self._made()

    def _made(self) -> nn.Module:
        """As the task makes it. What no checkpoint holds may be drawn at random: the same each time."""
        with seeded():
            return self._task.model()

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
