import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from stockpot.entities import Checkpoint, Digest, Recipe, WeightsFormat, digest_of_bytes
from stockpot.errors import BadCheckpoint, Incompatible, NotFinite
from stockpot.soup import CheckpointCache, averaged_tensors, build
from stockpot.soup.arithmetic import RunningSum, averaged, mean_of_groups
from stockpot.soup.coefficients import write_coefficients
from stockpot.soup.one_pass import OnePass
from stockpot.soup.overlay import Overlay
from stockpot.soup.weights_file import Place, RegularFile

Ingest = Callable[[dict[str, Tensor]], Checkpoint]
Kept = Callable[[], list[str]]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
NARROW = (torch.float16, torch.bfloat16)


def oracle(ingredients: Sequence[Tensor]) -> Tensor:
    """`mean/1` in numpy, as its definition reads."""
    dtype = ingredients[0].dtype
    wide: Any = np.float64 if dtype == torch.float64 else np.float32
    first, *others = (tensor.to(torch.float64).numpy().astype(wide) for tensor in ingredients)
    total = first.copy()
    for other in others:
        total += other
    total *= wide(1 / len(ingredients))
    return torch.from_numpy(total).to(dtype)


def linear_oracle(ingredients: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """`linear/1` in numpy: each product and each sum is rounded."""
    dtype = ingredients[0].dtype
    wide: Any = np.float64 if dtype == torch.float64 else np.float32
    first, *others = (
        tensor.to(torch.float64).numpy().astype(wide) * wide(factor)
        for tensor, factor in zip(ingredients, factors, strict=True)
    )
    total = first
    for other in others:
        total = total + other
    return torch.from_numpy(np.asarray(total)).to(dtype)


def grouped_oracle(ingredients: Sequence[Tensor], groups: Sequence[int]) -> Tensor:
    """`grouped/1` in numpy: each group's sum as under `mean/1`, and each of the products, is rounded."""
    dtype = ingredients[0].dtype
    wide: Any = np.float64 if dtype == torch.float64 else np.float32
    rest = [tensor.to(torch.float64).numpy().astype(wide) for tensor in ingredients]
    total: Any = None
    for size in groups:
        added, rest = rest[0], rest[1:]
        for _ in range(size - 1):
            added, rest = added + rest[0], rest[1:]
        product = added * wide(1 / (len(groups) * size))
        total = product if total is None else total + product
    return torch.from_numpy(np.asarray(total)).to(dtype)


T = TypeVar("T")


@st.composite
def splits(draw: st.DrawFn, whole: Sequence[T]) -> list[Sequence[T]]:
    """Two or more groups, in order."""
    inner = st.lists(st.integers(1, len(whole) - 1), min_size=1, unique=True).map(sorted)
    places = [0, *draw(inner), len(whole)]
    return [whole[begin:end] for begin, end in pairwise(places)]


def running_mean(ingredients: Sequence[Tensor]) -> Tensor:
    total = RunningSum(ingredients[0])
    for tensor in ingredients[1:]:
        total.add(tensor)
    return total.mean(1 / len(ingredients))


def same_bits(a: Tensor, b: Tensor) -> bool:
    if a.numel() == 0:  # what numpy hands over may have a stride that torch cannot view as bytes
        return (a.dtype, a.shape) == (b.dtype, b.shape)
    return a.dtype == b.dtype and torch.equal(
        a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)
    )


@st.composite
def ingredient_lists(draw: st.DrawFn, dtypes: Sequence[torch.dtype] = DTYPES) -> list[Tensor]:
    """Two to nine finite tensors of one dtype, of all magnitudes, subnormal numbers and zeros included."""
    dtype = draw(st.sampled_from(dtypes))
    limit = torch.finfo(dtype).max / 16
    width = {torch.float64: 64, torch.float32: 32}.get(dtype, 16)
    numbers = st.floats(-limit, limit, width=64 if width == 64 else 32)
    rows = draw(st.lists(st.lists(numbers, min_size=5, max_size=5), min_size=2, max_size=9))
    return [torch.tensor(row, dtype=torch.float64).to(dtype) for row in rows]


