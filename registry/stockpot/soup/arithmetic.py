"""Torch on bytes: element types, the finite check, and the arithmetic of recipes.

`averaged` is its definition, which the faster ways are held against: `RunningSum` in memory, `part_means`
from file to file.

The one module of this package that imports torch, so that headers are read without it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, reduce
from itertools import chain, islice
from threading import Barrier
from types import MappingProxyType

import torch
from torch import Tensor

from stockpot.entities import Arithmetic, Recipe, TensorSpec

DTYPES = MappingProxyType(
    {
        "U64": torch.uint64,
        "I64": torch.int64,
        "F64": torch.float64,
        "F32": torch.float32,
        "U32": torch.uint32,
        "I32": torch.int32,
        "BF16": torch.bfloat16,
        "F16": torch.float16,
        "U16": torch.uint16,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)

BLOCK = 1 << 15
"""Elements. Up to here torch computes in the calling thread (its GRAIN_SIZE); beyond, it wakes threads of its
own, and on a busy machine these wait for each other a hundred times longer than they work.
"""


def single_threaded(workers: int) -> ThreadPoolExecutor:
    """A pool of threads, all started, in each of which torch wakes no threads of its own."""
    before, started = torch.get_num_threads(), Barrier(workers + 1)
    pool = ThreadPoolExecutor(workers, "weights", initializer=_become_single_threaded)
    try:
        for _ in range(workers):
            pool.submit(started.wait)
        started.wait()
    except BaseException:
        started.abort()  # an interrupt leaves nobody waiting
        raise
    finally:
        # The number counts for the thread that sets it, and for all threads that start after that.
        torch.set_num_threads(before)
    return pool


def _become_single_threaded() -> None:
    # Once, when it first looks, a thread takes the number that then counts for all: here, not later.
    torch.get_num_threads()
    torch.set_num_threads(1)


_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def spec_of(name: str, tensor: Tensor) -> TensorSpec:
    """What a header tells of this tensor; of a dtype that no file holds, torch's name for it."""
    return TensorSpec(name, _NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))


