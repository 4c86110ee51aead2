"""TIES is the paper's, against its steps written out on whole vectors."""

from collections.abc import Sequence
from contextlib import ExitStack

import pytest
import torch
from tests.soup.conftest import Ingest
from torch import Tensor

from stockpot.entities import Digest, Recipe
from stockpot.errors import Incompatible, NotFinite
from stockpot.soup import CheckpointCache, averaged_tensors, build
from stockpot.soup.ties import least_that_stays

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SHAPES = {"a": (7, 11), "b": (300,), "c": ()}
SCALES = {"a": 1.0, "b": 0.1, "c": 3.0}


def state(seed: int, dtype: torch.dtype, far: float = 1.0) -> dict[str, Tensor]:
    """Seed 0: the base; its tensors' updates are not equally long."""
    draw = torch.Generator().manual_seed(1)
    base = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
    draw.manual_seed(seed)
    moved = {n: t + far * SCALES[n] * torch.randn(t.shape, generator=draw) for n, t in base.items()}
    floats = {name: tensor.to(dtype) for name, tensor in (moved if seed else base).items()}
    return {**floats, "step": torch.tensor(7)}


def written_out(base: dict[str, Tensor], models: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Trim, elect, merge: of all parameters in one vector, as the paper's algorithm reads."""
    wide = torch.float64 if base["a"].dtype == torch.float64 else torch.float32
    start = torch.cat([base[name].to(wide).reshape(-1) for name in SHAPES])
    updates = torch.stack([torch.cat([m[n].to(wide).reshape(-1) for n in SHAPES]) - start for m in models])
    for update in updates:
        least = update.abs().sort(descending=True).values[len(update) // 5 - 1]
        update[update.abs() < least] = 0
    elected = updates.sum(dim=0).sign()
    agreeing = torch.where(updates.sign() == elected, updates, 0)
    count = (agreeing != 0).sum(dim=0).clamp(min=1)
    merged = start + agreeing.sum(dim=0) / count
    parts = torch.split(merged, [base[name].numel() for name in SHAPES])
    return {n: part.view(SHAPES[n]).to(base[n].dtype) for n, part in zip(SHAPES, parts, strict=True)}


def ties_of(ingest: Ingest, states: Sequence[dict[str, Tensor]]) -> Recipe:
    base, *models = [ingest(each).digest for each in states]
    return Recipe.ties(base, models)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_result_is_the_papers_algorithm(
    cache: CheckpointCache, ingest: Ingest, dtype: torch.dtype, count: int
) -> None:
    states = [state(seed, dtype) for seed in range(count + 1)]
    found = dict(averaged_tensors(ties_of(ingest, states), cache))
    expected = written_out(states[0], states[1:])
    for name in SHAPES:
        torch.testing.assert_close(found[name], expected[name], rtol=4 * torch.finfo(dtype).eps, atol=1e-7)
    assert found["step"] == 7
    moved = sum(int((found[name] != states[0][name]).sum()) for name in SHAPES)
    assert len(states[0]["b"]) // 5 < moved < sum(tensor.numel() for tensor in states[0].values()) * 0.7


def one(ingest: Ingest, cache: CheckpointCache, base: list[float], *models: list[float]) -> list[float]:
    states = [{"w": torch.tensor(values)} for values in (base, *models)]
    return dict(averaged_tensors(ties_of(ingest, states), cache))["w"].tolist()


def test_small_updates_go_signs_are_elected_and_only_those_that_agree_are_averaged(
    cache: CheckpointCache, ingest: Ingest
) -> None:
    base = [1.0] * 10
    # Of ten elements two stay in each: the first and one more.
    more, less = [5.0, 3.0, *[1.5] * 8], [3.0, 1.5, 4.0, *[1.5] * 7]
    down = [-6.0, 1.5, 1.5, -9.0, *[1.5] * 6]
    # 4 + 2 above, 7 below: two against one, and yet below is larger.
    assert one(ingest, cache, base, more, less, down) == [-6.0, 3.0, 4.0, -9.0, *base[4:]]
    assert one(ingest, cache, base, more, less) == [4.0, 3.0, 4.0, *base[3:]]
    opposed = [-3.0, 1.0, 4.0, *base[3:]]
    assert one(ingest, cache, base, more, opposed)[0] == 1.0, "nobody is elected"


def test_what_equals_the_least_that_stays_does_too_and_a_base_alike_moves_nothing(
    cache: CheckpointCache, ingest: Ingest
) -> None:
    base = [0.0] * 10
    equal = [2.0, 1.0, 1.0, 1.0, *[0.5] * 6]
    assert one(ingest, cache, base, equal, [0.0] * 9 + [1.0]) == [2.0, 1.0, 1.0, 1.0, *[0.0] * 5, 1.0]
    assert one(ingest, cache, [3.0], [4.0], [6.0]) == [5.0], "at least one stays"


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_least_that_stays_is_exactly_the_one_of_that_rank(
    cache: CheckpointCache, ingest: Ingest, dtype: torch.dtype
) -> None:
    pair = [state(seed, dtype, far) for seed, far in ((0, 0.0), (3, 1e-4))]
    with ExitStack() as stack:
        base, model = (stack.enter_context(cache.open(ingest(each).digest)) for each in pair)
        found = least_that_stays(model, base)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    every = torch.cat([(pair[1][n].to(wide) - pair[0][n].to(wide)).reshape(-1) for n in SHAPES])
    assert found == every.abs().float().sort(descending=True).values[len(every) // 5 - 1].item()


def test_other_layouts_and_sums_that_overflow_are_refused_and_nothing_is_built(
    cache: CheckpointCache, ingest: Ingest
) -> None:
    states = [state(seed, torch.float32) for seed in range(3)]
    with pytest.raises(ValueError, match="never built"):
        build(ties_of(ingest, states), cache)
    with pytest.raises(Incompatible, match="do not go together"):
        dict(averaged_tensors(ties_of(ingest, [*states, {"a": states[0]["a"]}]), cache))
    with pytest.raises(Incompatible, match="do not go together"):
        dict(averaged_tensors(ties_of(ingest, [*states, {**states[0], "step": torch.tensor(8)}]), cache))
    far = [{"w": torch.tensor([value, 0.0])} for value in (-3e38, 3e38, 2e38)]
    with pytest.raises(NotFinite, match="tensor w"):
        dict(averaged_tensors(ties_of(ingest, far), cache))


def test_the_base_is_the_first_and_order_decides_no_more_than_last_bits(
    cache: CheckpointCache, ingest: Ingest
) -> None:
    states = [state(seed, torch.float32) for seed in range(4)]
    digests: list[Digest] = [ingest(each).digest for each in states]
    one, other = (
        dict(averaged_tensors(Recipe.ties(digests[0], models), cache))
        for models in (digests[1:], digests[:0:-1])
    )
    for name in SHAPES:
        torch.testing.assert_close(one[name], other[name])
