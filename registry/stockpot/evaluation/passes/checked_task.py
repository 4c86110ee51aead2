"""A user's task at arm's length: whatever it does wrong becomes a BadTask that says what and where."""

import math
import re
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from numbers import Real
from traceback import clear_frames
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stockpot.entities import Digest, digest_of_bytes
from stockpot.errors import BadTask, OutOfDeviceMemory, StockpotError, UnknownSplit
from stockpot.evaluation.devices.device import all_seeded
from stockpot.evaluation.devices.device_faults import is_out_of_memory
from stockpot.evaluation.outputs import Floats
from stockpot.evaluation.passes.checked_features import feature_faults
from stockpot.evaluation.passes.dataset_digest import digest_of_examples, require_same
from stockpot.evaluation.passes.tensor_nests import alike, packing
from stockpot.ports import Task
from stockpot.prose import counted, listed

DEFAULT_BATCH_SIZE = 256
ANSWERS = frozenset({"labels", "label"})
"""What Hugging Face's models are trained with beside their input, by name: whoever asks has no answer yet."""
OPENED_TWICE = 1.0
"""A split that opens in fewer seconds is opened a second time, to see that it holds the same examples."""


class CheckedTask:
    """Calls a task's methods and holds what they return to the contract of `stockpot.ports.Task`.

    Every method raises BadTask, naming the task's method and the place, for what the task raises and
    for what it must not return. Errors of Stockpot's own pass.
    """

    def __init__(self, task: Task, name: str) -> None:
        self._task: Any = task  # and nothing is known about what it returns
        self._name = name
        self._seconds: dict[str, float] = {}
        """That each split took to open."""

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""
        size = getattr(self._task, "batch_size", DEFAULT_BATCH_SIZE)
        if not isinstance(size, int) or size < 1:
            raise self._broken(f"batch_size is {size!r}", "make it a whole number above zero")
        return size

    def model(self) -> nn.Module:
        """The architecture, in evaluation mode."""
        with self.blame("model()"):
            module = self._task.model()
        if not isinstance(module, nn.Module):
            raise self._broken(f"model() returned {_kind(module)}", "return a torch.nn.Module")
        empty = [
            name
            for name, tensor in chain(module.named_parameters(), module.named_buffers())
            if is_lazy(tensor) or tensor.is_meta or _is_expanded(tensor)
        ]
        if empty:
            mend = "give every layer its sizes, and build it on the CPU: weights are put into its own tensors"
            what = f"model() has tensors without memory of their own, lazy, meta or expanded: {listed(empty)}"
            raise self._broken(what, mend)
        return module.eval()

    def examples(self, split: str) -> Sequence[Any]:
        """The split's examples: at least one."""
        begin = time.perf_counter()
        try:
            with self.blame(f"examples({split!r})"), all_seeded():
                examples: Sequence[Any] = self._task.examples(split)
                empty = len(examples) == 0
        except BadTask as error:
            if _names(split, error.__cause__):
                mend = "name a split that the task's data has"
                what = f"there is no split {split!r}: {error.__cause__}"
                raise self._broken(what, mend, UnknownSplit) from error
            raise
        if empty:
            raise self._broken(f"split {split!r} is empty", "give it examples, or name another split")
        self._seconds[split] = time.perf_counter() - begin
        return examples

    def digest(
        self,
        split: str,
        examples: Sequence[Any],
        part: Callable[[Sequence[Any]], Sequence[Any]] = lambda examples: examples,
    ) -> Digest:
        """The name of the split's content: the task's own, else the hash of every example of its `part`."""
        if not hasattr(self._task, "digest"):
            with self.blame(f"examples({split!r})"):
                found = digest_of_examples(part(examples), split)
                if self._seconds.get(split, 0.0) < OPENED_TWICE:
                    require_same(part(examples), part(self.examples(split)), split)
            return found
        with self.blame(f"digest({split!r})"):
            text = self._task.digest(split)
        if not isinstance(text, str) or not text:
            what = f"digest({split!r}) returned {text!r}"
            raise self._broken(what, "return any string that changes with the split's content")
        named = re.fullmatch("sha256:[0-9a-f]{64}", text)
        return Digest(text) if named else digest_of_bytes(text.encode())

    def groups(self, split: str, n: int) -> tuple[Hashable, ...] | None:
        """The origin of each example, where the task tells: it may also return None."""
        return self._of_each("groups", split, n, "origin")

    def domains(self, split: str, n: int) -> tuple[str, ...] | None:
        """The domain of each example, where the task tells: it may also return None."""
        found = self._of_each("domains", split, n, "label")
        odd = next((label for label in found or () if not isinstance(label, str)), None)
        if odd is not None:
            raise self._broken(f"domains({split!r}) holds {odd!r}", "return a text for each example")
        return None if found is None else tuple(map(str, found))

    def features(self, examples: Mapping[str, int]) -> dict[str, Floats]:
        """What the task tells of the examples of each split, so many, before a model answers: ``[examples,
        dimensions]``. Empty where it tells none: it may also return None, of all of these splits.
        """
        found = {split: self._features(split) for split in examples}
        told = {split: array for split, array in found.items() if array is not None}
        faults = [*feature_faults(found, examples)] if told else []
        if faults:
            what = f"task {self._name}: what features(split) returned cannot be used"
            mend = "return a row of finite numbers for each example, equally long in all splits"
            raise BadTask(what, faults=faults, mend=mend)
        return {split: array.astype(np.float64) for split, array in told.items()}

    def _features(self, split: str) -> NDArray[Any] | None:
        with self.blame(f"features({split!r})"):
            found = self._task.features(split) if hasattr(self._task, "features") else None
            if isinstance(found, Tensor):
                found = found.double().numpy(force=True)
            return None if found is None else np.asarray(found)

    def _of_each(self, method: str, split: str, n: int, what: str) -> tuple[Hashable, ...] | None:
        with self.blame(f"{method}({split!r})"):
            found = getattr(self._task, method)(split) if hasattr(self._task, method) else None
            if found is None:
                return None
            # Elements of tensors are hashed by identity: each would be one of its own.
            each = tuple(found.tolist() if hasattr(found, "tolist") else found)
            hash(each)
        if len(each) != n:
            told = f"{method}({split!r}) has length {len(each)}, the split has {counted(n, 'example')}"
            raise self._broken(told, f"return one {what} per example")
        return each

    def collate(self, examples: list[Any], where: str) -> Any:
        """Make a batch."""
        with self.blame("collate()", where):
            batch = self._task.collate(examples)
            packed = packing(batch)
        if packed:
            mend = "let it give padded tensors, with lengths or a mask, and let predict() pack them"
            raise self._broken(f"collate() gave {packed}, {where}", mend)
        return batch

    def inputs(self, batch: Any) -> Any:
        """The model's input in a batch."""
        if hasattr(self._task, "inputs"):
            with self.blame("inputs()"):
                return self._task.inputs(batch)
        if isinstance(batch, Mapping):
            return {name: value for name, value in batch.items() if name not in ANSWERS}
        return batch[0] if isinstance(batch, tuple | list) else batch

    @cached_property
    def bounds(self) -> tuple[float, float] | None:
        """The least and the greatest score of one example, either of which may be infinite; None where
        there is none.
        """
        with self.blame("bounds"):
            bounds = self._task.bounds
        if bounds is None:
            return None
        found = _as_bounds(bounds)
        if found is None:
            mend = "set bounds = (least, greatest), two numbers, the first one less; or None"
            raise self._broken(f"bounds is {bounds!r}", mend)
        return found

    @property
    def outputs_are_scores(self) -> bool:
        """Whether ``predict`` gives no model's answers but their scores, which are not to be averaged."""
        return bool(getattr(self._task, "outputs_are_scores", False))

    @property
    def unit(self) -> str | None:
        """The task's own, else None where scores lie between 0 and 1: they are told in points. Else empty."""
        unit = getattr(self._task, "unit", None)
        if unit is None:
            return None if self.bounds == (0.0, 1.0) else ""
        if not isinstance(unit, str) or unit == "points":
            mend = 'name what a score is counted in, such as unit = "nats"; points are for bounds = (0, 1)'
            raise self._broken(f"unit is {unit!r}", f"{mend}, without a unit")
        return unit

    def beside(self, split: str, score: float) -> Mapping[str, float]:
        """What else a score on this split says, by name; nothing of one that is no number."""
        beside = getattr(self._task, "beside", None)
        if beside is None or not math.isfinite(score):
            return {}
        with self.blame("beside()"):
            return {str(name): float(value) for name, value in beside(split, score).items()}

    def outputs(self, module: nn.Module, batch: Any, n: int, where: str) -> Tensor:
        """What the model answers to a batch of `n`: shape ``[n, ...]``."""
        with self.blame("predict()", where):
            outputs = self._task.predict(module, batch)
        if not isinstance(outputs, Tensor) or outputs.shape[:1] != (n,):
            what = f"predict() returned {_kind(outputs)} for a batch of {n}, {where}"
            raise self._broken(what, f"return a tensor of shape [{n}, ...]: the outputs of each example")
        return outputs

    def scores(self, outputs: Tensor, batch: Any, n: int, where: str) -> Tensor:
        """A score per example of a batch of `n`: shape ``[n]``, float64."""
        with self.blame("score()", where):
            scores = self._task.score(outputs, batch)
        if not isinstance(scores, Tensor) or scores.shape != (n,) or scores.is_complex():
            what = f"score() returned {_kind(scores)} for a batch of {n}, {where}"
            raise self._broken(what, f"return a real tensor of shape [{n}]: the score of each example")
        return scores.to(outputs.device, torch.float64)  # a task may have looked at them on the CPU

    @property
    def has_log_likelihoods(self) -> bool:
        """Whether it tells how likely a model finds each position of an example."""
        return callable(getattr(self._task, "log_likelihood", None))

    def log_likelihoods(self, outputs: Tensor, batch: Any, n: int, where: str) -> Tensor:
        """Of each position of a batch of `n` examples: ``[n, positions]``, float64; NaN passes."""
        with self.blame("log_likelihood()", where):
            found = self._task.log_likelihood(outputs, batch)
        if not isinstance(found, Tensor) or (*found.shape[:1], found.ndim) != (n, 2) or found.is_complex():
            what = f"log_likelihood() returned {_kind(found)} for a batch of {n}, {where}"
            raise self._broken(what, f"return a real tensor of shape [{n}, positions], 0 where there is none")
        return found.to(outputs.device, torch.float64)

    @property
    def measures_whole(self) -> bool:
        """Whether a metric of the whole split is what counts, not the mean of scores."""
        metric = getattr(self._task, "metric", None)
        if metric is not None and not callable(metric):
            raise self._broken(f"metric is {_kind(metric)}", "make it a method metric(outputs, targets)")
        return metric is not None

    def metric(self, outputs: Tensor, targets: Any, where: str) -> float:
        """The number of `outputs`, ``[examples, ...]``, and the targets of these examples; NaN passes."""
        with self.blame("metric()", where):
            found = self._task.metric(outputs, targets)
            number = float(found) if _is_number(found) else None
        if number is None:
            mend = "return one real number: a float, or a tensor of shape []"
            raise self._broken(f"metric() returned {_kind(found)}, {where}", mend)
        if number == math.inf:
            mend = "return a finite number, or NaN where the metric is undefined"
            raise self._broken(f"metric() returned {number}, {where}", mend)
        return number

    def targets(self, batch: Any, first: Any, size: int, where: str) -> Any:
        """What the metric needs of a batch of `size`: the batch itself, where the task does not tell.

        Refuses what cannot be joined with the targets of the `first` batch; those are asked for with None.
        """
        targets = getattr(self._task, "targets", None)
        with self.blame("targets()", where):
            found = batch if targets is None else targets(batch)
        if alike(found if first is None else first, found, size):
            return found
        call = "collate()" if targets is None else "targets()"
        mend = f"let {call} give tensors of shape [examples, ...], and nothing else that changes"
        if targets is None:
            mend += "; or define targets(batch), which picks what metric() needs"
        what = (
            f"metric() needs what {call} gives of all examples, but it gave tensors without one row per "
            f"example, or what differs from the first batch's in more than its tensors' content, {where}"
        )
        raise self._broken(what, mend)

    def check_bounds(self, scores: Sequence[float], places: Iterable[int], where: str) -> None:
        """Refuse a score outside the task's bounds, and infinitely good ones; NaN passes.

        `places`: the examples' indices in the split.
        """
        least, greatest = self.bounds or (-torch.inf, torch.inf)
        greatest = min(greatest, torch.finfo(torch.float64).max)
        for index, score in zip(places, scores, strict=True):
            if score < least or score > greatest:
                what = f"score() returned {score} for example {index}, outside [{least}, {greatest}], {where}"
                raise self._broken(what, "keep scores within bounds, or set bounds = None")

    @contextmanager
    def blame(self, call: str, where: str = "") -> Iterator[None]:
        """Raises BadTask for whatever the block raises, OutOfDeviceMemory where there was no room."""
        try:
            yield
        except StockpotError:
            raise
        except Exception as error:  # whatever a user's code raises
            small = is_out_of_memory(error)
            if small:
                clear_frames(error.__traceback__)  # the error outlives the tensors that did not fit
            mend = "make the task's batch_size smaller" if small else f"mend {call} of the task"
            what = f"{call} raised {type(error).__name__}: {error}"
            kind = OutOfDeviceMemory if small else BadTask
            raise self._broken(f"{what}, {where}" if where else what, mend, kind) from error

    def _broken(self, what: str, mend: str, kind: type[BadTask] = BadTask) -> BadTask:
        return kind(f"task {self._name}: {what}", mend=mend)


def _names(split: str, error: BaseException | None) -> bool:
    """Whether the error is what asking for an unknown split ends in: not any ``KeyError`` in reading one."""
    if not isinstance(error, (KeyError, ValueError)):
        return False
    # As a word of its own: not a part of a path.
    return re.search(rf"(?<![\w./-]){re.escape(split)}(?![\w/-]|\.\w)", str(error)) is not None


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.shape == () and value.dtype != torch.bool and not value.is_complex()
    return isinstance(value, Real) and not isinstance(value, bool)


def _as_bounds(bounds: Any) -> tuple[float, float] | None:
    """Two numbers, the first one less; None for anything else."""
    try:
        least, greatest = bounds
        in_order = bool(-torch.inf <= least < greatest <= torch.inf)  # false for NaN, refused for text
        return (float(least), float(greatest)) if in_order else None
    except (TypeError, ValueError, RuntimeError):  # what tuples, arrays and tensors raise
        return None


def _is_expanded(tensor: Tensor) -> bool:
    return any(size > 1 and step == 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True))


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {list(value.shape)}"
    return f"a {type(value).__name__}"
