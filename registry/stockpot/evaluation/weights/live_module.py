"""One module whose weights are swapped: from files and a running sum straight into its own tensors."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from stockpot.entities import Arithmetic, Digest, Recipe, TensorSpec, short
from stockpot.evaluation.devices.device import free_memory
from stockpot.evaluation.weights.block_feed import Block, Feed, ThreadedFeed
from stockpot.evaluation.weights.cuda_feed import CudaFeed
from stockpot.evaluation.weights.group_sums import GroupSums, LastStep
from stockpot.evaluation.weights.module_weights import Placement, placement, unfit
from stockpot.ports import Checkpoints
from stockpot.soup.arithmetic import DTYPES, accumulator, averaged, bytes_of, mean_of_groups
from stockpot.soup.average import opened
from stockpot.soup.checkpoint_cache import exact_digest
from stockpot.soup.coefficients import Factors, factors_by_tensor
from stockpot.soup.compatibility import Layout, misfits
from stockpot.soup.refusals import misfit, overflow, require_applicable
from stockpot.soup.weights_file import WeightsFile

_BLOCK = 1 << 18  # elements: they stay in the processor's cache, and of smaller ones there are too many calls
_TORN = "one tensor in the model, but other coefficients"
_CUDA_BLOCK = 1 << 22  # elements: a launch costs as much as copying some ten thousand


class LiveModule:
    """A module on a device that holds one recipe's weights after another's. For one thread at a time.

    The weights have the bits that `stockpot.soup.build` writes, however they were reached, and those of
    `averaged_tensors` where it writes none. A sum of all ingredients but the last is kept on the device, in
    float32 (float64 for such tensors), of each group where there are several: a recipe that only adds to it,
    or puts another in the last one's place, costs one reading of what is new. That is a greedy search: a
    rejected trial leaves the sum as it is, the first one after an acceptance adds to it. `say` is told where
    there is no room for a sum of each group.
    """

    def __init__(
        self,
        module: nn.Module,
        checkpoints: Checkpoints,
        device: torch.device,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._module = module
        self._checkpoints = checkpoints
        on_cuda = device.type == "cuda"
        self._feed: Feed = CudaFeed(checkpoints, device) if on_cuda else ThreadedFeed(checkpoints, device)
        self._block = _CUDA_BLOCK if on_cuda else _BLOCK
        self._placements: dict[tuple[TensorSpec, ...], Placement] = {}
        self._layouts: dict[Digest, Layout] = {}  # read once, as is which tied tensors differ:
        self._torn: dict[Digest, list[str]] = {}
        self._peaks: dict[Digest, float] = {}  # the greatest absolute value, of those held by themselves
        self._tensors: tuple[TensorSpec, ...] = ()
        self._blocks: list[Block] = []  # of such tensors
        self._sums = GroupSums(self._feed, partial(free_memory, device), say)
        self._held: Digest | None = None

    def hold(self, recipe: Recipe) -> nn.Module:
        """Put the recipe's weights into the module's own parameters and buffers.

        Raises Incompatible, with every fault, for ingredients that differ in layout or in integer or
        boolean tensors, that do not fit the module, or whose tied tensors differ; NotFinite, with every
        tensor, for a sum that overflows; and what the checkpoints raise. No weights count as held then.
        """
        if self._held != recipe.digest:
            self._held = None
            self._put(recipe)
            self._held = recipe.digest
        return self._module

    def prepare(self, recipe: Recipe) -> None:
        """Say that this is likely the next recipe: what it has to read last is loaded ahead. Never fails."""
        self._feed.prepare(self._sums.last_of(recipe))

    def forget(self) -> None:
        """Hold nothing, and let the next soup's sum start anew."""
        self._held = None
        self._sums.forget()

    def forget_held(self) -> None:
        """Hold nothing: somebody changes the module's tensors. The sum stays as it is."""
        self._held = None

    def _put(self, recipe: Recipe) -> None:
        self._check(recipe)
        self._cut(self._layouts[recipe.checkpoints[0]][0])
        if not recipe.is_soup:
            (last,) = recipe.checkpoints
            peaks = self._feed.each(last, self._blocks, _copy_and_look, overwrites=True)
            self._peaks[last] = _greatest(peaks)
            return
        factors = factors_by_tensor(recipe, self._tensors, self._checkpoints.open)
        ties = self._placement(self._tensors).ties
        if torn := [f"{a} and {b}: {_TORN}" for a, b in ties if factors.get(a) != factors.get(b)]:
            raise unfit(self._module, torn)
        if recipe.arithmetic is Arithmetic.TIES_1:
            self._merge(recipe, factors)
            return
        floats = [block for block in self._blocks if block.dtype.is_floating_point]
        step = self._sums.bring(recipe, factors, floats)
        look = self._may_overflow(recipe, factors)
        work = partial(_copy_mean, factors=factors, step=step, look=look)
        read = recipe.checkpoints[step.place]
        if offenders := _not_finite(self._feed.each(read, self._blocks, work, overwrites=True)):
            names = [spec.name for spec in self._tensors if spec.name in offenders]
            raise overflow(recipe, names, len(self._tensors))

    def _merge(self, recipe: Recipe, factors: Factors) -> None:
        """Block by block, of all files at once: no sum of them serves another recipe. The sums stay."""
        offenders = set()
        with opened(recipe, self._checkpoints.open) as files, torch.inference_mode():
            for block in self._blocks:
                parts = (_part(file, block) for file in files)
                block.target.copy_(averaged(parts, recipe, factors.get(block.name)))
                if not bool(block.target.isfinite().all()):
                    offenders.add(block.name)
        if offenders:
            raise overflow(recipe, sorted(offenders), len(self._tensors))

    def _may_overflow(self, recipe: Recipe, factors: Factors) -> bool:
        """Whether the mean must be looked at: a third of the work. Not where the peaks add up to little."""
        limit = min(
            (torch.finfo(b.dtype).max for b in self._blocks if b.dtype.is_floating_point), default=0.0
        )
        greatest = [max(map(abs, each)) for each in zip(*set(factors.values()), strict=True)]
        each = zip(recipe.checkpoints, greatest, strict=False)  # there are none where nothing is averaged
        return not sum(self._peaks.get(c, math.inf) * factor for c, factor in each) <= limit / 2

    def _cut(self, tensors: tuple[TensorSpec, ...]) -> None:
        """Cut the module's tensors into blocks, for checkpoints of this layout."""
        if self._tensors != tensors:
            self._sums.forget()
            self._tensors = tensors
            targets = self._placement(tensors).targets
            specs = [spec for spec in tensors if spec.name in targets]
            self._blocks = [b for spec in specs for b in _blocks(spec, targets[spec.name], self._block)]

    def _check(self, recipe: Recipe) -> None:
        require_applicable(recipe)
        for digest in recipe.checkpoints:
            if digest not in self._layouts:
                self._read(digest)
        if faults := list(misfits(recipe, self._layouts)):
            raise misfit(recipe, faults)
        place = self._placement(self._layouts[recipe.checkpoints[0]][0])
        torn = (fault for digest in recipe.checkpoints for fault in self._torn[digest])
        if faults := [*place.faults, *torn]:
            raise unfit(self._module, faults)

    def _read(self, digest: Digest) -> None:
        with self._checkpoints.open(digest) as weights:
            place = self._placement(weights.tensors)
            self._torn[digest] = [
                f"{short(digest)}: {first} and {name} are one tensor in the model, but hold different values"
                for first, name in place.ties
                if not place.faults and not _equal(weights, first, name)
            ]
            self._layouts[digest] = place.tensors, exact_digest(weights)

    def _placement(self, tensors: tuple[TensorSpec, ...]) -> Placement:
        if tensors not in self._placements:
            self._placements[tensors] = placement(self._module, tensors)
        return self._placements[tensors]


