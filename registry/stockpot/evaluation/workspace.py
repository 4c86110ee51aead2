"""A task on a device: what the evaluators of its splits share."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from stockpot.entities import Digest, Recipe
from stockpot.errors import OutOfDeviceMemory
from stockpot.evaluation.devices.device import compute_with
from stockpot.evaluation.devices.device_faults import device_blamed
from stockpot.evaluation.outputs import OutputSum, RememberedOutputs
from stockpot.evaluation.passes.batches import Batches, Split
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.spread import Part, even, spread
from stockpot.evaluation.running_statistics import RunningStatistics
from stockpot.evaluation.task_models import TaskModels
from stockpot.ports import Checkpoints, Overlays

T = TypeVar("T")


class Workspace:
    """The task's models, its splits in batches, and the outputs that completed passes left behind."""

    def __init__(
        self,
        task: CheckedTask,
        checkpoints: Checkpoints,
        device: str | torch.device | None,
        outputs: RememberedOutputs,
        say: Callable[[str], None] | None,
        overlays: Overlays | None = None,
    ) -> None:
        self.task = task
        self.outputs = RememberedOutputs(bytes_per_example=0) if task.outputs_are_scores else outputs
        self.sums = OutputSum()
        """Of an ensemble's members, whatever the split: one of them is kept."""
        self.statistics = RunningStatistics(
            task, checkpoints, overlays or _InMemory(), lambda split, fresh: self.parts(split, fresh=fresh)
        )
        self.models = TaskModels(task, checkpoints, device, self.say, self.statistics)
        self.threads = torch.get_num_threads()
        """That compute on the CPU, whoever asks for it."""
        self._tell = say
        self._said: set[str] = set()
        self._splits: dict[str, Split] = {}
        self._batches: dict[tuple[str, Hashable], Batches] = {}
        """Of whole splits; of those parts of which statistics are estimated, by their first example; and of
        other parts, by the places of their examples.
        """
        self._halvings = 0

    @property
    def device(self) -> torch.device:
        """Opened when it is first asked for."""
        return self.models.device

    @property
    def batch_size(self) -> int:
        """Examples that are evaluated at a time."""
        return max(1, self.task.batch_size >> self._halvings)

    def say(self, sentence: str) -> None:
        """Tell whoever listens, once."""
        if self._tell is not None and sentence not in self._said:
            self._said.add(sentence)
            self._tell(sentence)

    def split(self, name: str) -> Split:
        """The split's examples, opened once."""
        if name not in self._splits:
            self._splits[name] = Split(name, self.task.examples(name))
        return self._splits[name]

    def batches(self, split: str, places: Sequence[int] | None = None, *, fresh: bool = False) -> Batches:
        """The batches of a split, or of its examples at some `places`: the same each time, unless they are to
        be made `fresh` for each pass.
        """
        examples = self.split(split)
        if places is not None:
            examples = Split(split, Part(examples.examples, places))
        if fresh:
            return Batches(examples, self.batch_size, self.task, self.device, fresh=True)
        return self._kept((split, places and tuple(places)), examples, self.batch_size)

    def parts(self, split: str, *, fresh: bool = False) -> list[Batches]:
        """The examples of which statistics are estimated, in batches that hold no example twice."""
        whole, begin, found = self.split(split), 0, []
        places = spread(len(whole.examples))
        for count, size in even(len(places), self.batch_size):
            end = begin + count * size
            part = Split(split, Part(whole.examples, places[begin:end]))
            found.append(
                Batches(part, size, self.task, self.device, fresh=True)
                if fresh
                else self._kept((split, begin), part, size)
            )
            begin = end
        return found

    def _kept(self, key: tuple[str, Hashable], split: Split, size: int) -> Batches:
        if key not in self._batches:
            self._batches[key] = Batches(split, size, self.task, self.device)
        return self._batches[key]

    def halve_batch(self) -> None:
        """Make batches of half as many examples from now on, or of one."""
        self._halvings += 1
        self._batches.clear()
        torch.cuda.empty_cache()  # blocks in the sizes of the larger batches

    def on_device(self, work: Callable[[], T], where: str) -> T:
        """Do this work; where it does not fit the device, once more with no batches kept there.

        Raises OutOfDeviceMemory where it does not fit then, and DeviceLost.
        """
        compute_with(self.threads)
        try:
            with device_blamed(self.device, where):
                return work()
        except OutOfDeviceMemory:
            if not sum(batches.let_go() for batches in self._batches.values()):
                raise
        with device_blamed(self.device, where):
            torch.cuda.empty_cache()
            done = work()
        self.say(f"{self.device} has no room to keep batches: they are made again for each pass")
        return done


class _InMemory(Overlays):
    """Where nobody else needs them."""

    def __init__(self) -> None:
        self._known: dict[Digest, bytes] = {}

    def overlay(self, recipe: Digest) -> bytes | None:
        return self._known.get(recipe)

    def resolve_overlay(self, recipe: Recipe, overlay: bytes) -> bytes:
        return self._known.setdefault(recipe.digest, overlay)