@given(ingredient_lists())
def test_step_by_step_is_the_definition_to_the_bit(ingredients: list[Tensor]) -> None:
    total = RunningSum(ingredients[0])
    for n, tensor in enumerate(ingredients[1:], start=2):
        total.add(tensor)
        assert same_bits(total.mean(1 / n), oracle(ingredients[:n]))


RATIOS = st.tuples(st.integers(-60, 60).filter(bool), st.integers(1, 60))


@given(ingredient_lists(), st.data(), st.sampled_from(["given", "allocated"]))
def test_step_by_step_is_the_definition_of_linear_to_the_bit(
    ingredients: list[Tensor], data: st.DataObject, memory: str
) -> None:
    ratios = data.draw(st.lists(RATIOS, min_size=len(ingredients), max_size=len(ingredients)))
    limit = max(abs(n / d) for n, d in ratios)
    ingredients = [(tensor.double() / max(1, limit)).to(tensor.dtype) for tensor in ingredients]
    recipe = Recipe.linear({digest_of_bytes(b"%d" % i): ratio for i, ratio in enumerate(ratios)})
    wide = torch.promote_types(ingredients[0].dtype, torch.float32)
    buffer = torch.empty_like(ingredients[0], dtype=wide) if memory == "given" else None
    total = RunningSum(ingredients[0], factor=recipe.factors[0], wide=buffer)
    for n, (tensor, factor) in enumerate(zip(ingredients[1:], recipe.factors[1:], strict=True), start=2):
        expected = linear_oracle(ingredients[:n], recipe.factors[:n])
        assert same_bits(total.mean_with(tensor, 1.0, torch.empty_like(tensor), factor), expected)
        total.add(tensor, factor)
        assert same_bits(total.mean(1.0), expected)
    assert same_bits(averaged(ingredients, recipe), expected)


@settings(deadline=None)
@given(ingredient_lists(), st.data())
def test_groups_in_memory_are_the_definition_to_the_bit(
    ingredients: list[Tensor], data: st.DataObject
) -> None:
    names = [digest_of_bytes(b"%d" % place) for place in range(len(ingredients))]
    recipe = Recipe.grouped(data.draw(splits(names)))
    expected = grouped_oracle(ingredients, recipe.groups or ())
    assert same_bits(averaged(ingredients, recipe), expected)
    joins = data.draw(st.sampled_from([None, *range(len(recipe.sums))]))
    scales = [scale for _, scale in recipe.sums]
    last, sums = ingredients[0], list[RunningSum | None]()
    for group, (places, _) in enumerate(recipe.sums):
        *others, end = (ingredients[place] for place in places)
        if group == joins:
            last = end
        else:
            others = [*others, end]
        running = RunningSum(others[0]) if others else None
        for tensor in others[1:]:
            assert running is not None
            running.add(tensor)
        sums.append(running)
    kept = [(running.total, running.total.clone()) for running in sums if running is not None]
    out = torch.empty_like(last)
    assert mean_of_groups(sums, scales, joins, last, out) is out
    assert same_bits(out, expected)
    assert all(same_bits(total, before) for total, before in kept)
    mean_of_groups(sums, scales, joins, (own := last.clone()), own)
    assert same_bits(own, expected), "the tensor may be where the mean goes"


@given(ingredient_lists(), st.sampled_from(["given", "allocated"]))
def test_a_mean_with_one_more_is_the_mean_after_adding_it(ingredients: list[Tensor], memory: str) -> None:
    *others, last = ingredients
    accumulator = torch.promote_types(last.dtype, torch.float32)
    wide = torch.empty_like(last, dtype=accumulator) if memory == "given" else None
    total = RunningSum(others[0], wide=wide)
    for tensor in others[1:]:
        total.add(tensor)
    before, out = total.total.clone(), torch.empty_like(last)
    assert total.mean_with(last, 1 / len(ingredients), out) is out
    assert same_bits(out, running_mean(ingredients))
    assert same_bits(total.total, before)
    total.add(last)
    assert same_bits(total.mean(1 / len(ingredients), out), running_mean(ingredients))


