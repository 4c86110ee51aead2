"""Scores recipes with torch: one live module, and batches that stay on the device where they fit."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from stockpot.entities import (
    Digest,
    Ensemble,
    EvaluationProtocol,
    Outcome,
    Recipe,
    Score,
    Threshold,
    Trial,
    digest_of_document,
    short,
)
from stockpot.errors import BadTask, NotFinite, OutOfDeviceMemory
from stockpot.evaluation.devices.device import random_state, reproducible
from stockpot.evaluation.devices.device_faults import no_way_around
from stockpot.evaluation.outputs import Floats, PassMemory, Remembered
from stockpot.evaluation.passes.batches import Batches
from stockpot.evaluation.passes.forward import Forward, of_ensemble, of_model, of_outputs
from stockpot.evaluation.passes.mixture import Mixture
from stockpot.evaluation.passes.served_module import ServedModule, require_alike
from stockpot.evaluation.passes.whole_split import WholeSplit
from stockpot.evaluation.rejection.early_rejection import EarlyRejection, Reorders
from stockpot.evaluation.weights.proofs import unchanged
from stockpot.evaluation.workspace import Workspace
from stockpot.ports import Interrupted, Served, Wanted, always

T = TypeVar("T")


class TorchEvaluator:
    """Scores recipes on one split, in batches of fixed size.

    A trial with a threshold stops with a Bound once it cannot be accepted, where the task's scores are
    bounded; its batches then come in another order, of other examples where that changes no bit of what
    the model says. A Score is always that of the canonical batches. `whole`: where the task has a metric.
    `plain`: everything in full and in order, with weights set anew; where predicting draws random numbers,
    with others than it draws at first.
    """

    def __init__(
        self,
        shared: Workspace,
        batches: Batches,
        protocol: EvaluationProtocol,
        *,
        whole: WholeSplit | None,
        plain: bool,
    ) -> None:
        self.protocol = protocol
        self.batches_done = 0
        """Forward batches so far, those of probes and of trials that were called off included."""
        self._shared = shared
        self._batches = batches
        self._whole = whole
        self._plain = plain
        remembered = None if plain else shared.outputs
        self._memory = PassMemory(remembered, protocol.digest)
        self._likely = PassMemory(remembered, digest_of_document([protocol.digest, "log likelihoods"]))
        """With sums of log likelihoods in the place of scores."""
        never = "" if plain else "the task measures the split as a whole" if whole is not None else None
        self._rejection = EarlyRejection(batches, shared.task.bounds, self._memory, self._say, never=never)

    @property
    def passes(self) -> float:
        """Forward work so far, in full passes."""
        return self.batches_done / self._batches.count

    @property
    def reorders(self) -> Reorders:
        """What comes in another order in a trial with a threshold, as far as is known by now."""
        return self._rejection.reorders

    @property
    def order_dependent(self) -> bool:
        """Whether outputs are known to depend on the batch: only whole batches are re-ordered then."""
        return self._rejection.order_dependent

    def keep_batches(self) -> None:
        """Re-order no examples any more: another evaluator of this split knows that outputs depend on it."""
        self._rejection.keep_batches()

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order.

        Raises BadTask or Incompatible; OutOfDeviceMemory where a batch does not fit the device, DeviceLost
        where that is gone; Interrupted once nothing is `wanted`; OrderDependent when a probe had found
        that outputs do not depend on the batch, and they turned out to: start the search anew then, since
        mixed Bounds under this protocol may be false. Scores are true, and it is exact from then on.
        A soup whose weights overflow, of ingredients that are finite, scores NaN: no method accepts it. An
        ensemble of models whose outputs cannot be kept raises BadTask; so does any on a `plain` evaluator.
        """
        outcomes: list[Outcome] = []
        for place, trial in enumerate(trials, start=1):
            following = next(iter([*trials[place:], *then]), None)
            where = self._where(f"recipe {short(trial.recipe.digest)}")
            outcomes.append(
                self._where_it_fits(partial(self._outcome, trial, following, wanted, where), where)
            )
        return outcomes

    def ensemble(self, ensemble: Ensemble) -> Score | None:
        """What the members score by the mean of their outputs, without a forward pass.

        None where the outputs of one are not remembered, or cannot be averaged.
        """
        parts = self._memory.summed(ensemble, self._shared.sums)
        where = self._where(f"the ensemble {short(ensemble.digest)}")
        if parts is None:
            return None
        score = self._shared.on_device(partial(self._ensemble, ensemble, parts, where), where)
        return replace(score, gaps=None)  # nothing is foreseen by them

    def _ensemble(self, ensemble: Ensemble, parts: tuple[Tensor | None, Tensor], where: str) -> Score:
        device = self._shared.device
        answer = of_ensemble(ensemble, parts, device, self._batches.size)
        forward = Forward(
            self._shared.task, self._batches, answer, where=where, keeps=lambda _: self._whole is not None
        )
        with reproducible(device), torch.inference_mode():
            return self._measured(forward)

    def log_likelihoods(self, recipe: Recipe) -> tuple[float, ...]:
        """Of each example, the sum over its positions. Without a pass where outputs, or it, are remembered.

        Raises BadTask, Incompatible and NotFinite, and what a device raises.
        """
        known = self._likely.known(recipe)
        if known is not None:
            return tuple(known.scores.tolist())
        where = self._where(f"log likelihoods by recipe {short(recipe.digest)}")
        sums = self._likelihoods(recipe, where, Forward.log_likelihoods)
        self._likely.keep(recipe, sums, np.zeros_like(sums), [None])
        return tuple(sums.tolist())

    def mixed_log_likelihoods(
        self, experts: Sequence[Recipe], ways: Sequence[Floats]
    ) -> list[tuple[float, ...]]:
        """Of each way to mix them, and of each example, the sum over its positions. Raises as
        `log_likelihoods`.

        An expert may be named twice. `ways`: shares of each example, ``[examples, experts]``.
        """
        outputs, protocol = self._shared.outputs, self.protocol.digest
        names = [_name_of_mixed(experts, way) for way in ways]
        known = [outputs.get(name, protocol) for name in names]
        found = [one.scores for one in known if one is not None]
        if len(found) < len(ways):
            found = self._mixed(experts, ways)
            for name, sums in zip(names, found, strict=True):
                outputs.keep(name, protocol, Remembered(sums, np.zeros_like(sums), None))
        return [tuple(sums.tolist()) for sums in found]

    def _mixed(self, experts: Sequence[Recipe], ways: Sequence[Floats]) -> list[Floats]:
        mixtures = [Mixture() for _ in ways]
        for expert in dict.fromkeys(experts):
            where = self._where(f"log likelihoods of positions by recipe {short(expert.digest)}")
            logs = self._likelihoods(expert, where, Forward.position_log_likelihoods)
            own = [at for at, one in enumerate(experts) if one == expert]
            for mixture, way in zip(mixtures, ways, strict=True):
                mixture.add(logs, way[:, own].sum(axis=1))
        return [mixture.sums() for mixture in mixtures]

    def _likelihoods(self, recipe: Recipe, where: str, read: Callable[[Forward], T]) -> T:
        return self._shared.on_device(partial(self._read_likelihoods, recipe, where, read), where)

    def _read_likelihoods(self, recipe: Recipe, where: str, read: Callable[[Forward], T]) -> T:
        shared, size = self._shared, self._batches.size
        forward = partial(Forward, shared.task, self._batches, where=where, keeps=lambda _: False)
        self._batches.make()
        known = self._memory.known(recipe, outputs=True)
        if known is not None and known.outputs is not None:
            with reproducible(shared.device), torch.inference_mode():
                return read(forward(of_outputs(known.outputs, shared.device, size)))
        module = shared.models.holding(recipe)
        with self._settled(module, where):
            count = partial(self._count, always)
            return read(forward(of_model(shared.task, module, size), count=count))

    def served(self, served: Served) -> Score:
        """The score of a model that is served by other code, asked what the task asks its own. Nothing of it
        is remembered.

        Raises Incompatible where it does not fit the task, with shapes and types, and BadTask.
        """
        where = self._where("a served model")
        score = self._shared.on_device(partial(self._of_served, served, where), where)
        return replace(score, gaps=None)

    def _of_served(self, served: Served, where: str) -> Score:
        shared, said = self._shared, list[object]()
        hook = shared.models.module.register_forward_hook(lambda _, __, output: said.append(output))
        try:
            own = self._first_outputs(where, shared.models.module)
        finally:
            hook.remove()
        module = ServedModule(served, next(iter(said), None), shared.device).eval()
        ask = of_model(shared.task, module, self._batches.size)
        forward = Forward(
            shared.task,
            self._batches,
            lambda batch, at, told: require_alike(ask(batch, at, told), own, same_batch=at[0] == 0),
            where=where,
            keeps=lambda _: self._whole is not None,
        )
        with reproducible(shared.device), torch.inference_mode():
            score = self._measured(forward)
        if module.gives_probabilities:
            self._say("a served model predicts probabilities: their logarithms are taken, as of logits")
        return score

    def _where_it_fits(self, work: Callable[[], Outcome], where: str) -> Outcome:
        """The outcome. Where it does not fit, what is kept on the device gives way: batches, then outputs."""
        try:
            return self._shared.on_device(work, where)
        except OutOfDeviceMemory:
            if not self._memory.keeps_outputs:
                raise
        self._memory.keep_no_outputs()
        outcome = self._shared.on_device(work, where)
        self._say("the device has no room to keep outputs")
        return outcome

    def _outcome(self, trial: Trial, following: Trial | None, wanted: Wanted, where: str) -> Outcome:
        """With the weights that it takes. Those of the trial that follows are loaded meanwhile."""
        models, recipe = self._shared.models, trial.recipe
        self._batches.make()
        if isinstance(recipe, Ensemble):
            return self._together(recipe, wanted, where)
        try:
            module = (models.made_anew if self._plain else models.holding)(
                recipe, partial(self._look, wanted)
            )
        except NotFinite:
            if not recipe.is_soup:
                raise
            return Score((math.nan,) * self.protocol.n, self._whole.undefined() if self._whole else None)
        if not self._plain:
            models.prove_swap(recipe, partial(self._first_outputs, where), where)
            if following is not None:
                models.prepare(following.recipe)
        forward = Forward(
            self._shared.task,
            self._batches,
            of_model(self._shared.task, module, self._batches.size),
            where=where,
            keeps=lambda outputs: self._whole is not None or self._memory.wants(outputs),
            count=partial(self._count, wanted),
        )
        outcome = self._early(recipe, trial.must_reach, module, forward)
        return self._in_full(recipe, module, forward) if outcome is None else outcome

    def _together(self, ensemble: Ensemble, wanted: Wanted, where: str) -> Score:
        """From outputs that are remembered; a member without them is evaluated first."""
        for member in ensemble.members:
            self._memory.ask_for(member)
            if self._memory.known(member, outputs=True) is None:
                self._outcome(Trial(member), None, wanted, where)
        score = self.ensemble(ensemble)
        if score is None:
            raise BadTask(
                f"outputs of its models are not kept, {where}: they are no floats, too large, or do not fit",
                mend="compare with ensembles where predict() gives floats, at most "
                f"{self._shared.outputs.bytes_per_example} bytes per example",
            )
        return score

    def seconds(self, recipe: Recipe) -> float:
        """Of a forward pass over the first batch, once its weights are in place and a pass has warmed them
        up.
        """
        where = self._where(f"timing recipe {short(recipe.digest)}")
        return self._shared.on_device(partial(self._timed, recipe, where), where)

    def _timed(self, recipe: Recipe, where: str) -> float:
        module = self._shared.models.holding(recipe)
        self._first_outputs(where, module)
        with self._settled(module, where):
            first = self._batches.first()
            self._wait()
            begun = perf_counter()
            self._shared.task.outputs(module, first, self._batches.size, where)
            self._wait()
            return perf_counter() - begun

    def _wait(self) -> None:
        """Until the device has done what it was told."""
        if self._shared.device.type == "cuda":
            torch.cuda.synchronize(self._shared.device)

    def _early(
        self, recipe: Recipe, must_reach: Threshold | None, module: nn.Module, forward: Forward
    ) -> Outcome | None:
        """The outcome of a trial that may stop early; None where it may not, or should not have."""
        if must_reach is None or not self._rejection.possible():
            return None
        with self._settled(module, forward.where) as drew:
            ended = self._rejection.decide(forward, recipe, must_reach)
            if not drew():
                if isinstance(ended.outcome, Score):
                    self._memory.keep(recipe, ended.tally.scores, ended.tally.gaps, ended.outputs)
                return ended.outcome
        # In another order it drew other random numbers: all over again, from the seed.
        self._rejection.take_for_random()
        self._rejection.possible()
        return None

    def _in_full(self, recipe: Recipe, module: nn.Module, forward: Forward) -> Score:
        with self._settled(module, forward.where) as drew:
            score = self._measured(forward, recipe)
            if drew():
                self._rejection.take_for_random()
                if self._plain:
                    # From one seed it repeats itself; with other numbers it is seen whether they count.
                    score = self._measured(forward, recipe)
        return score

    def _measured(self, forward: Forward, recipe: Recipe | None = None) -> Score:
        """All canonical batches in order; read once, at the end. Remembered as the pass of this recipe."""
        readings, kept = [], []
        for place, batch in enumerate(self._batches):
            answers = forward.answers(batch, self._batches.places(place), canonical=True)
            readings.append(answers.readings)
            outputs = answers.outputs
            if outputs is not None and (recipe is None or not self._memory.wants(outputs)):
                outputs = outputs.cpu()  # those that will not be remembered leave the device at once
            kept.append(outputs)
        scores, gaps = forward.checked(torch.cat(readings, dim=1).cpu(), range(self.protocol.n))
        metric = self._whole.metric(kept, forward.where) if self._whole is not None else None
        if recipe is not None:
            self._memory.keep(recipe, scores, gaps, kept)
        return Score(tuple(scores.tolist()), metric, tuple(gaps.tolist()))

    def _first_outputs(self, where: str, module: nn.Module) -> Tensor:
        """What a module says to the first batch."""
        with self._settled(module, where):
            first = self._batches.first()
            return self._shared.task.outputs(module, first, self._batches.size, where).clone()

    def _count(self, wanted: Wanted) -> None:
        self._look(wanted)
        self.batches_done += 1

    def _look(self, wanted: Wanted) -> None:
        if not wanted():
            raise Interrupted

    @contextmanager
    def _settled(self, module: nn.Module, where: str) -> Iterator[Callable[[], bool]]:
        """A reproducible pass, which leaves the module as it is. Gives: whether it drew random numbers."""
        device = self._shared.device
        with (
            no_way_around(device, where),
            reproducible(device),
            torch.inference_mode(),
            unchanged(module, where),
        ):
            before = random_state(device)
            yield lambda: not torch.equal(before, random_state(device))

    def _where(self, what: str) -> str:
        return f"split {self._batches.split.name!r}, {what}"

    def _say(self, sentence: str) -> None:
        self._shared.say(f"split {self._batches.split.name!r}: {sentence}")


def _name_of_mixed(experts: Sequence[Recipe], way: Floats) -> Digest:
    """No recipe has it."""
    shares = sha256(np.ascontiguousarray(way).tobytes()).hexdigest()
    return digest_of_document({"mixed": [expert.digest for expert in experts], "shares": shares})
