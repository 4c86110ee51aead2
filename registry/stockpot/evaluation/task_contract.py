"""The contract of a task, looked at on two batches of a split, by the same code that evaluates.

`stockpot task check` tells what is broken; `stockpot.testing.task_contract` is the same as a suite of tests.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from stockpot.entities.domain import label_faults
from stockpot.errors import BadTask
from stockpot.evaluation.devices.device import all_seeded, reproducible, seeded
from stockpot.evaluation.passes.batches import Batches, Split
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.passes.dataset_digest import require_same
from stockpot.evaluation.passes.whole_split import WholeSplit
from stockpot.evaluation.weights.module_weights import architecture_of
from stockpot.ports import Task
from stockpot.prose import counted
from stockpot.soup import differences

CPU = torch.device("cpu")
ROUNDING = 1e-3
"""What other kernels, which a batch of another size may take, change of a score of about one."""


class TaskOnTrial:
    """A task, a split of it, and what its model says to the first two batches. On the CPU.

    `make` makes the task, anew each time. Everything raises BadTask where the task breaks its contract.
    """

    def __init__(self, make: Callable[[], Task], name: str, split: str) -> None:
        self._make = make
        self._name = name
        self.split = split

    def made(self) -> CheckedTask:
        """Another one."""
        with all_seeded():
            return CheckedTask(self._make(), self._name)

    @cached_property
    def task(self) -> CheckedTask:
        """The one that is looked at."""
        return self.made()

    @cached_property
    def examples(self) -> Sequence[Any]:
        """All of the split."""
        return self.task.examples(self.split)

    @cached_property
    def module(self) -> nn.Module:
        """With the weights that it was made with, whatever they are."""
        with seeded():
            return self.task.model()

    @cached_property
    def batches(self) -> Batches:
        """Of the first examples, two batches where there are so many."""
        size = self.task.batch_size
        first = [self.examples[place] for place in range(min(len(self.examples), 2 * size))]
        return Batches(Split(self.split, first), size, self.task, CPU)

    def answers(self, size: int, batch: Any, where: str, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Outputs and scores of a batch. `seed`: of random numbers, which nothing should depend on."""
        with reproducible(CPU), torch.inference_mode(), torch.random.fork_rng([]):
            torch.manual_seed(seed)
            outputs = self.task.outputs(self.module, batch, size, where)
            return outputs, self.task.scores(outputs, batch, size, where)

    @cached_property
    def answered(self) -> list[tuple[Tensor, Tensor]]:
        """Outputs and scores of each of the batches."""
        size = self.batches.size
        return [
            self.answers(size, self.batches[place], self._where(place)) for place in range(self.batches.count)
        ]

    @cached_property
    def scores(self) -> list[float]:
        """Of the first examples."""
        return torch.cat([scores for _, scores in self.answered])[: self.batches.n].tolist()

    def initialised(self, seed: int) -> nn.Module:
        """Another model, where making one draws random numbers."""
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return self.task.model()

    def factors(self, module: nn.Module) -> list[float]:
        """Of the first batch's examples: a score by a sum of log likelihoods. NaN where both are zero."""
        batch, size, where = self.batches[0], self.batches.size, self._where(0)
        with reproducible(CPU), torch.inference_mode():
            outputs = self.task.outputs(module, batch, size, where)
            scores = self.task.scores(outputs, batch, size, where)
            sums = self.task.log_likelihoods(outputs, batch, size, where).sum(dim=1)
        return (scores / sums).tolist()

    def broken(self, what: str, mend: str) -> BadTask:
        """What is raised for this task."""
        return BadTask(f"task {self._name}: {what}", mend=mend)

    def _where(self, batch: int) -> str:
        return f"examples from {self.batches.places(batch).start} of split {self.split!r}"