def test_a_mean_goes_straight_into_a_live_parameter() -> None:
    module = torch.nn.Linear(3, 4)
    address = module.weight.data_ptr()
    first, second = torch.randn(4, 3), torch.randn(4, 3)
    with torch.no_grad():
        RunningSum(first).mean_with(second, 0.5, module.weight)
    assert module.weight.data_ptr() == address
    assert same_bits(module.weight.detach(), oracle([first, second]))


@given(ingredient_lists(NARROW), st.integers(2, 16))
def test_the_mean_of_copies_is_the_copy(ingredients: list[Tensor], n: int) -> None:
    copy = ingredients[0] + 0  # no negative zero
    assert same_bits(running_mean([copy] * n), copy)


@given(ingredient_lists(), st.sampled_from([2, 4]))
def test_the_mean_of_two_or_four_copies_is_the_copy_in_every_dtype(ingredients: list[Tensor], n: int) -> None:
    copy = ingredients[0]  # of eight, 5x and 7x may round away from it
    assert torch.equal(running_mean([copy] * n), copy)


@given(ingredient_lists(NARROW))
def test_the_mean_lies_between_the_least_and_the_greatest(ingredients: list[Tensor]) -> None:
    stacked = torch.stack(ingredients)
    mean = running_mean(ingredients)
    assert bool(((stacked.amin(0) <= mean) & (mean <= stacked.amax(0))).all())


@given(ingredient_lists())
def test_the_error_is_half_an_ulp_and_the_sums_own(ingredients: list[Tensor]) -> None:
    dtype = ingredients[0].dtype
    limits = torch.finfo(dtype)
    accumulator = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32)
    for column, mean in zip(
        torch.stack(ingredients).T.tolist(), running_mean(ingredients).tolist(), strict=True
    ):
        n = len(column)
        exact = math.fsum(column) / n
        half_an_ulp = max(abs(exact) * limits.eps, limits.smallest_normal * limits.eps) / 2
        of_the_sum = n * accumulator.eps * math.fsum(map(abs, column)) / n + accumulator.smallest_normal
        assert abs(mean - exact) <= half_an_ulp + of_the_sum


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_streamed_is_tensor_by_tensor_is_the_definition(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("streamed")
    cache = CheckpointCache(folder / "cache")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    shapes = data.draw(st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=6))
    dtypes = [data.draw(st.sampled_from(DTYPES)) for _ in shapes]
    checkpoints: dict[Digest, dict[str, Tensor]] = {}
    for _ in range(data.draw(st.integers(2, 5))):
        tensors = {
            f"t{i}": torch.randn(shape, generator=generator).to(dtype)
            for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
        }
        tensors["step"] = torch.tensor(7)
        save_file(tensors, folder / "logged")
        checkpoints[cache.ingest(folder / "logged", WeightsFormat.SAFETENSORS)[0].digest] = tensors
    recipes = [Recipe.mean(list(checkpoints))]
    if recipes[0].is_soup:
        recipes.append(Recipe.linear({digest: data.draw(RATIOS) for digest in checkpoints}))
        count = len(checkpoints)
        rows = st.lists(st.floats(-4, 4), min_size=count, max_size=count).map(tuple)
        by_tensor = {f"t{i}": data.draw(rows) for i in range(len(shapes))}
        recipes.append(Recipe.by_tensor(list(checkpoints), write_coefficients(by_tensor, cache).digest))
        recipes.append(Recipe.grouped(data.draw(splits(list(checkpoints)))))
    for recipe in recipes:
        streamed = load_file(cache.path(build(recipe, cache).digest))
        live = dict(averaged_tensors(recipe, cache))
        assert live.keys() == streamed.keys() == tensors.keys()
        for name in tensors.keys() - {"step"}:
            given = [tensors[name] for tensors in checkpoints.values()]
            factors = by_tensor[name] if recipe.coefficients else recipe.factors
            result = linear_oracle(given, factors) if recipe.arithmetic == "linear/1" else oracle(given)
            if recipe.groups:
                result = grouped_oracle(given, recipe.groups)
            assert same_bits(streamed[name], result)
            assert same_bits(live[name], result)
        assert streamed["step"] == live["step"] == 7


