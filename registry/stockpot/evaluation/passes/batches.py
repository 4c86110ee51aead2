"""A split as batches of fixed shape on a device."""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from stockpot.errors import OutOfDeviceMemory
from stockpot.evaluation.devices.device import free_memory, reproducible, seeded
from stockpot.evaluation.devices.device_faults import device_blamed
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.tensor_nests import alike, each_tensor, leaves, shapes

T = TypeVar("T")

SHARE = 1 / 3
"""Of the memory that is free, what the batches of one split may take: twice that while they are joined."""
AHEAD = 3
"""Batches made ahead where they are not kept."""


@dataclass(frozen=True)
class Split:
    """A split's examples, in their fixed order."""

    name: str
    examples: Sequence[Any]

    def padded(self, start: int, size: int) -> list[Any]:
        """`size` examples from `start` on; where the split ends, its last one is repeated."""
        return self.chosen(range(start, min(start + size, len(self.examples))), size)

    def chosen(self, places: Sequence[int], size: int) -> list[Any]:
        """`size` examples: those at these places, the last one repeated."""
        read = [self.examples[i] for i in places]
        return read + read[-1:] * (size - len(read))


class Batches:
    """A split's canonical batches, and others of the same shape made of chosen examples.

    Where they fit into memory they are made once, when first asked for, and kept on the device; else they
    are made again for each pass, a few ahead. Whoever gets a batch may change it in place.

    `fresh`: made again for each pass, one by one, even where they fit. Their bits are the same, unless the
    task draws something for them from elsewhere than torch's random numbers.
    """

    def __init__(
        self, split: Split, size: int, task: CheckedTask, device: torch.device, *, fresh: bool = False
    ) -> None:
        self.split = split
        self.size = size
        self.n = len(split.examples)
        self.count = -(-self.n // size)
        self._task = task
        self._device = device
        self._fresh = fresh
        self._random = False  # whether making a batch drew random numbers
        self._shapes: list[tuple[torch.dtype, torch.Size]] | None = None  # the first batch's
        self.even = True
        """Whether all batches made so far have the same shapes."""

    def places(self, batch: int) -> range:
        """The examples of a canonical batch."""
        return range(batch * self.size, min((batch + 1) * self.size, self.n))

    def make(self) -> None:
        """Make them now, where they fit: what that draws of random numbers is not the model's drawing, and
        memory that it is refused is not the model's.
        """
        _ = self.mixable

    def let_go(self) -> bool:
        """Keep no batches from now on. Returns whether any were kept."""
        kept = self.__dict__.get("_kept") is not None
        if kept:
            self._kept = self._table = None
        return kept

    @property
    def any_order(self) -> bool:
        """False where a batch is the same only when all before it were made again."""
        return self._kept is not None or not self._random

    @property
    def mixable(self) -> bool:
        """Whether examples can be gathered into new batches, each the same as in its canonical one.

        Not where batches have different shapes: an example is then padded as its neighbours want it.
        """
        return self.count > 1 and (self._table is not None or not self._random) and self.even

    def __iter__(self) -> Iterator[Any]:
        """All canonical batches, in order."""
        if self._kept is not None:
            return (self[batch] for batch in range(self.count))
        return self._made_in_turn() if self._random or self._fresh else self._made_ahead()

    def __getitem__(self, batch: int) -> Any:
        """One canonical batch."""
        if self._kept is None:
            return self._make(self.places(batch))
        return each_tensor(self._kept[batch], Tensor.clone, copy.deepcopy)

    def first(self) -> Any:
        """The first canonical batch."""
        return next(self._made_in_turn()) if self._kept is None and self._random else self[0]

    def gathered(self, places: Sequence[int]) -> Any:
        """A batch of the examples at these places, at most `size`; the last one is repeated."""
        if self._kept is None or self._table is None:
            return self._make(places)
        padded = [*places, *[places[-1]] * (self.size - len(places))]
        rows = torch.tensor(padded)
        if self._device.type == "cuda":  # from pageable memory, the copy would wait for the batch before
            rows = rows.pin_memory().to(self._device, non_blocking=True)
        columns = iter(self._table)

        def picked(leaf: Tensor) -> Tensor:
            # Laid out in memory as in a canonical batch: channels_last, for example.
            return torch.index_select(next(columns), 0, rows, out=torch.empty_like(leaf))

        return each_tensor(self._kept[0], picked, copy.deepcopy)

    @cached_property
    def _kept(self) -> list[Any] | None:
        """All batches, where they fit."""
        if self._fresh:
            return None
        with reproducible(self._device), torch.inference_mode(mode=False), seeded():
            before = torch.get_rng_state()
            first = self._make(self.places(0))
            self._random = not torch.equal(before, torch.get_rng_state())
            if self.count * sum(leaf.nbytes for leaf in leaves(first)) > SHARE * free_memory(self._device):
                return None
            rest = (self._make(self.places(batch)) for batch in range(1, self.count))
            return self._where_it_fits(lambda: [first, *rest])

    @cached_property
    def _table(self) -> list[Tensor] | None:
        """One tensor for each in a batch, all examples below each other, and the batches are parts of it.

        None where batches differ in anything but their tensors' content, do not have one row per example, or
        would lie in memory otherwise (kernels may then sum in another order), and where there is no room to
        join them.
        """
        batches = self._kept
        if batches is None or any(not alike(batches[0], batch, self.size) for batch in batches):
            return None
        columns = self._where_it_fits(
            lambda: [torch.cat(parts) for parts in zip(*map(leaves, batches), strict=True)]
        )
        if columns is None:
            return None
        pairs = zip(columns, leaves(batches[0]), strict=True)
        if any(column[: self.size].stride() != leaf.stride() for column, leaf in pairs):
            return None
        for place, parts in enumerate(
            zip(*(torch.split(column, self.size) for column in columns), strict=True)
        ):
            views = iter(parts)
            batches[place] = each_tensor(batches[place], lambda _, views=views: next(views))  # type: ignore[misc]  # default binds it
        return columns

    def _where_it_fits(self, make: Callable[[], list[T]]) -> list[T] | None:
        """What is made to be kept; None where the device runs out of memory over it."""
        try:
            with device_blamed(self._device, f"split {self.split.name!r}"):
                return make()
        except OutOfDeviceMemory:
            return None

    def _make(self, places: Sequence[int]) -> Any:
        with torch.inference_mode(mode=False):
            examples = self.split.chosen(places, self.size)
            batch = self._task.collate(examples, f"split {self.split.name!r}, examples from {places[0]}")
            self._shapes = self._shapes or shapes(batch)
            self.even &= shapes(batch) == self._shapes
            # A copy: of a single example it may be a part of the user's data.
            return each_tensor(batch, lambda tensor: tensor.to(self._device, copy=True))

    def _made_ahead(self) -> Iterator[Any]:
        """By a thread: reading and decoding go on while the model predicts."""
        with ThreadPoolExecutor(1) as beside:
            rest = (beside.submit(self._make, self.places(batch)) for batch in range(self.count))
            waiting: deque[Future[Any]] = deque(islice(rest, AHEAD))
            try:
                while waiting:
                    yield waiting.popleft().result()
                    waiting.extend(islice(rest, 1))
            finally:
                for future in waiting:
                    future.cancel()

    def _made_in_turn(self) -> Iterator[Any]:
        """With random numbers of their own, the same as if all had been made at once."""
        cuda = [self._device] if self._device.type == "cuda" else []
        states = [
            torch.Generator(device).manual_seed(0).get_state() for device in (torch.device("cpu"), *cuda)
        ]
        for batch in range(self.count):
            with torch.random.fork_rng(cuda):  # the CPU's always is forked
                torch.set_rng_state(states[0])
                for device in cuda:
                    torch.cuda.set_rng_state(states[1], device)
                made = self._make(self.places(batch))
                states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, cuda)]
            yield made
