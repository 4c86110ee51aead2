"""A pass over a split, batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stockpot.entities import Ensemble
from stockpot.evaluation.outputs import Floats
from stockpot.evaluation.passes.batches import Batches
from stockpot.evaluation.passes.checked_task import CheckedTask

Answer = Callable[[Any, Sequence[int], str], Tensor]
"""What is said, ``[size, ...]``, to a batch: of the examples at these places, padded; the text says where."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What was said to one batch, padding left out; the examples' places, and tensors on the device."""

    places: Sequence[int]
    canonical: bool
    outputs: Tensor | None
    """``[examples, ...]``: a copy, where they are kept."""
    readings: Tensor
    """``[2, examples]``, float64: scores, and the gaps between the two greatest outputs."""


class Forward:
    """Evaluates batches by what `answer` says to them.

    `where` names split and recipe; `count` is told each batch; `keeps` says whether outputs are kept.
    """

    def __init__(
        self,
        task: CheckedTask,
        batches: Batches,
        answer: Answer,
        *,
        where: str,
        keeps: Callable[[Tensor], bool],
        count: Callable[[], None] = lambda: None,
    ) -> None:
        self.batches = batches
        self.where = where
        self._task = task
        self._answer = answer
        self._keeps = keeps
        self._count = count

    def canonical(self, batch: int) -> Answers:
        """A canonical batch."""
        return self.answers(self.batches[batch], self.batches.places(batch), canonical=True)

    def gathered(self, places: Sequence[int]) -> Answers:
        """A batch of the examples at these places."""
        return self.answers(self.batches.gathered(places), places, canonical=False)

    def answers(self, batch: object, places: Sequence[int], *, canonical: bool) -> Answers:
        """What is said to this batch. Raises BadTask, and whatever `count` raises."""
        self._count()
        size = self.batches.size
        span = (
            f"examples {places[0]} to {places[0] + size - 1}" if canonical else "a batch of chosen examples"
        )
        outputs = self._answer(batch, places, f"{span} of {self.where}")
        scores = self._task.scores(outputs, batch, size, f"{span} of {self.where}")
        readings = torch.stack([scores, gaps(outputs)])
        # A copy: what a model returns may be a view of something large, or written to again.
        kept = outputs[: len(places)].clone() if self._keeps(outputs) else None
        return Answers(places, canonical, kept, readings[:, : len(places)])

    def log_likelihoods(self) -> Floats:
        """Of each example, the sum over its positions; by all canonical batches. Raises as `answers`."""
        sums: Floats = torch.cat([logs.sum(dim=1)[:n] for logs, n in self._positions()]).cpu().numpy()
        return sums

    def position_log_likelihoods(self) -> Tensor:
        """Of each position: ``[examples, positions]``, on the CPU, 0 where there is none. Raises as
        `answers`.
        """
        found = [logs[:n].cpu() for logs, n in self._positions()]
        most = max(logs.shape[1] for logs in found)
        return torch.cat([nn.functional.pad(logs, (0, most - logs.shape[1])) for logs in found])

    def _positions(self) -> Iterator[tuple[Tensor, int]]:
        """Of each canonical batch, and how many of its examples count."""
        size = self.batches.size
        for number, batch in enumerate(self.batches):
            self._count()
            places = self.batches.places(number)
            where = f"examples {places[0]} to {places[0] + size - 1} of {self.where}"
            outputs = self._answer(batch, places, where)
            yield self._task.log_likelihoods(outputs, batch, size, where), len(places)

    def checked(self, readings: Tensor, places: Sequence[int]) -> tuple[Floats, Floats]:
        """Scores and gaps, on the CPU. Raises BadTask for a score outside the task's bounds."""
        scores, gaps = readings.numpy()
        self._task.check_bounds(scores.tolist(), places, self.where)
        return scores, gaps


def of_model(task: CheckedTask, module: nn.Module, size: int) -> Answer:
    """What a model says to batches of this size."""
    return lambda batch, _, where: task.outputs(module, batch, size, where)


def of_ensemble(
    ensemble: Ensemble, parts: tuple[Tensor | None, Tensor], device: torch.device, size: int
) -> Answer:
    """The mean of what its members said to all examples, from `PassMemory.summed`.

    A sum times the rounded 1 / n, whose bits are the same on every device: a quotient's are not.
    """
    total, last = parts
    coefficient = 1.0 / (sum(ensemble.weights) or len(ensemble.members))

    def answer(_: Any, places: Sequence[int], __: str) -> Tensor:
        at = slice(places[0], places[-1] + 1)
        mean = last[at].to(device)
        if total is not None:
            mean = total[at].to(device) + mean
        return _padded(mean * coefficient, size)

    return answer


def of_outputs(outputs: Tensor, device: torch.device, size: int) -> Answer:
    """What a model said to all examples, ``[n, ...]`` on the CPU."""
    return lambda _, places, __: _padded(outputs[places[0] : places[-1] + 1].to(device), size)


def _padded(said: Tensor, size: int) -> Tensor:
    """Of a whole batch: the last example's is repeated."""
    return torch.cat([said, said[-1:].expand(size - len(said), *said.shape[1:])])


def gaps(outputs: Tensor) -> Tensor:
    """How far the greatest output of each example is above the next; of a single one, how far from zero.

    Float64, shape ``[examples]``. Ones where outputs are no floats.
    """
    flat = outputs.flatten(1) if outputs.ndim > 1 else outputs[:, None]
    if not flat.is_floating_point() or flat.shape[1] == 0:
        return torch.ones(len(outputs), dtype=torch.float64, device=outputs.device)
    if flat.shape[1] == 1:
        return flat[:, 0].abs().double()
    first, second = flat.topk(2).values.double().unbind(1)
    return first - second


class Reading:
    """Readings on their way to the CPU: begun at once, waited for when asked."""

    def __init__(self, readings: Tensor) -> None:
        self._done: torch.cuda.Event | None = None
        if readings.device.type == "cuda":
            self._host = torch.empty(readings.shape, dtype=readings.dtype, pin_memory=True)
            self._host.copy_(readings, non_blocking=True)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own gap
            self._done.record(torch.cuda.current_stream(readings.device))
        else:
            self._host = readings

    def arrived(self) -> Tensor:
        """The readings, on the CPU."""
        if self._done is not None:
            self._done.synchronize()
        return self._host
