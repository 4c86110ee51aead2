"""From a recipe to its average: tensor by tensor for a live module, or streamed into the cache."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from registry.entities import Checkpoint, Recipe, TensorSpec, short
from registry.errors import BadCheckpoint, Incompatible, NotFinite
from registry.soup.canonical import FLOATS, ITEM_SIZES, in_layout_order
from registry.soup.checkpoint_cache import CheckpointCache, exact_digest
from registry.soup.compatibility import differences
from registry.soup.weights_file import Place, WeightsFile

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
U = TypeVar("U")

_PART = 1 << 18  # elements averaged at once: few calls, and a part stays in the processor's cache
_THREADS = 1  # beside those that hash and write: a second one slows two cores down by a fifth
_AHEAD = 2  # parts that are ready before they are wanted


def averaged_tensors(
    recipe: Recipe, cache: CheckpointCache, device: "str | torch.device" = "cpu"
) -> "Iterator[tuple[str, Tensor]]":
    """The recipe's average on this device, one tensor at a time, by name.

    The bits are those that `build` writes. Raises BadCheckpoint for an ingredient that is not in the
    cache, Incompatible for ingredients that differ in layout or in integer or boolean tensors,
    NotFinite for a sum that overflows.
    """
    from registry.soup.arithmetic import RunningSum, is_finite

    with _open_ingredients(recipe, cache) as files:
        for spec in files[0].tensors:
            tensor = files[0].read(spec.name).to(device)
            if recipe.is_soup and spec.dtype in FLOATS:
                total = RunningSum(tensor)
                for file in files[1:]:
                    total.add(file.read(spec.name).to(device))
                tensor = total.mean(recipe.ingredients[0].coefficient)
                if not is_finite(tensor):
                    raise NotFinite(f"{_title(recipe)}: its sum overflows in tensor {spec.name}")
            yield spec.name, tensor


def build(recipe: Recipe, cache: CheckpointCache) -> Checkpoint:
    """The recipe's average as a checkpoint in the cache; of one ingredient, that ingredient.

    Takes a few MiB of memory, whatever the size. Raises what `averaged_tensors` raises, naming every
    tensor that overflows, and StockpotError where the disk fails. Nothing is left behind then.
    """
    if not recipe.is_soup:
        with _open_ingredients(recipe, cache):
            return cache.checkpoint(recipe.checkpoints[0])
    from registry.soup.arithmetic import single_threaded

    with _open_ingredients(recipe, cache) as files, single_threaded(_THREADS) as pool:
        parts = _in_order(pool, partial(_average_part, recipe, files), _parts(files[0]))
        return cache.write(in_layout_order(files[0].tensors), parts, origin=_title(recipe))


@contextmanager
def _open_ingredients(recipe: Recipe, cache: CheckpointCache) -> Iterator[list[WeightsFile]]:
    if recipe.overlay is not None:
        raise BadCheckpoint(f"{_title(recipe)}: overlays cannot be applied", mend="use a newer stockpot")
    with ExitStack() as stack:
        files = [stack.enter_context(cache.open(digest)) for digest in recipe.checkpoints]
        if faults := list(_misfits(recipe, files)):
            raise Incompatible(
                f"{_title(recipe)}: its ingredients do not go together",
                faults=faults,
                mend="average checkpoints of one architecture and dtype",
            )
        yield files


def _misfits(recipe: Recipe, files: Sequence[WeightsFile]) -> Iterator[str]:
    first, exact = files[0], exact_digest(files[0])
    for digest, file in zip(recipe.checkpoints[1:], files[1:], strict=True):
        if faults := differences(first.tensors, file.tensors):
            yield from (f"{short(digest)}: {fault}" for fault in faults)
        elif exact_digest(file) != exact:
            yield f"{short(digest)}: its integer or boolean tensors hold other values"
        elif file.places != first.places:
            yield f"{short(digest)}: its file is not in canonical form"


def _parts(file: WeightsFile) -> Iterator[Place]:
    """The file's data in parts of one dtype. Canonical files of equal tensors are cut alike."""
    places = sorted(file.places.values(), key=lambda place: (place.offset, place.end))
    for dtype, group in groupby(places, key=lambda place: place.spec.dtype):
        run = list(group)
        size = ITEM_SIZES[dtype]
        for begin in range(run[0].offset, run[-1].end, _PART * size):
            count = min(_PART, (run[-1].end - begin) // size)
            yield Place(TensorSpec("", dtype, (count,)), begin)


def _average_part(recipe: Recipe, files: Sequence[WeightsFile], part: Place) -> memoryview:
    from registry.soup.arithmetic import RunningSum, bytes_of, empty

    buffer = empty(part.spec)
    content = bytes_of(buffer)
    files[0].file.fill(content, part.offset)
    if part.spec.dtype not in FLOATS:
        return content
    total = RunningSum(buffer)
    for file in files[1:]:
        file.file.fill(content, part.offset)
        total.add(buffer)
    return bytes_of(total.mean(recipe.ingredients[0].coefficient))


def _in_order(pool: ThreadPoolExecutor, function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Like ``pool.map``, which would take all items at once: only a few results are ahead."""
    waiting: deque[Future[U]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _title(recipe: Recipe) -> str:
    return f"the average of {len(recipe.ingredients)} checkpoints ({short(recipe.digest)})"