def empty(tensor: TensorSpec) -> Tensor:
    """An uninitialised tensor of this dtype and shape."""
    return torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype])


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, shared with it."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def row_by_row(tensor: Tensor, most: int) -> Iterator[Tensor]:
    """The elements of any view in the order of its rows: contiguous tensors of at most so many bytes."""
    tensor = tensor.squeeze()  # at most 63 dimensions are left: sizes are below 2**63
    if tensor.nbytes <= most:
        yield tensor.contiguous()
    elif (row := tensor.nbytes // len(tensor)) > most:
        for part in tensor:
            yield from row_by_row(part, most)
    else:
        for part in torch.split(tensor, most // row):
            yield part.contiguous()


def is_finite(tensor: Tensor) -> bool:
    """Whether a floating-point tensor holds neither NaN nor infinity."""
    # A sum stays NaN or infinite once it is, and takes a twentieth of isfinite().all(). An infinite
    # sum may also be an overflow: only then look again.
    total = tensor.sum(dtype=accumulator(tensor.dtype)).item()
    return math.isfinite(total) or bool(tensor.isfinite().all())


def holds_finite(content: memoryview, dtype: str) -> bool:
    """Whether these bytes, of which there are some, hold neither NaN nor infinity."""
    return all(map(is_finite, torch.split(torch.frombuffer(content, dtype=DTYPES[dtype]), BLOCK)))


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums of this floating-point dtype are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def averaged(tensors: Iterable[Tensor], recipe: Recipe, factors: Sequence[float] | None = None) -> Tensor:
    """The recipe's average of one tensor, as the definition of its arithmetic reads.

    `tensors`: the ingredients' own, in recipe order, of one shape, dtype and device. Integer and boolean ones
    are equal, which is not looked at; the sum of others may overflow. `factors`: this tensor's, where it has
    such of its own, as it has under ``ties/1`` (`soup/coefficients.py`).
    """
    ingredients = iter(tensors)
    first = next(ingredients)
    if not recipe.is_soup or not first.is_floating_point():
        return first
    if recipe.arithmetic is Arithmetic.TIES_1:
        return _agreed(first, ingredients, factors or ())
    dtype = accumulator(first.dtype)
    each = zip(chain([first], ingredients), factors or recipe.factors, strict=True)
    products = (tensor.to(dtype) * torch.tensor(factor, dtype=dtype) for tensor, factor in each)
    groups = (
        reduce(torch.add, islice(products, len(places))) * torch.tensor(scale, dtype=dtype)
        for places, scale in recipe.sums
    )
    return reduce(torch.add, groups).to(first.dtype)


def _agreed(base: Tensor, models: Iterable[Tensor], least: Sequence[float]) -> Tensor:
    """``ties/1`` of some elements; `least`: of each ingredient, the magnitude from which its updates stay."""
    start = base.to(accumulator(base.dtype))
    up, down = torch.zeros_like(start), torch.zeros_like(start)
    ups, downs = (torch.zeros_like(start, dtype=torch.int64) for _ in range(2))
    for model, threshold in zip(models, least[1:], strict=True):
        update = update_of(model, base)
        stays = update.abs().float() >= threshold
        for total, count, signed in ((up, ups, update), (down, downs, -update)):
            agrees = stays & (signed > 0)
            total.add_(torch.where(agrees, signed, 0))
            count.add_(agrees)
    shares = torch.tensor([1 / max(1, n) for n in range(len(least))], dtype=start.dtype, device=start.device)
    below = torch.where(down > up, -(down * shares[downs]), 0)
    return (start + torch.where(up > down, up * shares[ups], below)).to(base.dtype)


def update_of(model: Tensor, base: Tensor) -> Tensor:
    """The difference, in the dtype that sums are kept in."""
    dtype = accumulator(base.dtype)
    return model.to(dtype) - base.to(dtype)


class RunningSum:
    """The fast way: the sum of tensors of one shape and floating-point dtype, in the order of their arrival,
    each times its factor (`Recipe.factors`).

    A mean taken after each of several additions has the same bits as one that starts anew, on any
    device: every operation is a single correctly rounded one per element.

    Without more, memory is allocated as needed. `total`, of the shape and the accumulator's dtype, is where
    the sum is kept; it may be the first tensor itself. `wide`, of that shape and dtype too, is where 16-bit
    tensors are widened; several sums that are used in turn may share it.
    """

    def __init__(
        self,
        first: Tensor,
        *,
        factor: float = 1.0,
        total: Tensor | None = None,
        wide: Tensor | None = None,
    ) -> None:
        self._dtype = first.dtype
        self._wide = wide
        self.total = first.to(accumulator(first.dtype), copy=True) if total is None else total.copy_(first)
        if factor != 1.0:
            self.total.mul_(rounded(factor, self.total.dtype))

    def add(self, tensor: Tensor, factor: float = 1.0) -> None:
        """Add the next ingredient."""
        self.total.add_(self._product(tensor, factor))

    def mean(self, coefficient: float, out: Tensor | None = None) -> Tensor:
        """The sum times the coefficient, in the ingredients' dtype, in `out` if that is given.

        The sum stays as it is, unless `out` is the sum.
        """
        scale = rounded(coefficient, self.total.dtype)
        if out is None:
            return self.total.mul(scale).to(self._dtype)
        if out.dtype == self.total.dtype:
            return torch.mul(self.total, scale, out=out)
        return out.copy_(torch.mul(self.total, scale, out=self._wide))

    def mean_with(self, tensor: Tensor, coefficient: float, out: Tensor, factor: float = 1.0) -> Tensor:
        """What `mean` gives after `add(tensor, factor)`, written into `out`. The sum stays as it is.

        `out` has the ingredients' dtype, the sum's shape and device, and is returned; it may be `tensor`, or
        a live parameter, under ``torch.no_grad()``. Without a factor nothing is allocated, but for 16-bit
        tensors without `wide`.
        """
        scale, product = rounded(coefficient, self.total.dtype), self._product(tensor, factor)
        if out.dtype == self.total.dtype:
            return torch.add(self.total, product, out=out).mul_(scale)
        return out.copy_(product.add_(self.total).mul_(scale))

    def _product(self, tensor: Tensor, factor: float) -> Tensor:
        """The tensor in the sum's dtype, times the factor; the tensor itself where that changes nothing."""
        # Widened first: with the same bits, a third faster than an addition of mixed dtypes.
        if tensor.dtype != self.total.dtype:
            tensor = tensor.to(self.total.dtype) if self._wide is None else self._wide.copy_(tensor)
        if factor == 1.0:
            return tensor
        return torch.mul(tensor, rounded(factor, self.total.dtype), out=self._wide)


def mean_of_groups(
    sums: Sequence[RunningSum | None], scales: Sequence[float], joins: int | None, tensor: Tensor, out: Tensor
) -> Tensor:
    """The fast way, of several groups: each group's sum times its scale, added in order, written into `out`.

    `joins`: the place of the group that the tensor is added to before, or is the only one of, where that has
    no sum yet; None for no group. The sums stay as they are. `out`: as in `RunningSum.mean_with`.
    """
    dtype = accumulator(tensor.dtype)
    wide = tensor.to(dtype)

    def product(place: int, room: Tensor | None) -> Tensor:
        running, total = sums[place], wide
        if running is not None:
            total = torch.add(running.total, wide, out=room) if place == joins else running.total
        return torch.mul(total, rounded(scales[place], dtype), out=room)

    total, room = product(0, None), None
    for place in range(1, len(sums)):
        room = product(place, room)
        total.add_(room)
    return out.copy_(total)


def plus_product(weight: Tensor, left: Tensor, right: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """The weight plus `scale` times the product of two matrices, in this dtype.

    `weight`: rows x columns; `left`: rows x rank, `right`: rank x columns, both of one dtype, which sums are
    kept in. Every operation is a correctly rounded one per element, in the order of the rank: the same
    bits on each machine and by any number of threads, which no library's product of matrices promises.
    """
    total = left[:, :1] * right[0]
    product = torch.empty_like(total)
    for place in range(1, right.shape[0]):
        total.add_(torch.mul(left[:, place : place + 1], right[place], out=product))
    return total.mul_(rounded(scale, total.dtype)).add_(weight.to(total.dtype)).to(dtype)


def rounded(coefficient: float, dtype: torch.dtype) -> float:
    """The nearest number that this dtype holds."""
    return _rounded(coefficient, math.copysign(1.0, coefficient), dtype)


@cache
def _rounded(coefficient: float, _sign: float, dtype: torch.dtype) -> float:
    """`_sign`: to a cache, both zeros are one number."""
    return torch.tensor(coefficient, dtype=dtype).item()
