"""Scores recipes with torch: one live module, and batches that stay on the device where they fit."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from stockpot.entities import Bound, EvaluationProtocol, Outcome, Recipe, Score, Threshold, Trial, short
from stockpot.errors import NotFinite, OutOfDeviceMemory
from stockpot.evaluation.devices.device import random_state, reproducible
from stockpot.evaluation.devices.device_faults import no_way_around
from stockpot.evaluation.outputs import Remembered
from stockpot.evaluation.passes.batches import Batches
from stockpot.evaluation.passes.forward import Forward
from stockpot.evaluation.passes.whole_split import WholeSplit
from stockpot.evaluation.rejection.early_pass import EarlyPass
from stockpot.evaluation.rejection.forecast import Floats, Forecast, Forecaster
from stockpot.evaluation.rejection.probe import PROBED, independent
from stockpot.evaluation.weights.unchanged import unchanged
from stockpot.ports import Interrupted, OrderDependent, Wanted, always

if TYPE_CHECKING:
    from stockpot.evaluation.torch_bench import TorchBench

Reorders = Literal["examples", "batches", "nothing"]


class TorchEvaluator:
    """Scores recipes on one split, in batches of fixed size.

    A trial with a threshold stops with a Bound once it cannot be accepted, where the task's scores are
    bounded; its batches then come in another order, of other examples where that changes no bit of what
    the model says. A Score is always that of the canonical batches. `plain`: everything in full and in order,
    with weights set anew; where predicting draws random numbers, with others than it draws at first.
    """

    def __init__(
        self,
        bench: "TorchBench",
        batches: Batches,
        protocol: EvaluationProtocol,
        *,
        compared: bool,
        plain: bool,
    ) -> None:
        self.protocol = protocol
        self.batches_done = 0
        """Forward batches so far, those of probes and of trials that were called off included."""
        self._bench = bench
        self._batches = batches
        self._plain = plain
        self._bounds = bench.task.bounds
        self._forecaster = Forecaster(self._bounds or (0.0, 1.0))
        self._mixable: bool | None = None  # not probed yet
        self._random = False  # whether predicting drew random numbers
        self.whole = WholeSplit(bench.task, batches, compared=compared) if bench.task.measures_whole else None
        """Where the task has a metric."""
        self._keeping = not plain  # outputs, until a pass is done
        self._wanted = always

    @property
    def passes(self) -> float:
        """Forward work so far, in full passes."""
        return self.batches_done / self._batches.count

    @property
    def reorders(self) -> Reorders:
        """What comes in another order in a trial with a threshold, as far as is known by now.

        Bounds of "examples" are mixed: true unless `order_dependent` turns out. Those of "batches" are true
        for good.
        """
        if self._obstacle() is not None or self._batches.count == 1:
            return "nothing"
        return "batches" if self._mixable is False or not self._batches.mixable else "examples"

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order.

        Raises BadTask or Incompatible; OutOfDeviceMemory where a batch does not fit the device, DeviceLost
        where that is gone; Interrupted once nothing is `wanted`; OrderDependent when a probe had found
        that outputs do not depend on the batch, and they turned out to: start the search anew then, since
        mixed Bounds under this protocol may be false. Scores are true, and it is exact from then on.
        A soup whose weights overflow, of ingredients that are finite, scores NaN: no method accepts it.
        """
        self._wanted = wanted
        outcomes: list[Outcome] = []
        for place, trial in enumerate(trials, start=1):
            outcomes.append(self._where_it_fits(trial, [*trials[place:], *then]))
        return outcomes

    @property
    def order_dependent(self) -> bool:
        """Whether outputs are known to depend on the batch: only whole batches are re-ordered then."""
        return self._mixable is False or not self._batches.even

    def keep_batches(self) -> None:
        """Re-order no examples any more: another evaluator of this split knows that outputs depend on it."""
        self._mixable = False

    def _prepare(self, following: Sequence[Trial]) -> None:
        """Let the bench load the next trial's last checkpoint while this one, whose weights are held by
        now, is evaluated.
        """
        if following and not self._plain:
            self._bench.models.prepare(following[0].recipe.checkpoints[-1])

    def _module(self, recipe: Recipe) -> nn.Module:
        """The live module with the recipe's weights; the plain evaluator takes another each time."""
        models = self._bench.models
        return models.made_anew(recipe) if self._plain else models.holding(recipe)

    def _where_it_fits(self, trial: Trial, following: Sequence[Trial]) -> Outcome:
        """The outcome. Where it does not fit, what is kept on the device gives way: batches, then outputs."""
        where = f"split {self._batches.split.name!r}, recipe {short(trial.recipe.digest)}"
        work = partial(self._outcome, trial, following, where)
        try:
            return self._bench.on_device(work, where)
        except OutOfDeviceMemory:
            if not self._keeping:
                raise
        self._keeping = False
        outcome = self._bench.on_device(work, where)
        self._say("the device has no room to keep outputs")
        return outcome

    def _outcome(self, trial: Trial, following: Sequence[Trial], where: str) -> Outcome:
        recipe = trial.recipe
        self._batches.make()
        try:
            module = self._module(recipe)
        except NotFinite:
            if not recipe.is_soup:
                raise
            return Score((math.nan,) * self.protocol.n, self.whole.undefined() if self.whole else None)
        if not self._plain:
            self._bench.models.prove_swap(recipe, partial(self._first_outputs, where), where)
        self._prepare(following)
        forward = Forward(
            self._bench.task, module, self._batches, where=where, count=self._count, keeps=self._keeps
        )
        if trial.must_reach is not None and self._early():
            with self._settled(module, where) as drew:
                outcome = self._until_decided(forward, recipe, trial.must_reach)
                if not drew():
                    return outcome
            # In another order it drew other random numbers: all over again, from the seed.
            self._random = True
            self._early()
        with self._settled(module, where) as drew:
            score = self._in_full(forward, recipe)
            self._random |= drew()
            if self._plain and drew():
                # From one seed it repeats itself; with other numbers it is seen whether they count.
                score = self._in_full(forward, recipe)
        return score

    def _first_outputs(self, where: str, module: nn.Module) -> Tensor:
        """What a module says to the first batch."""
        with self._settled(module, where):
            return self._bench.task.outputs(module, self._batches.first(), self._batches.size, where).clone()

    def _early(self) -> bool:
        """Whether a trial with a threshold may stop early; if not, that is said."""
        obstacle = self._obstacle()
        if obstacle:
            self._say(f"{obstacle}: every trial takes a full pass")
        return obstacle is None

    def _obstacle(self) -> str | None:
        """What stands in the way of stopping early; said unless empty."""
        if self._plain:
            return ""
        if self.whole is not None:
            return "the task measures the split as a whole"
        if self._bounds is None or not math.isfinite(self._bounds[1]):
            return "scores have no upper bound"
        if self._random:
            return "predicting or scoring draws random numbers"
        if not self._batches.any_order:
            return "making batches draws random numbers, and they do not fit into memory"
        return None

    def _in_full(self, forward: Forward, recipe: Recipe) -> Score:
        """All canonical batches in order; read once, at the end."""
        readings, kept = [], []
        for place, batch in enumerate(self._batches):
            answers = forward.answers(batch, self._batches.places(place), canonical=True)
            readings.append(answers.readings)
            kept.append(self._at_hand(answers.outputs))
        scores, gaps = forward.checked(torch.cat(readings, dim=1).cpu(), range(self.protocol.n))
        metric = self.whole.metric(kept, forward.where) if self.whole is not None else None
        self._remember(recipe, scores, gaps, kept)
        return Score(tuple(scores.tolist()), metric, tuple(gaps.tolist()))

    # Sums beyond the floats forecast nothing; the tally tells them exactly.
    @np.errstate(over="ignore", invalid="ignore")
    def _until_decided(self, forward: Forward, recipe: Recipe, threshold: Threshold) -> Score | Bound:
        assert self._bounds is not None  # noqa: S101 - for the type checker: _early() said so
        forecast = self._forecast(recipe)
        trial = EarlyPass(forward, threshold, self._bounds, forecast, self._mixes)
        try:
            ended = trial.run()
            self._require_even()
        except OrderDependent:
            self._mixable = False
            self._say("an example's outputs changed with its batch: whole batches are re-ordered from now on")
            raise
        tally = ended.tally
        if forecast is not None:
            self._forecaster.learn(forecast, tally.scores, tally.gaps, tally.seen)
        if isinstance(ended.outcome, Score):
            self._remember(recipe, tally.scores, tally.gaps, ended.outputs)
        return ended.outcome

    def _require_even(self) -> None:
        """Once examples were gathered: no batch made since then has another shape."""
        if self._mixable and not self._batches.even:
            raise OrderDependent("batches differ in shape")

    def _mixes(self, trial: EarlyPass) -> bool:
        """Whether examples may be gathered into other batches: probed once."""
        if not self._batches.mixable and self._batches.count > 1:
            why = "making batches draws random numbers" if self._batches.even else "batches differ in shape"
            self._say(f"{why}: whole batches are re-ordered")
        if self.reorders != "examples" or (self._mixable is None and trial.left < PROBED):
            return False
        if self._mixable is None:
            self._mixable = independent(trial)
            if not self._mixable:
                self._say("an example's outputs depend on its batch: whole batches are re-ordered")
        return self._mixable

    def _forecast(self, recipe: Recipe) -> Forecast | None:
        """From the passes of the running soup and the candidate, where both are remembered."""
        *running, candidate = recipe.checkpoints
        parts = [self._remembered(Recipe.mean(part)) for part in (running, [candidate]) if part]
        if len(parts) < 2 or parts[0] is None or parts[1] is None:
            return None
        return self._forecaster.forecast(parts[0], parts[1], len(recipe.ingredients))

    def _remembered(self, recipe: Recipe) -> Remembered | None:
        return self._bench.outputs.get(recipe.digest, self.protocol.digest)

    def _remember(
        self, recipe: Recipe, scores: Floats, gaps: Floats, outputs: Sequence[Tensor | None]
    ) -> None:
        """`outputs`: those of each canonical batch, None where they are not kept."""
        if not self._plain:
            parts = [part for part in outputs if part is not None and self._bench.outputs.wants(part)]
            # Of a soup nobody asks for outputs: it is no ingredient.
            whole = len(parts) == len(outputs) and not recipe.is_soup
            joined = torch.cat(parts).cpu() if whole else None
            self._bench.outputs.keep(recipe.digest, self.protocol.digest, Remembered(scores, gaps, joined))

    def _keeps(self, outputs: Tensor) -> bool:
        return self.whole is not None or self._remembers(outputs)

    def _at_hand(self, outputs: Tensor | None) -> Tensor | None:
        """Until the pass is over; those that will not be remembered leave the device at once."""
        return outputs if outputs is None or self._remembers(outputs) else outputs.cpu()

    def _remembers(self, outputs: Tensor) -> bool:
        return self._keeping and self._bench.outputs.wants(outputs)

    def _say(self, sentence: str) -> None:
        self._bench.say(f"split {self._batches.split.name!r}: {sentence}")

    def _count(self) -> None:
        if not self._wanted():
            raise Interrupted
        self.batches_done += 1

    @contextmanager
    def _settled(self, module: nn.Module, where: str) -> Iterator[Callable[[], bool]]:
        """A reproducible pass, which leaves the module as it is. Gives: whether it drew random numbers."""
        device = self._bench.device
        with (
            no_way_around(device, where),
            reproducible(device),
            torch.inference_mode(),
            unchanged(module, where),
        ):
            before = random_state(device)
            yield lambda: not torch.equal(before, random_state(device))
