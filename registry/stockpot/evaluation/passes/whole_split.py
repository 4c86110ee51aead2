"""A split that is measured as a whole: by a metric that is no mean over its examples."""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from stockpot.entities import Metric
from stockpot.evaluation.passes.batches import Batches
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.tensor_nests import each_tensor, joined
from stockpot.statistics.jackknife import blocks

Origins = Callable[[], Sequence[Hashable] | None]
"""The origin of each example, where several share one."""


class WholeSplit:
    """Calls the task's metric on all examples and, where `origins` says that scores are compared, without
    each block of them.

    On the CPU, whatever the device is: how much memory the device has left then changes no bit of it, and
    a GPU keeps its memory. The targets are joined from the canonical batches when they are first asked for,
    padding left out, and kept.
    """

    def __init__(self, task: CheckedTask, batches: Batches, origins: Origins | None = None) -> None:
        self._task = task
        self._batches = batches
        self._origins = origins

    def metric(self, outputs: Sequence[Tensor | None], where: str) -> Metric:
        """Of the canonical batches' outputs, in order and without padding, ``[n, ...]`` in all.

        To be called inside `reproducible`. Raises BadTask where the task refuses them, or its targets cannot
        be joined.
        """
        with self._task.blame("predict()", where):
            whole = torch.cat([part.cpu() for part in outputs if part is not None])
        n, count = self._batches.n, len(self._blocks)
        value = self._measured(whole, torch.arange(n), f"all {n} examples of {where}")
        without = [
            self._measured(whole, rest, f"all but block {number} of {count} of {where}")
            for number, rest in enumerate(self._rests(), start=1)
        ]
        return Metric(value, tuple(without))

    def undefined(self) -> Metric:
        """That of weights which cannot be evaluated."""
        return Metric(math.nan, (math.nan,) * len(self._blocks))

    def _measured(self, outputs: Tensor, places: Tensor, where: str) -> float:
        """With copies, which the metric may change."""
        if len(places) == 0:  # without the only block, nothing is left to measure
            return math.nan
        targets = each_tensor(self._targets, lambda tensor: tensor.index_select(0, places))
        return self._task.metric(outputs.index_select(0, places), targets, where)

    @cached_property
    def _blocks(self) -> list[list[int]]:
        return [] if self._origins is None else blocks(self._batches.n, self._origins())

    def _rests(self) -> Iterator[Tensor]:
        """The places outside each block, ascending."""
        for block in self._blocks:
            left = torch.ones(self._batches.n, dtype=torch.bool)
            left[block] = False
            yield left.nonzero().squeeze(1)

    @cached_property
    def _targets(self) -> Any:
        """Those of all examples."""
        where = f"split {self._batches.split.name!r}"
        first, parts = None, []
        for place, batch in enumerate(self._batches):
            begin = self._batches.places(place).start
            found = self._task.targets(batch, first, self._batches.size, f"{where}, examples from {begin}")
            first = found if first is None else first
            # A copy, also on the CPU: it may be a view of something large.
            parts.append(each_tensor(found, lambda tensor: tensor.to("cpu", copy=True)))
        with self._task.blame("joining its targets", where):
            return each_tensor(joined(parts), lambda column: column[: self._batches.n])
