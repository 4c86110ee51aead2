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
    - ``inputs(batch)``: the model's input, for the registered model's signature; without it the
      batch itself, or its first element where the batch is a tuple or list.
    - ``rebuilt_from(**task_args) -> tuple[str, Mapping]``, a static method: the ``module:factory`` and its
      arguments that make the architecture without the task's data, for a model that is served as code;
    - ``batch_size``: examples in a batch; 256 without it.
    """

    version: str
    """Change it whenever the scores would change. A hash of the defining module joins it."""
    bounds: tuple[float, float] | None
    """The least and the greatest score of one example; None where there is none."""

    def model(self) -> "nn.Module":
        """The architecture. Its weights do not matter: they are replaced."""
        ...

    def examples(self, split: str) -> "Sequence[Any]":
        """A map-style dataset (``len`` and ``[i]``) in a fixed order.

        Raises KeyError or ValueError for a split that does not exist.
        """
        ...

    def collate(self, examples: "list[Any]") -> "Any":
        """Make a batch of fixed shape: tensors in a tuple, list or dict, or one tensor."""
        ...

    def predict(self, model: "nn.Module", batch: "Any") -> "Tensor":
        """The model's outputs, first dimension: examples."""
        ...

    def score(self, outputs: "Tensor", batch: "Any") -> "Tensor":
        """One score per example, shape ``[examples]``; higher is better."""
        ...