def is_made_alike_each_time(trial: TaskOnTrial) -> str:
    """Made twice, a task has the same model, bounds and batches."""
    with seeded():
        models = [architecture_of(task.model()) for task in (trial.task, trial.task, trial.made())]
    for other in models[1:]:
        if faults := differences(models[0], other):
            what = f"model() is another one each time: {'; '.join(faults)}"
            raise trial.broken(what, "let model() build the same architecture each time that it is called")
    before, after = ((task.bounds, task.batch_size, task.unit) for task in (trial.task, trial.made()))
    if before != after:
        what = f"bounds, batch_size and unit are {before}, and {after} when it is made again"
        raise trial.broken(what, "let them depend on the task's arguments alone")
    return f"{counted(len(models[0]), 'tensor')}"


def gives_the_same_examples_in_the_same_order(trial: TaskOnTrial) -> str:
    """Also when the split is opened again, by another instance."""
    require_same(trial.examples, trial.made().examples(trial.split), trial.split)
    return f"{counted(len(trial.examples), 'example')}"


def names_its_data(trial: TaskOnTrial) -> str:
    """By its own digest, else by the content of all examples."""
    digest = trial.task.digest(trial.split, trial.examples)
    if digest != trial.task.digest(trial.split, trial.examples):
        raise trial.broken("digest() is another one each time", "make it of the split's content alone")
    return digest[:19]


def tells_origins(trial: TaskOnTrial) -> str:
    """One of each example, where there are any."""
    groups = trial.task.groups(trial.split, len(trial.examples))
    return "each example its own" if groups is None else counted(len(set(groups)), "origin")


def tells_domains(trial: TaskOnTrial) -> str:
    """One label of each example, where there are any."""
    domains = trial.task.domains(trial.split, len(trial.examples))
    if faults := [*label_faults(domains or ())]:
        raise trial.broken(f"domains() tells odd labels: {'; '.join(faults)}", "name them anew")
    return "none" if domains is None else counted(len(set(domains)), "domain")


def tells_features(trial: TaskOnTrial) -> str:
    """A row of numbers of each example, where they have a use: elsewhere a method of that name is its own."""
    if not trial.task.has_log_likelihoods:
        return "none"
    found = trial.task.features({trial.split: len(trial.examples)})
    return counted(found[trial.split].shape[1], "dimension") if found else "none"


def makes_batches_of_one_shape(trial: TaskOnTrial) -> str:
    """The short last one is padded by Stockpot."""
    trial.batches.make()
    list(trial.batches)
    trial.task.inputs(trial.batches.first())
    if not trial.batches.even:
        return "shapes differ from batch to batch: trials still stop early, but later. Pad to a fixed length"
    return f"batches of {trial.batches.size}"


def predicts_and_scores_each_example(trial: TaskOnTrial) -> str:
    """Within the bounds."""
    trial.task.check_bounds(trial.scores, range(len(trial.scores)), f"split {trial.split!r}")
    return f"scores from {min(trial.scores):.4g} to {max(trial.scores):.4g}, of the model as it is made"


def scores_numbers(trial: TaskOnTrial) -> str:
    """Of the model as it is made; and NaN where the outputs are NaN: such a model has diverged."""
    wrong = [place for place, score in enumerate(trial.scores) if score != score]  # noqa: PLR0124 - of NaN alone
    if wrong:
        what = f"score() is NaN for {counted(len(wrong), 'example')}, example {wrong[0]} the first"
        raise trial.broken(what, "return a number wherever the outputs are numbers")
    outputs, _ = trial.answered[0]
    if not outputs.is_floating_point():
        return ""
    nothing = torch.full_like(outputs, torch.nan)
    batch, size = trial.batches[0], trial.batches.size
    if trial.task.scores(nothing, batch, size, "outputs of NaN").isnan().all():
        return ""
    return (
        "outputs of NaN are scored as numbers: a model that diverged looks like a guess. Return NaN for them"
    )


