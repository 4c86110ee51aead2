"""A task on a device: what the walk evaluates, and exports, with."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from stockpot.entities import (
    Digest,
    Ensemble,
    EvaluationProtocol,
    OverlayRule,
    Recipe,
    Score,
    TensorSpec,
)

if TYPE_CHECKING:
    from torch import nn

    from stockpot.ports.search import Evaluator
    from stockpot.ports.serving import Served

Ids = Any
"""A tensor, ``[examples, positions]``, int64: numbers of tokens."""
Features = Any
"""A numpy array, ``[examples, dimensions]``, float64."""
Shares = Any
"""A numpy array, ``[examples, experts]``, float64."""


class LanguageModel(Protocol):
    """A task's module with weights, on the CPU, and some examples that it is asked about."""

    @property
    def ids(self) -> Ids:
        """Of the examples, what the module is given."""
        ...

    @property
    def next_tokens(self) -> "nn.Module":
        """The module as a function of ids alone: the logits of the token behind each, ``[examples, positions,
        vocabulary]``.
        """
        ...

    def log_likelihoods(self) -> Sequence[float]:
        """Of each of the examples, the sum over its positions, as the task tells it."""
        ...

    def log_likelihoods_by(self, served: "Served") -> Sequence[float]:
        """The same by a model that stands in the module's place: it is served, takes ids alone, and answers
        what `next_tokens` does, or the logarithms of probabilities. Raises Incompatible where it does not.
        """
        ...


class Bench(Protocol):
    """Makes evaluators for the splits of one task, and models for what is exported."""

    @property
    def passes(self) -> float:
        """Forward work of all its evaluators so far, in full passes over a split."""
        ...

    @property
    def batch_size(self) -> int:
        """Examples that are evaluated at a time."""
        ...

    @property
    def unit(self) -> str | None:
        """What scores are told in: None for points, hundredths of a score between 0 and 1."""
        ...

    def beside(self, split: str, score: float) -> Mapping[str, float]:
        """What else a score on this split says, by name, for people."""
        ...

    @property
    def has_ensembles(self) -> bool:
        """Whether models' outputs are answers, whose mean is that of an ensemble."""
        ...

    def halve_batch(self) -> None:
        """Evaluate half as many examples at a time from now on, at least one: under another protocol."""
        ...

    def evaluator(
        self, split: str, *, compared: bool = True, plain: bool = False, domain: str | None = None
    ) -> "Evaluator":
        """`compared`: its scores will be compared in pairs, for which a metric has replicates; without them
        they are another protocol's. `plain`: always in full, in order, and remembering nothing, to check a
        faster way against. `domain`: of the examples of that one alone, in the split's order, as of a split
        of its own.

        Raises BadTask for a split that does not exist or is empty.
        """
        ...

    @property
    def keeps_statistics(self) -> bool:
        """Whether the model has statistics that soups get anew. Raises BadTask where nobody knows how."""
        ...

    def overlay_rule(self, split: str, *, but: Sequence[str] = ()) -> OverlayRule | None:
        """By which soups get statistics, estimated on this split from now on; None where the model keeps
        none that would have to be. Raises UnknownSplit, and BadRequest where the split's data are those of
        one of the splits `but` which they must not be.
        """
        ...

    def groups(self, split: str) -> Sequence[Hashable] | None:
        """The origin of each example, where several share one."""
        ...

    @property
    def measures_whole(self) -> bool:
        """Whether a metric of the whole split counts, which is no mean over its examples."""
        ...

    def domains(self, split: str) -> Sequence[str] | None:
        """The domain of each example, where the task tells."""
        ...

    @property
    def has_log_likelihoods(self) -> bool:
        """Whether the task tells how likely a model finds each position of an example, and no metric of the
        whole counts.
        """
        ...

    def log_likelihoods(self, recipe: Recipe, split: str) -> Sequence[float]:
        """Of each example, the sum over its positions. It takes a pass, unless the recipe's outputs on the
        split, or these sums, are remembered.
        """
        ...

    def features(self, splits: Sequence[str]) -> Mapping[str, Features]:
        """What the task tells of the examples of these splits before a model answers, by split; nothing where
        it tells none. Raises BadTask, with every fault of each split.
        """
        ...

    def mixed_log_likelihoods(
        self, experts: Sequence[Recipe], ways: Sequence[Shares], split: str
    ) -> Sequence[Sequence[float]]:
        """Of each way to mix them, and of each example, the sum over its positions of how likely all experts
        together find it: the mean of their likelihoods there by these shares of the example, which add up to
        one. It takes a pass for each expert, unless its outputs on the split, or these sums, are remembered.
        """
        ...

    def ensemble(
        self, ensemble: Ensemble, split: str, *, compared: bool = True, domain: str | None = None
    ) -> Score | None:
        """Its score, without a forward pass; None where its members' outputs are not all remembered under the
        protocol of ``evaluator(split, compared=compared, domain=domain)``.
        """
        ...

    def heed(self, recipe: Recipe, protocol: Digest, score: Score) -> None:
        """Let a score that was measured elsewhere, or earlier, help to foresee those of later trials."""
        ...

    def fits(self, tensors: Sequence[TensorSpec]) -> Sequence[str]:
        """How these tensors differ from the task's model; empty when they fit."""
        ...

    def seconds(self, recipe: Recipe, split: str) -> float:
        """Of a forward pass over the split's first batch, on the device, with the recipe's weights in place
        and the device warm. Raises what an evaluation raises.
        """
        ...

    def served_protocol(self, split: str, software: tuple[tuple[str, str], ...]) -> EvaluationProtocol:
        """Under which a served model is scored: the question that the split's evaluator asks, where of the
        conditions no more is known than this software.
        """
        ...

    def score_served(self, served: "Served", split: str) -> Score:
        """Of a model that is served by other code, in place of the task's own: it is asked what the task asks
        that one, and must answer in the same shape and kind; probabilities, where the own model gives none,
        count as their logarithms. Raises Incompatible where it does not fit, and BadTask.
        """
        ...

    def module_with(self, recipe: Recipe) -> "nn.Module":
        """A fresh module with the recipe's weights, on the CPU, in evaluation mode."""
        ...

    def language_model(self, recipe: Recipe, split: str, n: int) -> LanguageModel:
        """A fresh module with the recipe's weights, on the CPU, and `n` examples that are spread over the
        split. Raises BadTask where the task's model does not predict the next token from ids of tokens.
        """
        ...

    def example(self, split: str, n: int) -> Any:
        """The model's input for the first `n` examples."""
        ...
