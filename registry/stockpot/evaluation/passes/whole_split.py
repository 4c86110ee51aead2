"""A split that is measured as a whole: by a metric that is no mean over its examples."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from stockpot.entities import Metric
from stockpot.evaluation.jackknife import blocks
from stockpot.evaluation.passes.batches import Batches
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.rows import Rows
from stockpot.evaluation.passes.tensor_nests import each_tensor, leaves

AT_ONCE = 1024
"""Bytes per example of a tensor that is handed out whole, looked at or not: labels, masks. Copying it for
each block costs less than keeping track; for images, it would cost more than the forward passes."""


class WholeSplit:
    """Calls the task's metric on all examples, and without each block of them.

    On the CPU, whatever the device is: how much memory the device has left then changes no bit of it, and
    a GPU keeps its memory. What collate made is joined from the canonical batches when it is first
    asked for, padding left out, and kept: its small tensors by reading the batches once, each large
    one by reading them once more when the metric first looks at it. So labels cost their own size, also
    where images do not fit into memory, and images cost nothing unless they are looked at.
    """

    def __init__(self, task: CheckedTask, batches: Batches) -> None:
        self._task = task
        self._batches = batches
        self._columns: dict[int, Tensor] = {}

    def metric(self, outputs: Sequence[Tensor | None], where: str) -> Metric:
        """Of the canonical batches' outputs, in order and without padding, ``[n, ...]`` in all.

        To be called inside `reproducible`. Raises BadTask where the task refuses them, or its batches cannot
        be joined.
        """
        with self._task.blame("predict()", where):
            joined = torch.cat([part.cpu() for part in outputs if part is not None])
        n, count = self._batches.n, len(self._blocks)
        value = self._measured(joined, torch.arange(n), f"all {n} examples of {where}")
        without = [
            self._measured(joined, rest, f"all but block {number} of {count} of {where}")
            for number, rest in enumerate(self._rests(), start=1)
        ]
        return Metric(value, tuple(without))

    def undefined(self) -> Metric:
        """That of weights which cannot be evaluated."""
        return Metric(math.nan, (math.nan,) * len(self._blocks))

    def _measured(self, outputs: Tensor, places: Tensor, where: str) -> float:
        if len(places) == 0:  # without the only block, nothing is left to measure
            return math.nan
        return self._task.metric(outputs.index_select(0, places), self._batch(places), where)

    @cached_property
    def _blocks(self) -> list[list[int]]:
        n = self._batches.n
        return blocks(n, self._task.groups(self._batches.split.name, n))

    def _rests(self) -> Iterator[Tensor]:
        """The places outside each block, ascending."""
        for block in self._blocks:
            left = torch.ones(self._batches.n, dtype=torch.bool)
            left[block] = False
            yield left.nonzero().squeeze(1)

    def _batch(self, places: Tensor) -> Any:
        """What collate made of the examples at these places: copies, which the metric may change."""
        numbers = iter(range(len(self._specs)))
        return each_tensor(self._form, lambda _: self._rows(next(numbers), places))

    def _rows(self, number: int, places: Tensor) -> Tensor:
        shape, dtype = self._specs[number]
        if number in self._small:
            return self._column(number).index_select(0, places)
        return Rows((len(places), *shape), dtype, lambda: self._column(number).index_select(0, places))

    @cached_property
    def _form(self) -> Any:
        """The first batch, without its tensors' content."""
        return each_tensor(next(iter(self._batches)), lambda tensor: torch.empty_like(tensor, device="meta"))

    @cached_property
    def _specs(self) -> list[tuple[torch.Size, torch.dtype]]:
        """Of each tensor in a batch: an example's shape, and the dtype."""
        return [(tensor.shape[1:], tensor.dtype) for tensor in leaves(self._form)]

    @cached_property
    def _small(self) -> list[int]:
        return [
            number
            for number, (shape, dtype) in enumerate(self._specs)
            if shape.numel() * dtype.itemsize <= AT_ONCE
        ]

    def _column(self, number: int) -> Tensor:
        """One of a batch's tensors, of all examples, ``[n, ...]``."""
        if number not in self._columns:
            self._join(self._small if number in self._small else [number])
        return self._columns[number]

    def _join(self, numbers: Sequence[int]) -> None:
        """Read all batches once, for these of their tensors."""
        parts: dict[int, list[Tensor]] = {number: [] for number in numbers}
        where = f"split {self._batches.split.name!r}"
        with self._task.blame("joining its batches", where):
            for place, batch in enumerate(self._batches):
                at = self._batches.places(place)
                found = self._task.rows(
                    batch, self._form, self._batches.size, f"{where}, examples from {at.start}"
                )
                for number in numbers:
                    parts[number].append(found[number][: len(at)].cpu())
        self._columns |= {number: torch.cat(columns) for number, columns in parts.items()}