@pytest.mark.parametrize("factors", [(-0.0, 1.0), (0.0, -0.0), (-0.0, -0.0), (0.0, 0.0)])
def test_both_zeros_stay_apart_whichever_came_first(factors: tuple[float, float]) -> None:
    """In one process, whatever it has averaged before."""
    pair = [torch.tensor([1.5, -1.5]), torch.tensor([2.5, -2.5])]
    for pairs in (factors, factors[::-1]):
        running = RunningSum(pair[0], factor=pairs[0])
        running.add(pair[1], pairs[1])
        assert same_bits(running.mean(1.0), linear_oracle(pair, pairs))


def test_task_arithmetic_is_a_linear_recipe(cache: CheckpointCache, ingest: Ingest) -> None:
    base, first, second = ({"w": torch.tensor([1.0, 2.0, value])} for value in (4.0, 8.0, 16.0))
    a, b, c = (ingest(tensors).digest for tensors in (base, first, second))
    # The base, and three quarters of what each of the others adds to it.
    recipe = Recipe.linear({a: (-1, 2), b: (3, 4), c: (3, 4)})
    built = load_file(cache.path(build(recipe, cache).digest))
    assert torch.equal(built["w"], torch.tensor([1.0, 2.0, 16.0]))


def test_a_product_that_overflows_is_refused_by_tensor(cache: CheckpointCache, ingest: Ingest) -> None:
    digests = [ingest({"w": torch.tensor([2e38, i]), "x": torch.ones(1)}).digest for i in (0.0, 1.0)]
    recipe = Recipe.linear(dict.fromkeys(digests[:1], (2, 1)) | dict.fromkeys(digests[1:], (-2, 1)))
    with pytest.raises(NotFinite, match="overflows in 1 of 2 tensors"):
        build(recipe, cache)
    with pytest.raises(NotFinite, match="tensor w"):
        dict(averaged_tensors(recipe, cache))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_larger_than_a_part_are_the_definition_too(
    cache: CheckpointCache, ingest: Ingest, dtype: torch.dtype
) -> None:
    made = [{"a": torch.randn(700, 1000).to(dtype), "b": torch.randn(77).to(dtype)} for _ in range(4)]
    digests = [ingest(tensors).digest for tensors in made]
    streamed = load_file(cache.path(build(Recipe.mean(digests), cache).digest))
    assert all(same_bits(streamed[name], oracle([tensors[name] for tensors in made])) for name in "ab")
    streamed = load_file(cache.path(build(Recipe.grouped([digests[:1], digests[1:]]), cache).digest))
    for name in "ab":
        assert same_bits(streamed[name], grouped_oracle([tensors[name] for tensors in made], (1, 3)))


def test_groups_of_one_size_are_another_arithmetic_than_the_mean_of_all() -> None:
    tensors = [torch.randn(1000) for _ in range(6)]
    names = [digest_of_bytes(b"%d" % place) for place in range(6)]
    found = [
        averaged(tensors, recipe) for recipe in (Recipe.grouped([names[:3], names[3:]]), Recipe.mean(names))
    ]
    assert same_bits(found[0], grouped_oracle(tensors, (3, 3)))
    assert not torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[1])


def test_a_uniform_soup_does_not_depend_on_the_order_of_its_candidates(
    cache: CheckpointCache, ingest: Ingest
) -> None:
    digests = [ingest({"w": torch.randn(1000)}).digest for _ in range(5)]
    soup = build(Recipe.uniform(digests), cache)
    assert build(Recipe.uniform(digests[::-1]), cache) == soup


