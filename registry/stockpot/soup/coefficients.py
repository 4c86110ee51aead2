"""A recipe's coefficients for each tensor: a file in canonical form that holds, under each tensor's name, one
float64 number for each ingredient, in recipe order.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from stockpot.entities import Arithmetic, Checkpoint, Digest, Recipe, TensorSpec, short
from stockpot.errors import BadCheckpoint
from stockpot.prose import listed
from stockpot.soup.canonical import FLOATS, in_layout_order
from stockpot.soup.checkpoint_cache import CheckpointCache
from stockpot.soup.refusals import title
from stockpot.soup.ties import least_that_stays
from stockpot.soup.weights_file import WeightsFile

Factors = Mapping[str, tuple[float, ...]]
"""By the name of each floating-point tensor, what each ingredient is multiplied by before it is added; under
``ties/1`` the magnitude from which its update stays."""


def write_coefficients(factors: Factors, cache: CheckpointCache) -> Checkpoint:
    """Keep them in the cache. Equal ones are one file, wherever they are written."""
    specs = in_layout_order(TensorSpec(name, "F64", (len(row),)) for name, row in factors.items())
    rows = (factors[spec.name] for spec in specs)
    parts = (
        memoryview(bytearray(struct.pack(f"<{len(row)}d", *row))) for row in rows
    )  # torch wants writable
    return cache.write(specs, parts, origin="coefficients for each tensor")


def factors_by_tensor(
    recipe: Recipe,
    tensors: Sequence[TensorSpec],
    open_one: Callable[[Digest], AbstractContextManager[WeightsFile]],
) -> Factors:
    """Of a recipe whose ingredients have these tensors: the same for all, unless it names a file of them.
    Under ``ties/1`` all ingredients are read for them.

    Raises BadCheckpoint where that does not fit the tensors and the ingredients, and what `open_one` raises.
    """
    floats = [spec.name for spec in tensors if spec.dtype in FLOATS]
    if recipe.arithmetic is Arithmetic.TIES_1:
        base, *models = recipe.checkpoints
        with open_one(base) as start:
            return dict.fromkeys(floats, (0.0, *(_least(model, start, open_one) for model in models)))
    if recipe.coefficients is None:
        return dict.fromkeys(floats, recipe.factors)
    with open_one(recipe.coefficients) as file:
        if faults := list(_misfits(file.tensors, floats, len(recipe.ingredients))):
            raise BadCheckpoint(
                f"{title(recipe)}: its coefficients ({short(recipe.coefficients)}) are not for these tensors",
                faults=faults,
                mend="name the file that was written for these very ingredients",
            )
        return {name: _read(file, name) for name in floats}


def _least(
    model: Digest, start: WeightsFile, open_one: Callable[[Digest], AbstractContextManager[WeightsFile]]
) -> float:
    with open_one(model) as file:
        return least_that_stays(file, start)


def _misfits(held: Sequence[TensorSpec], floats: Sequence[str], count: int) -> Iterator[str]:
    known, wanted = {spec.name for spec in held}, set(floats)
    if missing := sorted(wanted - known):
        yield f"missing: {listed(missing)}"
    if strange := sorted(known - wanted):
        yield f"unexpected: {listed(strange)}"
    other = [f"{s.name} {s.dtype}{list(s.shape)}" for s in held if (s.dtype, s.shape) != ("F64", (count,))]
    if other:
        yield f"not F64[{count}]: {listed(other)}"


def _read(file: WeightsFile, name: str) -> tuple[float, ...]:
    content = b"".join(map(bytes, file.pieces(name)))
    return struct.unpack(f"<{len(content) // 8}d", content)