def _blocks(spec: TensorSpec, target: Tensor, most: int) -> Iterator[Block]:
    """Cut a tensor of the module, row by row, into blocks of about this many elements."""
    target = target.detach()
    begin, dtype = 0, DTYPES[spec.dtype]
    if target.is_contiguous():
        views = torch.split(target.view(-1), most)
    else:
        views = torch.split(target, max(1, most // target[0].numel()))
    for view in views:
        if view.numel():
            yield Block(spec.name, dtype, begin, view, _own(view, dtype))
        begin += view.numel() * dtype.itemsize


def _part(file: WeightsFile, block: Block) -> Tensor:
    """What the file holds for this block, in its shape, on its device."""
    content = torch.empty(block.target.shape, dtype=block.dtype)
    file.file.fill(bytes_of(content), file.places[block.name].offset + block.begin)
    return content.to(block.target.device)


def _own(view: Tensor, dtype: torch.dtype) -> tuple[Tensor, memoryview] | None:
    if view.device.type != "cpu" or view.dtype != dtype or not view.is_contiguous():
        return None
    flat = view.view(-1)
    return flat, bytes_of(flat)


def _copy(block: Block, content: Tensor) -> None:
    if block.own is None or content is not block.own[0]:
        block.target.copy_(content.view(block.target.shape))


def _copy_and_look(block: Block, content: Tensor) -> Tensor | None:
    """Returns the greatest absolute value of a floating-point block."""
    _copy(block, content)
    if not content.is_floating_point():
        return None
    least, greatest = content.aminmax()
    return torch.maximum(-least, greatest)


def _greatest(peaks: Sequence[tuple[Block, Tensor]]) -> float:
    return torch.stack([peak for _, peak in peaks]).max().item() if peaks else 0.0


def _copy_mean(
    block: Block, content: Tensor, *, factors: Factors, step: LastStep, look: bool
) -> Tensor | None:
    """Put the average into the module: what the sums lack is the content, times its factor.

    Returns, if it is to look, a sum that is not finite if any element is not.
    """
    if not block.sums:
        _copy(block, content)
        return None
    target, content = block.target, content.view(block.target.shape)
    # What the file holds otherwise than the module is rounded as it holds it, and widened then.
    out = target if content.dtype == target.dtype else content
    factor = factors[block.name][step.place]
    running = block.sums[0]
    if len(block.sums) == 1 and running is not None and step.joins == 0:
        running.mean_with(content, step.scales[0], out=out, factor=factor)
    else:
        mean_of_groups(block.sums, step.scales, step.joins, content, out=out)
    if out is not target:
        target.copy_(out)
    return target.sum(dtype=accumulator(target.dtype)) if look else None


def _not_finite(checks: Sequence[tuple[Block, Tensor]]) -> set[str]:
    """The tensors with NaN or infinity, given a sum of each block."""
    if not checks:
        return set()
    # All at once: on CUDA each look waits for the device. The sum itself may overflow: then look again.
    finite = torch.stack([total for _, total in checks]).isfinite().tolist()
    suspects = [block for (block, _), good in zip(checks, finite, strict=True) if not good]
    return {block.name for block in suspects if not bool(block.target.isfinite().all())}


def _equal(weights: WeightsFile, first: str, name: str) -> bool:
    """Whether two tensors of one shape and dtype hold the same values."""
    dtype = DTYPES[weights.places[name].spec.dtype]
    pairs = zip(weights.pieces(first), weights.pieces(name), strict=True)
    return all(
        torch.equal(torch.frombuffer(one, dtype=dtype), torch.frombuffer(other, dtype=dtype))
        for one, other in pairs
    )