def test_a_soup_is_a_checkpoint_like_any_other(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path
) -> None:
    digests = [ingest({"w": torch.randn(10), "n": torch.tensor(3)}).digest for _ in range(2)]
    soup = build(Recipe.uniform(digests), cache)
    (tmp_path / "soup").write_bytes(cache.path(soup.digest).read_bytes())
    assert cache.ingest(tmp_path / "soup", WeightsFormat.SAFETENSORS)[0] == soup
    assert cache.checkpoint(soup.digest) == soup
    assert build(Recipe.uniform([soup.digest, *digests]), cache).tensors == soup.tensors


def test_one_ingredient_is_that_checkpoint(cache: CheckpointCache, ingest: Ingest) -> None:
    tensors = {"w": torch.tensor([-0.0, 1e-45, 3.0]), "n": torch.tensor(3)}
    checkpoint = ingest(tensors)
    recipe = Recipe.mean([checkpoint.digest])
    assert build(recipe, cache) == checkpoint
    assert all(same_bits(tensor, tensors[name]) for name, tensor in averaged_tensors(recipe, cache))


def test_tied_tensors_stay_tied(cache: CheckpointCache, ingest: Ingest) -> None:
    digests = []
    for _ in range(3):
        shared = torch.randn(50)
        digests.append(ingest({"embed": shared, "head": shared.clone(), "other": torch.randn(3)}).digest)
    for recipe in (Recipe.uniform(digests), Recipe.grouped([digests[:1], digests[1:]])):
        streamed = load_file(cache.path(build(recipe, cache).digest))
        assert same_bits(streamed["embed"], streamed["head"])


def test_ingredients_that_do_not_go_together_are_refused_with_every_reason(
    cache: CheckpointCache, kept: Kept, ingest: Ingest
) -> None:
    made = [
        {"w": torch.ones(2), "n": torch.tensor(3)},
        {"w": torch.ones(3), "n": torch.tensor(3)},
        {"w": torch.ones(2), "n": torch.tensor(4)},
        {"w": torch.ones(2).half(), "n": torch.tensor(3), "x": torch.ones(1)},
    ]
    recipe = Recipe.mean([ingest(tensors).digest for tensors in made])
    for attempt in (lambda: build(recipe, cache), lambda: list(averaged_tensors(recipe, cache))):
        with pytest.raises(Incompatible) as caught:
            attempt()
        shape, values, dtype, unexpected = caught.value.faults
        assert "[3] instead of [2]" in shape
        assert "integer or boolean" in values
        assert "F16 instead of F32" in dtype
        assert "unexpected: x" in unexpected
    assert len(kept()) == len(made)


def test_a_sum_that_overflows_is_refused_by_tensor(
    cache: CheckpointCache, kept: Kept, ingest: Ingest
) -> None:
    huge = torch.full((3,), 3e38)
    made = [{"a": torch.ones(2) * i, "b": huge, "c": huge.clone()} for i in range(2)]
    digests = [ingest(tensors).digest for tensors in (*made, {**made[0], "a": torch.ones(2) * 2})]
    for recipe in (Recipe.mean(digests[:2]), Recipe.grouped([digests[2:], digests[:2]])):
        with pytest.raises(NotFinite) as caught:
            build(recipe, cache)
        assert caught.value.faults == ("b", "c")
        with pytest.raises(NotFinite, match="tensor b"):
            list(averaged_tensors(recipe, cache))
    assert len(kept()) == 3


def test_every_tensor_that_overflows_is_named_wherever_its_parts_are_cut(
    cache: CheckpointCache, kept: Kept, ingest: Ingest
) -> None:
    made = [
        {f"t{i}": torch.full((50_000 + i,), 3e38 if i in {0, 3, 4, 9} else float(n)) for i in range(10)}
        for n in range(2)
    ]
    recipe = Recipe.mean([ingest({**tensors, "none": torch.empty(0)}).digest for tensors in made])
    with pytest.raises(NotFinite) as caught:
        build(recipe, cache)
    assert caught.value.faults == ("t0", "t3", "t4", "t9")
    assert len(kept()) == 2


