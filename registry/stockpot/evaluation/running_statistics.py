"""Statistics of soups of models with BatchNorm: estimated once per recipe, on examples of one split."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import nn

from stockpot.entities import OverlayRule, Recipe, short
from stockpot.errors import BadCheckpoint, NotFinite
from stockpot.evaluation.devices.device import reproducible
from stockpot.evaluation.devices.device_faults import no_way_around
from stockpot.evaluation.passes.batches import Batches
from stockpot.evaluation.passes.checked_task import CheckedTask
from stockpot.evaluation.weights.batch_norm import buffers_of, estimating, norms_of
from stockpot.evaluation.weights.module_weights import placement
from stockpot.ports import Checkpoints, Overlays
from stockpot.soup.arithmetic import DTYPES
from stockpot.soup.overlay import Overlay
from stockpot.soup.refusals import title

VERSION = "bn/1"
"""Of what is below: it changes with any bit of any result."""


class RunningStatistics:
    """What is laid over soups by one rule; the first committed are a recipe's, whoever estimated them.

    `parts` gives the batches of a split, made anew or not.
    """

    def __init__(
        self,
        task: CheckedTask,
        checkpoints: Checkpoints,
        overlays: Overlays,
        parts: Callable[[str, bool], Sequence[Batches]],
    ) -> None:
        self.rule: OverlayRule | None = None
        """By which new ones are estimated, where any are."""
        self._task = task
        self._checkpoints = checkpoints
        self._overlays = overlays
        self._parts = parts
        self._done: Counter[int] = Counter()

    @property
    def passes(self) -> float:
        """Forward work so far, in full passes over the rule's examples."""
        return sum(done / count for count, done in self._done.items())

    def known(self, recipe: Recipe) -> Overlay:
        """What is committed for this recipe. Raises BadCheckpoint where nothing is."""
        found = self._overlays.overlay(recipe.digest)
        if found is None:
            raise BadCheckpoint(
                f"{title(recipe)}: its statistics are not in this store, and not estimated here",
                mend="use the store and the task that its request had, or run the request again",
            )
        return Overlay(found)

    def of(
        self, recipe: Recipe, module: nn.Module, count: Callable[[], None], *, fresh: bool = False
    ) -> Overlay:
        """What is committed, else what this module is found to have, which holds the average: committed then.

        `count` is told each batch. `fresh`: batches are made anew. Raises NotFinite for statistics that are
        not finite, BadTask, BadCheckpoint for a rule that is not this one, and whatever `count` raises.
        """
        rule, found = self.rule, self._overlays.overlay(recipe.digest)
        if found is None and rule is not None and rule == recipe.overlay:
            estimated = self._estimated(recipe, module, rule, count, fresh=fresh)
            found = self._overlays.resolve_overlay(recipe, estimated.content)
        return self.known(recipe) if found is None else Overlay(found)

    def _estimated(
        self,
        recipe: Recipe,
        module: nn.Module,
        rule: OverlayRule,
        count: Callable[[], None],
        *,
        fresh: bool,
    ) -> Overlay:
        device = buffers_of(norms_of(module))[0].device
        where = f"as statistics of recipe {short(recipe.digest)} are estimated on split {rule.split!r}"
        parts = self._parts(rule.split, fresh)
        total = sum(batches.count for batches in parts)
        for batches in parts:
            batches.make()
        with (
            no_way_around(device, where),
            reproducible(device),
            torch.inference_mode(),
            estimating(module, where),
        ):
            for batches in parts:
                for batch in batches:
                    count()
                    self._done[total] += 1
                    self._task.outputs(module, batch, batches.size, where)
        return self._overlay(recipe, module)

    def _overlay(self, recipe: Recipe, module: nn.Module) -> Overlay:
        """The module's statistics, under the names and in the dtypes that the recipe's ingredients have."""
        own = set(map(id, buffers_of(norms_of(module))))
        with self._checkpoints.open(recipe.checkpoints[0]) as weights:
            place = placement(module, weights.tensors)
        dtypes = {spec.name: DTYPES[spec.dtype] for spec in place.tensors}
        tensors = {name: t.to(dtypes[name]) for name, t in place.targets.items() if id(t) in own}
        tensors |= {name: tensors[first] for first, name in place.ties if first in tensors}
        if offenders := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise NotFinite(
                f"{title(recipe)}: its statistics are not finite", faults=offenders, mend="leave it out"
            )
        return Overlay.of(tensors)


def lay(overlay: Overlay, module: nn.Module) -> None:
    """Copy its tensors into the module's own."""
    with torch.no_grad():
        for name, target in placement(module, overlay.tensors).targets.items():
            target.copy_(overlay.read(name))
