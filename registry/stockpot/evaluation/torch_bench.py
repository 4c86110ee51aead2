"""A task on a device, with one live module: makes the evaluators of its splits."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn

from stockpot.entities import (
    Conditions,
    Digest,
    Ensemble,
    EvaluationProtocol,
    OverlayRule,
    Question,
    Recipe,
    Score,
    SourceIdentity,
    TensorSpec,
    digest_of_bytes,
    digest_of_document,
    short,
)
from stockpot.errors import BadRequest
from stockpot.evaluation.devices.device import device_model, software
from stockpot.evaluation.outputs import Floats, RememberedOutputs
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.language_model import LanguageModel
from stockpot.evaluation.passes.spread import Part, spread
from stockpot.evaluation.passes.whole_split import Origins, WholeSplit
from stockpot.evaluation.running_statistics import VERSION
from stockpot.evaluation.torch_evaluator import TorchEvaluator
from stockpot.evaluation.weights.batch_norm import norms_of
from stockpot.evaluation.weights.module_weights import fits
from stockpot.evaluation.workspace import Workspace
from stockpot.ports import Checkpoints, Overlays, Served, Task
from stockpot.statistics.jackknife import blocks

SERVED = "as MLflow serves it (pyfunc)"
"""In place of a device, of scores that other code has part in."""


class TorchBench:
    """A task on a device: makes evaluators, which share one live module.

    `identity` is the task's name and version, `source` its code, `task_args` its arguments as the question
    names them, which are asked for when a split was opened; `checkpoints` hands out weights.
    `outputs` remembers completed passes: several benches may share it. `overlays` remembers statistics of
    soups; a bench of its own does without. `say` is told, once each, what stands in the way of exact early
    rejection. `device` is a name of torch's; without it CUDA where there is one. It
    is opened for the first evaluator; nothing is evaluated, and no batch is made, before one is asked. Every
    method raises BadTask where the task breaks its contract, an unknown or empty split included,
    and DeviceLost where the device cannot be used any more.
    """

    def __init__(  # noqa: PLR0913 - what it works with, each once
        self,
        task: Task,
        *,
        identity: tuple[str, str],
        source: SourceIdentity = SourceIdentity(),  # noqa: B008 - frozen
        task_args: Mapping[str, str],
        checkpoints: Checkpoints,
        device: str | torch.device | None = None,
        outputs: RememberedOutputs | None = None,
        overlays: Overlays | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        checked = CheckedTask(task, identity[0])
        self.workspace = Workspace(
            checked, checkpoints, device, outputs or RememberedOutputs(), say, overlays
        )
        self._identity = identity
        self._source = source
        self._task_args = task_args
        self._evaluators: dict[tuple[str, bool, bool, str | None], TorchEvaluator] = {}
        self._passes = 0.0
        """By evaluators that are gone."""

    @property
    def passes(self) -> float:
        """Forward work of all its evaluators so far, in full passes over a split, and of estimating
        statistics, in full passes over its examples.
        """
        return self._passes + self._measured + self.workspace.statistics.passes

    @property
    def _measured(self) -> float:
        """By evaluators that are there. A pass over a part is that part of one."""
        return sum(
            evaluator.passes * evaluator.protocol.n / len(self.workspace.split(split).examples)
            for (split, *_), evaluator in self._evaluators.items()
        )

    def heed(self, recipe: Recipe, protocol: Digest, score: Score) -> None:
        """Let a score that was measured elsewhere, or earlier, help to foresee those of later trials."""
        if score.gaps is not None:
            self.workspace.outputs.hint(recipe.digest, protocol, score.examples, score.gaps)

    def fits(self, tensors: Sequence[TensorSpec]) -> tuple[str, ...]:
        """How a checkpoint's tensors differ from what the task's model takes; empty if they fit."""
        return fits(self.workspace.models.made, tensors)

    def evaluator(
        self, split: str, *, compared: bool = True, plain: bool = False, domain: str | None = None
    ) -> TorchEvaluator:
        """Scores recipes on this split, or on its examples of one domain; the same one each time.

        `compared`: a metric of the whole split has the replicates of the jackknife; without, it is another
        protocol. `plain`: always in full, in order, on batches made anew for each pass, from weights set anew
        without the hot swap, and remembering nothing: what every faster way must agree with. Names the
        split's content, which may read every example.
        """
        shared = self.workspace
        compared &= shared.task.measures_whole  # else it makes no difference
        key = split, compared, plain, domain
        if key not in self._evaluators:
            other = self._evaluators.get((split, compared, not plain, domain))
            places = None
            if domain is not None:
                places = [i for i, label in enumerate(self.domains(split) or ()) if label == domain]
            origins = partial(self._origins, split, places) if compared else None
            protocol = self._protocol(split, origins) if other is None else other.protocol
            if domain is not None and places is not None and other is None:
                protocol = _of_part(protocol, domain, places)
            batches = shared.batches(split, places, fresh=plain)
            whole = WholeSplit(shared.task, batches, origins) if shared.task.measures_whole else None
            self._evaluators[key] = TorchEvaluator(shared, batches, protocol, whole=whole, plain=plain)
        return self._evaluators[key]

    @property
    def has_log_likelihoods(self) -> bool:
        """Whether the task tells how likely a model finds each position of an example, and scores by that: a
        metric of all examples is made of something else.
        """
        return self.workspace.task.has_log_likelihoods and not self.measures_whole

    def log_likelihoods(self, recipe: Recipe, split: str) -> tuple[float, ...]:
        """Of each example, the sum over its positions."""
        return self.evaluator(split, compared=False).log_likelihoods(recipe)

    def features(self, splits: Sequence[str]) -> dict[str, Floats]:
        """What the task tells of examples before a model answers, by split; empty where it tells none."""
        return self.workspace.task.features(
            {split: len(self.workspace.split(split).examples) for split in splits}
        )

    def mixed_log_likelihoods(
        self, experts: Sequence[Recipe], ways: Sequence[Floats], split: str
    ) -> list[tuple[float, ...]]:
        """Of each way to mix them, and of each example, the sum over its positions."""
        return self.evaluator(split, compared=False).mixed_log_likelihoods(experts, ways)

    def ensemble(
        self, ensemble: Ensemble, split: str, *, compared: bool = True, domain: str | None = None
    ) -> Score | None:
        """What the members score by the mean of their outputs, without a forward pass.

        None where the outputs of one are not remembered, or cannot be averaged.
        """
        return self.evaluator(split, compared=compared, domain=domain).ensemble(ensemble)

    @property
    def batch_size(self) -> int:
        """Examples that are evaluated at a time."""
        return self.workspace.batch_size

    @property
    def unit(self) -> str | None:
        """What scores are told in: None for points, hundredths of a score between 0 and 1."""
        return self.workspace.task.unit

    def beside(self, split: str, score: float) -> Mapping[str, float]:
        """What else a score on this split says, by name, for people. Raises BadTask."""
        return self.workspace.task.beside(split, score)

    @property
    def has_ensembles(self) -> bool:
        """Whether models' outputs are answers, whose mean is that of an ensemble."""
        return not self.workspace.task.outputs_are_scores

    def halve_batch(self) -> None:
        """Make the evaluators that are opened from now on take half as many examples at a time, or one."""
        self._passes += self._measured
        self._evaluators.clear()
        self.workspace.halve_batch()

    @property
    def keeps_statistics(self) -> bool:
        """Whether the model has BatchNorm, whose statistics soups get anew."""
        return bool(norms_of(self.workspace.models.made))

    def overlay_rule(self, split: str, *, but: Sequence[str] = ()) -> OverlayRule | None:
        """By which soups get statistics on this split; None where the model keeps none. From now on it is
        done so.

        Reads the examples, to name them. Raises BadRequest where they are those of one of the splits `but`
        which it must not be, besides what all methods raise.
        """
        if not self.keeps_statistics:
            return None
        shared = self.workspace
        data, total = self._named_part(split), len(shared.split(split).examples)
        for other in but:
            if len(shared.split(other).examples) == total and self._named_part(other) == data:
                raise BadRequest(
                    f"splits {split} and {other} hold the same data: statistics that are estimated on what a "
                    "soup is reported on make its score say less about new data",
                    mend="name another split with --statistics-on",
                )
        n = len(spread(total))
        question = self._question(split, data, n, self._identity[1])
        shared.statistics.rule = OverlayRule(split, n, VERSION, question.digest)
        return shared.statistics.rule

    def _named_part(self, split: str) -> Digest:
        shared = self.workspace
        return shared.task.digest(
            split, shared.split(split).examples, lambda examples: Part(examples, spread(len(examples)))
        )

    def groups(self, split: str) -> tuple[Hashable, ...] | None:
        """The origin of each example, where the task tells."""
        return self.workspace.task.groups(split, len(self.workspace.split(split).examples))

    @property
    def measures_whole(self) -> bool:
        """Whether a metric of the whole split counts, which is no mean over its examples."""
        return self.workspace.task.measures_whole

    def domains(self, split: str) -> tuple[str, ...] | None:
        """The domain of each example, where the task tells."""
        return self.workspace.task.domains(split, len(self.workspace.split(split).examples))

    def example(self, split: str, n: int) -> Any:
        """The model's input for the split's first `n` examples, padded like a batch, on the CPU."""
        task, examples = self.workspace.task, self.workspace.split(split).padded(0, n)
        return task.inputs(task.collate(examples, f"split {split!r}, examples from 0"))

    def seconds(self, recipe: Recipe, split: str) -> float:
        """Of a pass over the split's first batch, on the device, with the recipe's weights in place."""
        return self.evaluator(split).seconds(recipe)

    def served_protocol(self, split: str, software: tuple[tuple[str, str], ...]) -> EvaluationProtocol:
        """Under which a model that is served by other code is scored."""
        protocol = self.evaluator(split).protocol
        conditions = replace(protocol.conditions, device=SERVED, software=software)
        return replace(protocol, conditions=conditions)

    def score_served(self, served: Served, split: str) -> Score:
        """Of a model that is served by other code. Raises Incompatible where it does not fit the task."""
        return self.evaluator(split).served(served)

    def module_with(self, recipe: Recipe) -> nn.Module:
        """A fresh module with the recipe's weights, on the CPU, in evaluation mode. Raises Incompatible."""
        return self.workspace.models.on_cpu(recipe)

    def language_model(self, recipe: Recipe, split: str, n: int) -> LanguageModel:
        """A fresh module with the recipe's weights, on the CPU, and `n` examples that are spread over the
        split. Raises BadTask, also where it is no model of token ids, and Incompatible.
        """
        shared, examples = self.workspace, self.workspace.split(split).examples
        chosen = Part(examples, spread(len(examples))[:n])
        where = f"split {split!r}, recipe {short(recipe.digest)} on the CPU"
        return LanguageModel(shared.task, self.module_with(recipe), chosen, where)

    def _origins(self, split: str, places: Sequence[int] | None) -> Sequence[Hashable] | None:
        """Of all examples, or of those at some places."""
        groups = self.groups(split)
        return groups if groups is None or places is None else [groups[place] for place in places]

    def _protocol(self, split: str, origins: Origins | None) -> EvaluationProtocol:
        shared, examples = self.workspace, self.workspace.split(split).examples
        version = self._identity[1] + self._measuring(origins)
        question = self._question(split, shared.task.digest(split, examples), len(examples), version)
        devices = [shared.device]
        if shared.task.measures_whole and shared.device.type != "cpu":
            devices.append(torch.device("cpu"))  # the metric's
        conditions = Conditions(
            dtype=_float_dtypes(shared.models.module),
            tf32=False,
            batch_size=shared.batch_size,
            device=", metric on ".join(device_model(device, shared.threads) for device in devices),
            torch_version=torch.__version__,
            software=software(shared.device),
        )
        return EvaluationProtocol(question, conditions)

    def _question(self, split: str, dataset: Digest, n: int, version: str) -> Question:
        """Asked for last, so that what the task downloads or makes when it opens its examples is there."""
        return Question(
            task=self._identity[0],
            task_version=version,
            split=split,
            dataset=dataset,
            task_args=tuple(sorted(self._task_args.items())),
            n=n,
            modules=self._source.modules,
            distributions=self._source.distributions,
        )

    def _measuring(self, origins: Origins | None) -> str:
        """What a metric adds to the task's version: what an older release scored by the mean, or a base class
        measures now, is another protocol. So are other blocks of the jackknife, which groups decide, or none.
        """
        if not self.workspace.task.measures_whole:
            return ""
        if origins is None:
            return "+metric-value"
        groups = origins()
        if groups is None:
            return "+metric"
        content = repr(blocks(len(groups), groups)).encode()
        return f"+metric-{short(digest_of_bytes(content))}"


def _of_part(whole: EvaluationProtocol, domain: str, places: Sequence[int]) -> EvaluationProtocol:
    """Under which the examples at these places are scored, as a split of its own."""
    question = whole.question
    part = digest_of_document([question.dataset, [*places]])
    return replace(
        whole,
        question=replace(question, split=f"{question.split} of {domain}", dataset=part, n=len(places)),
    )


def _float_dtypes(module: nn.Module) -> str:
    """Such as "float32"; several are joined by "+" where a module mixes them."""
    tensors = chain(module.parameters(), module.buffers())
    return "+".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()}))