def test_a_tensor_that_overflows_beyond_where_its_part_begins_is_named(
    cache: CheckpointCache, ingest: Ingest
) -> None:
    huge = torch.zeros(300_000)
    huge[100_000] = 3e38  # in the second part, which begins inside this tensor
    made = {"a": torch.zeros(200_000), "b": huge, "c": torch.zeros(50_000)}
    recipe = Recipe.mean([ingest({**made, "a": torch.full((200_000,), n)}).digest for n in (1.0, 2.0)])
    with pytest.raises(NotFinite) as caught:
        build(recipe, cache)
    assert caught.value.faults == ("b",)


def test_half_precision_does_not_overflow_in_between(cache: CheckpointCache, ingest: Ingest) -> None:
    top = torch.full((3,), 65504.0).half()
    recipe = Recipe.mean([ingest({"w": top, "x": torch.full((1,), i).half()}).digest for i in range(3)])
    assert torch.equal(dict(averaged_tensors(recipe, cache))["w"], top)


def test_what_is_missing_or_cannot_be_applied_is_refused(cache: CheckpointCache, ingest: Ingest) -> None:
    present = ingest({"w": torch.ones(2)}).digest
    with pytest.raises(BadCheckpoint, match="not in the cache"):
        build(Recipe.mean([present, Digest(f"sha256:{'0' * 64}")]), cache)
    laid = Overlay.of({"w": torch.zeros(2)})
    for recipe, here, told in (
        (replace(Recipe.mean([present]), overlay=present), None, f"{present}, here are none"),
        (replace(Recipe.mean([present]), overlay=present), laid, f"{present}, here are {laid.digest}"),
        (Recipe.mean([present]), laid, "no statistics, here are"),
    ):
        with pytest.raises(BadCheckpoint, match=told):
            build(recipe, cache, overlay=here)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"w": (0.5, 0.5)}, "missing: x"),
        ({"w": (0.5, 0.5), "x": (1.0, 1.0), "y": (1.0, 1.0)}, "unexpected: y"),
        ({"w": (0.5, 0.5), "x": (1.0,)}, r"not F64\[2\]: x F64\[1\]"),
        ({"w": (0.5, 0.5), "x": (1.0, 1.0), "step": (1.0, 1.0)}, "unexpected: step"),
    ],
)
def test_coefficients_of_other_tensors_are_refused_by_every_way(
    cache: CheckpointCache, ingest: Ingest, rows: dict[str, tuple[float, ...]], told: str
) -> None:
    made = [{"w": torch.ones(2), "x": torch.ones(3) * i, "step": torch.tensor(1)} for i in range(2)]
    recipe = Recipe.by_tensor([ingest(m).digest for m in made], write_coefficients(rows, cache).digest)
    with pytest.raises(BadCheckpoint, match=told):
        build(recipe, cache)
    with pytest.raises(BadCheckpoint, match=told):
        dict(averaged_tensors(recipe, cache))


