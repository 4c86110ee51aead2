"""What a user writes to say how a model is scored."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Task(Protocol):
    """What a user writes: one class that says how a model is scored.

    ``__init__`` takes the ``--task-arg key=value`` pairs as keyword arguments, all strings. Optional
    methods and attributes, looked up by name:

    - ``digest(split) -> str``: names the split's content; without it every example is hashed once.
    - ``groups(split) -> Sequence[Hashable] | None``: the origin of each example, where several examples
      share one (crops of an image, sentences of a document); intervals resample origins.
    - ``domains(split) -> Sequence[str] | None``: the domain of each example, a label such as "python" or
      "prose". Of several, each counts alike by default, however many examples it has, and is told by itself.
    - ``log_likelihood(outputs, batch) -> [examples, positions]``, of a model of texts: the natural logarithm
      of how likely each position is behind those before it, and 0 where there is none. ``score`` is then the
      sum over an example's positions, or that times what depends on the example alone: the mean over its
      positions. With ``domains``, the report tells what the specialists score together, by the posterior of
      each example's domain (Branch-Train-Merge).
    - ``features(split) -> [examples, dimensions] | None``, beside ``log_likelihood`` and ``domains``: numbers
      that are near to each other where examples are of one domain, of what is known before a model answers,
      such as the text before the one that is scored. Of as many dimensions in each split. The report then
      tells what the specialists score together where each weighs by softmax(-d^2 / 0.1), d the Euclidean
      distance to the mean of its domain's held-out examples (c-BTM): rows of length one are as meant there,
      longer ones decide more sharply.
    - ``inputs(batch)``: the model's input, for the registered model's signature; without it the
      batch itself (a dict without its ``labels``), or its first element where the batch is a tuple or list.
    - ``rebuilt_from(**task_args) -> tuple[str, Mapping]``, a static method: the ``module:factory`` and its
      arguments that make the architecture without the task's data, for a model that is served as code;
    - ``takes_model_folder = True``, of the class: its argument ``model`` is a folder with a ``config.json``
      and a tokenizer. Where it is not given, it is what the sweep's runs logged beside their weights.
    - ``batch_size``: examples in a batch; 256 without it;
    - ``unit``: what a score is counted in, such as "nats" or "mm". Without it scores with bounds ``(0, 1)``
      are told in points (hundredths), and others as bare numbers.
    - ``beside(split, score) -> Mapping[str, float]``: what else a score of the whole split says, for people,
      by name, such as the perplexity that a mean log likelihood stands for.
    - ``metric(outputs, targets) -> float``: for a split that is measured as a whole, by what is no mean over
      its examples (F1, AUC, MCC). It, and not ``score``, is then what counts, and every trial takes a full
      pass. More in `MeasuresWhole`.
    - ``targets(batch)``: what ``metric`` needs of a batch, such as labels or masks: a tensor, or a tuple,
      list or dict of tensors, each with one row per example. Without it ``metric`` gets the batches.
    """

    version: str
    """Change it whenever the scores would change. A hash of the task's own modules joins it, and the
    examples' content has a name of its own. Other files that scoring reads have none: change it with them.
    """
    bounds: tuple[float, float] | None
    """The least and the greatest score of one example; None where there is none."""

    def model(self) -> "nn.Module":
        """The architecture, the same each time. Its weights do not matter: they are replaced. The model keeps
        nothing that was made of weights it held before.
        """
        ...

    def examples(self, split: str) -> "Sequence[Any]":
        """A map-style dataset (``len`` and ``[i]``) in a fixed order.

        Raises KeyError or ValueError for a split that does not exist.
        """
        ...

    def collate(self, examples: "list[Any]") -> "Any":
        """Make a batch of fixed shape: tensors in a tuple, list or dict, or one tensor. Where shapes differ
        from batch to batch, trials still stop early, but examples are not gathered across batches.
        """
        ...

    def predict(self, model: "nn.Module", batch: "Any") -> "Tensor":
        """The model's outputs, first dimension: examples."""
        ...

    def score(self, outputs: "Tensor", batch: "Any") -> "Tensor":
        """One score per example, shape ``[examples]``; higher is better."""
        ...


class MeasuresWhole(Protocol):
    """What a task may have besides: a number of the whole split that is no mean over its examples."""

    def metric(self, outputs: "Tensor", targets: "Any") -> "float | Tensor":
        """One real number, or a tensor of shape ``[]``; higher is better.

        `outputs`: what ``predict`` returned for all examples, ``[n, ...]``, in the split's order and without
        padding, on the CPU. `targets`: what ``targets`` gave of the same examples, in one: its tensors, each
        of which has one row per example, are below each other, on the CPU too; all else must be alike in all
        batches, and is as it is in each. Where the task has no ``targets``, it is what ``collate`` made,
        joined in the same way: define ``targets`` where batches hold images, since all of them would lie in
        memory, and be copied for each call. For the time of a pass, memory holds the outputs up to three
        times: let ``predict`` return no more than ``score`` and ``metric`` need.

        On splits of which the report gives an interval, also called without each block of examples in turn
        (`stockpot.statistics.blocks`): up to 51 times per pass, with fewer examples. NaN where the metric is
        undefined, as it may be without some examples, or where an output is NaN: a candidate of which the
        whole is NaN is excluded, and a difference with a NaN has no interval. Infinity is refused, minus
        infinity is not. What it raises ends the run as a BadTask.
        """
        ...
