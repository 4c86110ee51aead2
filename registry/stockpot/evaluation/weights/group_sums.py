"""Running sums beside a live module: of each group of a recipe, without the ingredient that is read last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from stockpot.entities import Digest, Recipe
from stockpot.evaluation.weights.block_feed import Block, Feed
from stockpot.soup.arithmetic import RunningSum, accumulator
from stockpot.soup.coefficients import Factors

Summands = tuple[tuple[Digest, float | Digest], ...]
"""What was added up: checkpoints, each with its factor, or with a file of them."""
_SHARE = 0.5
"""Of the free memory, at most, for the sums of further groups."""


@dataclass(frozen=True, slots=True)
class LastStep:
    """What gives a recipe's average, once its sums are there."""

    place: int
    """In the recipe: the ingredient to be read."""
    joins: int | None
    """The place of the sum that it belongs to; None where all of them are complete."""
    scales: tuple[float, ...]
    """Of each sum."""


class GroupSums:
    """The sums of the recipe before, continued for the next one where they can be.

    They are kept on the device, one for each group. So a recipe that has one ingredient more at the end of
    one group costs one reading of that one. Where the device has no room for so many, all groups but the last
    are added up in one sum, and read again when they change. `free`: bytes that may be taken there; `say` is
    told.
    """

    def __init__(self, feed: Feed, free: Callable[[], int], say: Callable[[str], None]) -> None:
        self._feed = feed
        self._free = free
        self._say = say
        self._kept: list[Summands] = []  # of each sum; empty as well while it cannot be relied on
        self._folded: tuple[Summands, ...] = ()  # groups whose products are the first sum
        self._last: Digest | None = None

    def forget(self) -> None:
        """Let all sums start anew."""
        self._kept, self._folded = [], ()

    def last_of(self, recipe: Recipe) -> Digest:
        """The ingredient that `bring` likely leaves for the end."""
        groups = _groups_of(recipe)
        group = len(groups) - 1 if self._folded else self._left_out(groups)
        return groups[-1 if group is None else group][-1][0]

    def bring(self, recipe: Recipe, factors: Factors, blocks: Sequence[Block]) -> LastStep:
        """Let the blocks' sums be those of the recipe's groups but for one ingredient, and say which.
        `blocks`: all of floating-point tensors.
        """
        groups = _groups_of(recipe)
        scales = tuple(each.scale for each in recipe.sums)
        add = partial(self._add, recipe, factors, blocks)
        if len(groups) > 2 and not self._has_room(len(groups), blocks):
            self._fold(recipe, groups, blocks, add)
            step = LastStep(len(recipe.ingredients) - 1, 1, (1.0, scales[-1]))
            add(1, groups[-1][:-1], recipe.sums[-1].places)
        else:
            left_out = self._left_out(groups)
            self._make(len(groups), blocks)
            for group, (summands, each) in enumerate(zip(groups, recipe.sums, strict=True)):
                add(group, summands[:-1] if group == left_out else summands, each.places)
            last = recipe.sums[-1 if left_out is None else left_out].places[-1]
            step = LastStep(last, left_out, scales)
        self._last = recipe.checkpoints[step.place]
        return step

    def _left_out(self, groups: Sequence[Summands]) -> int | None:
        """The group whose last ingredient is not added: one that is to grow anyway, by what is new. None
        where all sums are complete.
        """
        kept = [*self._kept, *[()] * len(groups)]

        def worth(group: int) -> tuple[bool, bool, bool]:
            wanted, had = groups[group], kept[group]
            grows = len(had) < len(wanted) and wanted[: len(had)] == had
            return had != wanted, grows, wanted[-1][0] != self._last

        best = max(range(len(groups)), key=worth)
        return best if worth(best)[0] else None

    def _make(self, count: int, blocks: Sequence[Block]) -> None:
        """So many sums, those that can be continued among them."""
        if self._folded:
            self.forget()
        self._kept = [*self._kept, *[()] * count][:count]
        for block in blocks:
            block.sums = [*block.sums, *[None] * count][:count]

    def _fold(
        self,
        recipe: Recipe,
        groups: Sequence[Summands],
        blocks: Sequence[Block],
        add: Callable[[int, Summands, range], None],
    ) -> None:
        """Let the first of two sums be that of all groups' products but the last."""
        self._say(
            f"no room to keep the sums of {len(groups)} groups of weights: most of them are read again for "
            "each recipe"
        )
        wanted = tuple(groups[:-1])
        if self._folded == wanted:
            return
        self.forget()
        self._make(2, blocks)
        for block in blocks:
            block.sums = [None, None]
        for summands, (places, scale) in zip(wanted, recipe.sums, strict=False):
            add(1, summands, places)
            self._kept[1] = ()
            with torch.inference_mode():
                for block in blocks:
                    _take_product(block, scale)
        self._folded = wanted

    def _add(
        self,
        recipe: Recipe,
        factors: Factors,
        blocks: Sequence[Block],
        at: int,
        summands: Summands,
        places: range,
    ) -> None:
        """Let this sum be that of the first ingredients at these places, as many as there are summands."""
        kept, self._kept[at] = self._kept[at], ()  # an error in between leaves no sum
        if not kept or summands[: len(kept)] != kept:
            kept = ()
            for block in blocks:
                block.sums[at] = None
        for place in places[len(kept) : len(summands)]:
            work = partial(_add_to, factors=factors, place=place, at=at)
            self._feed.each(recipe.checkpoints[place], blocks, work, overwrites=False)
        self._kept[at] = summands

    def _has_room(self, count: int, blocks: Sequence[Block]) -> bool:
        each = sum(block.target.numel() * accumulator(block.dtype).itemsize for block in blocks)
        there = max((sum(one is not None for one in block.sums) for block in blocks), default=0)
        return count <= there or (count - there) * each <= _SHARE * self._free()


def _groups_of(recipe: Recipe) -> list[Summands]:
    each = zip(recipe.checkpoints, recipe.factors, strict=True)
    summands = tuple((digest, recipe.coefficients or factor) for digest, factor in each)
    return [summands[places.start : places.stop] for places, _ in recipe.sums]


def _add_to(block: Block, content: Tensor, *, factors: Factors, place: int, at: int) -> None:
    content, factor = content.view(block.target.shape), factors[block.name][place]
    running = block.sums[at]
    if running is None:
        block.sums[at] = RunningSum(content, factor=factor)
    else:
        running.add(content, factor)


def _take_product(block: Block, scale: float) -> None:
    """Add the second sum, times its scale, to the first one."""
    total, running = block.sums
    if running is None:
        return
    running.mean(scale, out=running.total)
    if total is None:
        block.sums = [running, None]
    else:
        total.add(running.total)
        block.sums = [total, None]