def test_coefficients_that_are_no_such_file_are_refused(cache: CheckpointCache, ingest: Ingest) -> None:
    a, b = (ingest({"w": torch.full((2,), float(i))}).digest for i in range(2))
    with pytest.raises(BadCheckpoint, match=r"not F64\[2\]: w F32\[2\]"):
        build(Recipe.by_tensor([a, b], a), cache)
    with pytest.raises(BadCheckpoint, match="not in the cache"):
        build(Recipe.by_tensor([a, b], Digest(f"sha256:{'0' * 64}")), cache)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_crash_in_the_middle_leaves_nothing_behind(
    cache: CheckpointCache,
    kept: Kept,
    ingest: Ingest,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    digests = [ingest({"w": torch.randn(2_000_000)}).digest for _ in range(2)]
    put = OnePass._put

    def crash_at_the_third(average: OnePass, number: int, part: Place, content: memoryview) -> None:
        if number > 2:
            raise error
        put(average, number, part, content)

    monkeypatch.setattr(OnePass, "_put", crash_at_the_third)
    for recipe in (Recipe.mean(digests), Recipe.grouped([digests[:1], digests[1:]])):
        with pytest.raises(error):
            build(recipe, cache)
        assert len(kept()) == 2


@pytest.mark.timeout(60)
def test_one_part_that_cannot_be_read_ends_the_work_of_all(
    cache: CheckpointCache, kept: Kept, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [ingest({"w": torch.randn(3_000_000)}).digest for _ in range(2)]
    fill, failures = RegularFile.fill, iter([True])

    def fail_once(file: RegularFile, buffer: memoryview, begin: int) -> None:
        if begin > 4 << 20 and next(failures, False):
            raise BadCheckpoint("unreadable")
        fill(file, buffer, begin)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(RegularFile, "fill", fail_once)
    with pytest.raises(BadCheckpoint, match="unreadable"):
        build(Recipe.mean(digests), cache)
    assert len(kept()) == 2


def test_torch_keeps_its_threads(cache: CheckpointCache, ingest: Ingest, two_threads: None) -> None:
    seen: list[int] = []
    build(Recipe.mean([ingest({"w": torch.randn(10).half()}).digest for _ in range(2)]), cache)
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert [torch.get_num_threads(), *seen] == [2, 2]


def test_a_wide_average_needs_no_torch(cache: CheckpointCache, ingest: Ingest) -> None:
    digests = [ingest({"w": torch.randn(10), "n": torch.tensor(3)}).digest for _ in range(2)]
    program = (
        "import sys; from pathlib import Path\n"
        "from stockpot.entities import Recipe; from stockpot.soup import CheckpointCache, build\n"
        "build(Recipe.mean(sys.argv[2:]), CheckpointCache(Path(sys.argv[1])))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(cache.folder), *digests], check=True)


FEW_FILES = """
import resource, sys
from pathlib import Path
from stockpot.entities import Recipe
from stockpot.soup import CheckpointCache, build

resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[2])))
build(Recipe.mean(sys.argv[3:]), CheckpointCache(Path(sys.argv[1])))
"""


def test_more_ingredients_than_a_process_usually_opens_files(cache: CheckpointCache, ingest: Ingest) -> None:
    digests = [ingest({"w": torch.tensor([float(i)])}).digest for i in range(100)]
    command = [sys.executable, "-c", FEW_FILES, str(cache.folder)]
    subprocess.run([*command, "1000", *digests], check=True)
    done = subprocess.run([*command, "64", *digests], check=False, capture_output=True, text=True)
    assert "an average of 100 checkpoints opens them all at once" in done.stderr
    assert "ulimit -Hn" in done.stderr


PEAK = """
import re, sys
from pathlib import Path
from safetensors.torch import load_file
import stockpot.soup.arithmetic
from stockpot.entities import Recipe
from stockpot.soup import CheckpointCache, build

def peak():
    # Not ru_maxrss: that outlives exec, and starts at the size of whoever started this process.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def naive(recipe, cache):
    return sum(load_file(cache.path(digest))["w"] for digest in recipe.checkpoints)

before = peak()
{way}(Recipe.mean(sys.argv[2:]), CheckpointCache(Path(sys.argv[1])))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak that Linux keeps")
def test_memory_does_not_grow_with_the_checkpoints(cache: CheckpointCache, ingest: Ingest) -> None:
    digests = [ingest({"w": torch.randn(64_000_000).bfloat16()}).digest for _ in range(3)]
    peaks = {}
    for way in ("build", "naive"):
        command = [sys.executable, "-c", PEAK.replace("{way}", way), str(cache.folder), *digests]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[way] = int(done.stdout) / 1024
    assert peaks["build"] < 64 < peaks["naive"]
