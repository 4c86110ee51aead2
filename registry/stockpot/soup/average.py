"""From a recipe to its average: tensor by tensor by its definition, or streamed into the cache."""

import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from stockpot.entities import Arithmetic, Checkpoint, Digest, Recipe, short
from stockpot.errors import NotFinite, StockpotError
from stockpot.soup.canonical import FLOATS, header_of, in_layout_order
from stockpot.soup.checkpoint_cache import CheckpointCache, exact_digest
from stockpot.soup.coefficients import factors_by_tensor
from stockpot.soup.compatibility import misfits
from stockpot.soup.overlay import Overlay
from stockpot.soup.refusals import misfit, overflow, require_applicable, title
from stockpot.soup.weights_file import WeightsFile

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_OPEN_FILES = resource.RLIMIT_NOFILE
_OTHER_FILES = 256
"""That a process has open besides: libraries, connections, one of everything that works beside it."""


def averaged_tensors(
    recipe: Recipe,
    cache: CheckpointCache,
    device: "str | torch.device" = "cpu",
    *,
    overlay: Overlay | None = None,
) -> "Iterator[tuple[str, Tensor]]":
    """The recipe's average on this device, one tensor at a time, by name, as `arithmetic.averaged` defines
    it: the bits that `build` writes. Raises BadCheckpoint for an ingredient that is not in the cache, for
    another `overlay` than the recipe's, and for coefficients that do not fit; Incompatible for ingredients
    that differ in layout or in integer or boolean tensors; NotFinite for a sum that overflows.
    """
    from stockpot.soup.arithmetic import averaged, is_finite

    with _fitting(recipe, cache, overlay) as files:
        factors = factors_by_tensor(recipe, files[0].tensors, cache.open)
        for name, dtype in ((spec.name, spec.dtype) for spec in files[0].tensors):
            if overlay is not None and name in overlay:
                yield name, overlay.read(name).to(device)
                continue
            tensor = averaged((file.read(name).to(device) for file in files), recipe, factors.get(name))
            if recipe.is_soup and dtype in FLOATS and not is_finite(tensor):
                raise NotFinite(f"{title(recipe)}: its sum overflows in tensor {name}")
            yield name, tensor


def build(
    recipe: Recipe, cache: CheckpointCache, *, overlay: Overlay | None = None, known: Digest | None = None
) -> Checkpoint:
    """The recipe's average as a checkpoint in the cache; of one ingredient, that ingredient. `overlay`: what
    the recipe's own led to.

    Every ingredient's SHA-256 is compared with its name as it is read, and the soup's is computed as it is
    written. Where a store remembers the soup's digest, `known`, neither is hashed: the soup gets that name on
    trust.

    Takes a few MiB of memory, whatever the size. Raises what `averaged_tensors` raises, naming every
    tensor that overflows; BadCheckpoint naming every ingredient that is not what its name says, which is
    removed from the cache; and StockpotError where the disk fails. Nothing else is left behind then.
    ValueError for what is a yardstick, and never built.
    """
    if recipe.arithmetic is Arithmetic.TIES_1:
        raise ValueError(f"{recipe.arithmetic} is measured, and never built")
    if not recipe.is_soup and overlay is None:
        with _fitting(recipe, cache, None):
            return cache.checkpoint(recipe.checkpoints[0])
    from stockpot.soup.one_pass import OnePass

    with _fitting(recipe, cache, overlay) as files, cache.draft(files[0].file.size) as draft:
        factors = factors_by_tensor(recipe, files[0].tensors, cache.open)
        average = OnePass(files, factors, recipe.sums, draft, overlay=overlay, hashing=known is None)
        digests = average.run()
        found = dict(zip(recipe.checkpoints, digests, strict=False))  # the last is the soup's
        if wrong := {name: f"its bytes are {now}" for name, now in found.items() if name != now}:
            raise cache.altered(wrong)
        if average.offenders:
            raise overflow(recipe, sorted(average.offenders), len(files[0].tensors))
        return cache.keep(draft, known or digests[-1])


@contextmanager
def opened(
    recipe: Recipe,
    open_one: Callable[[Digest], AbstractContextManager[WeightsFile]],
    overlay: Overlay | None = None,
) -> Iterator[list[WeightsFile]]:
    """The ingredients' files, in recipe order, all open at once.

    Raises BadCheckpoint for another overlay than the recipe's, StockpotError where the system opens no more
    files, and what `open_one` raises.
    """
    require_applicable(recipe, overlay)
    _allow_open_files(len(recipe.ingredients))
    with ExitStack() as stack:
        yield [stack.enter_context(open_one(digest)) for digest in recipe.checkpoints]


@contextmanager
def _fitting(recipe: Recipe, cache: CheckpointCache, overlay: Overlay | None) -> Iterator[list[WeightsFile]]:
    with opened(recipe, cache.open, overlay) as files:
        strange = overlay.misfits(files[0].tensors) if overlay else ()
        if faults := [*_misfits(recipe, files), *strange]:
            raise misfit(recipe, faults)
        yield files


def _allow_open_files(count: int) -> None:
    """Let this process open so many files, and some more, at once: the usual limit is 1024.

    Raises StockpotError where the system allows it no more.
    """
    wanted = count + _OTHER_FILES
    soft, hard = (wanted if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(_OPEN_FILES))
    if hard <= count:
        raise StockpotError(
            f"an average of {count} checkpoints opens them all at once; this process may open {hard} files",
            mend=f"ulimit -Hn {wanted}, as an administrator, or take fewer candidates: --top K --by METRIC",
        )
    if soft < min(wanted, hard):
        resource.setrlimit(_OPEN_FILES, (min(wanted, hard), resource.getrlimit(_OPEN_FILES)[1]))


def _misfits(recipe: Recipe, files: Sequence[WeightsFile]) -> Iterator[str]:
    first, named = files[0], dict(zip(recipe.checkpoints, files, strict=True))
    yield from misfits(recipe, {digest: (file.tensors, exact_digest(file)) for digest, file in named.items()})
    header = header_of(in_layout_order(first.tensors))
    if first.file.read(0, min(len(header), first.file.size)) != header:
        yield f"{short(recipe.checkpoints[0])}: its file is not in canonical form"
    for digest, file in named.items():
        if file.tensors == first.tensors and file.places != first.places:
            yield f"{short(digest)}: its file is not in canonical form"