def scores_alike_each_time(trial: TaskOnTrial) -> str:
    """Nothing is drawn at random while it predicts."""
    _, before = trial.answered[0]
    _, after = trial.answers(trial.batches.size, trial.batches[0], "the first batch", seed=1)
    if not torch.equal(before.nan_to_num(), after.nan_to_num()):
        mend = "leave the model in evaluation mode, and draw nothing at random in predict() and score()"
        raise trial.broken("the same batch scores otherwise when it is scored again", mend)
    return ""


def scores_an_example_alike_in_every_batch(trial: TaskOnTrial) -> str:
    """A batch of one, against the same example among others."""
    _, among = trial.answered[0]
    batch = trial.task.collate([trial.examples[0]], "a batch of one")
    _, alone = trial.answers(1, batch, "a batch of one")
    before, after = float(among[0]), float(alone[0])
    if abs(before - after) > ROUNDING * max(1.0, abs(before)):
        what = (
            f"example 0 scores {before:.6g} among others, and {after:.6g} alone: it depends on its neighbours"
        )
        mend = "let predict() and score() look at each example by itself: no statistics of the batch"
        raise trial.broken(what, mend)
    return ""


def tells_log_likelihoods(trial: TaskOnTrial) -> str:
    """Where it does: a score is their sum times what depends on the example, and not on the model."""
    if not trial.task.has_log_likelihoods:
        return "none"
    made, other = trial.factors(trial.module), trial.factors(trial.initialised(seed=1))
    wrong = [
        place
        for place, (one, two) in enumerate(zip(made, other, strict=True))
        if not (math.isnan(one) or (one > 0 and abs(one - two) <= ROUNDING * one))
    ]
    if wrong:
        what = (
            f"score() is {made[wrong[0]]:.6g} times the sum of log_likelihood() for example {wrong[0]}, and "
            f"{other[wrong[0]]:.6g} times with other weights"
        )
        mend = "let score() be their sum, or their mean over the example's positions"
        raise trial.broken(what, mend)
    told = [factor for factor in made if factor > 0] or [math.nan]
    return f"scores are {min(told):.4g} to {max(told):.4g} times their sums"


def measures_a_whole_split(trial: TaskOnTrial) -> str:
    """By its metric, where it has one."""
    if not trial.task.measures_whole:
        return "no metric: the mean over examples"
    whole = WholeSplit(trial.task, trial.batches)
    outputs = [o[: len(trial.batches.places(place))] for place, (o, _) in enumerate(trial.answered)]
    with reproducible(CPU), torch.inference_mode():
        return f"{whole.metric(outputs, f'split {trial.split!r}').value:.6g}"


PROMISES: Mapping[str, Callable[[TaskOnTrial], str]] = {
    check.__name__.replace("_", " "): check
    for check in (
        is_made_alike_each_time,
        gives_the_same_examples_in_the_same_order,
        names_its_data,
        tells_origins,
        tells_domains,
        tells_features,
        makes_batches_of_one_shape,
        predicts_and_scores_each_example,
        scores_numbers,
        scores_alike_each_time,
        scores_an_example_alike_in_every_batch,
        tells_log_likelihoods,
        measures_a_whole_split,
    )
}
"""Each looks at one promise of the contract, and returns what it saw; it raises BadTask."""


@dataclass(frozen=True)
class Finding:
    """What was seen of one promise."""

    promise: str
    split: str
    seconds: float
    told: str = ""
    fault: str = ""
    """Why it is broken; empty where it is kept."""
    mend: str = ""


def look(trial: TaskOnTrial) -> Iterator[Finding]:
    """Every promise in turn. What breaks several of them is told with the first."""
    known: set[str] = set()
    for promise, check in PROMISES.items():
        begin = time.perf_counter()
        told = fault = mend = ""
        try:
            told = check(trial)
        except BadTask as error:
            fault, mend = "; ".join([error.what, *error.faults]), error.mend
        took = time.perf_counter() - begin
        if fault not in known:
            yield Finding(promise, trial.split, took, told, fault, mend)
        known |= {fault} if fault else set()
