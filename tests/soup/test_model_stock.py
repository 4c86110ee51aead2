"""Model Stock's coefficients are the paper's, tensor by tensor, and the same bits on each machine."""

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from stockpot.entities import Digest, Recipe, WeightsFormat
from stockpot.errors import NotFinite
from stockpot.soup import CheckpointCache, averaged_tensors
from stockpot.soup.coefficients import Factors, write_coefficients
from stockpot.soup.model_stock import LANES, coefficients, mean_cosines, ratio

Weights = Mapping[str, Tensor]


def _plant(folder: Path, states: Sequence[Weights]) -> tuple[CheckpointCache, list[Digest]]:
    cache = CheckpointCache(folder / "cache")
    digests = []
    for state in states:
        save_file(dict(state), folder / "logged")
        digests.append(cache.ingest(folder / "logged", WeightsFormat.SAFETENSORS)[0].digest)
    return cache, digests


def _told(cache: CheckpointCache, digests: Sequence[Digest]) -> Factors:
    """Of the models, and the base, which is the last."""
    with ExitStack() as stack:
        *models, base = [stack.enter_context(cache.open(digest)) for digest in digests]
        return coefficients(models, base)


def _paper(updates: Sequence[np.ndarray]) -> float:
    """t, as the paper's formula reads, with the mean cosine of all pairs."""
    pairs = itertools.combinations([u.reshape(-1) for u in updates], 2)
    cosine = float(np.mean([float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs]))
    k = len(updates)
    return k * cosine / ((k - 1) * cosine + 1)


DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_average_is_the_papers_formula_for_each_tensor(
    tmp_path: Path, dtype: torch.dtype, count: int
) -> None:
    draw = torch.Generator().manual_seed(count)
    shapes = {"a": (3, LANES // 2 + 5), "b": (7,), "c": ()}
    base = {name: torch.randn(shape, generator=draw).to(dtype) for name, shape in shapes.items()}
    common = {name: 1 + torch.rand(shape, generator=draw) for name, shape in shapes.items()}
    models = [
        {
            n: (t.float() + common[n] + 0.4 * torch.randn(t.shape, generator=draw)).to(dtype)
            for n, t in base.items()
        }
        for _ in range(count)
    ]
    steps = {"step": torch.tensor(3)}
    cache, digests = _plant(tmp_path, [{**state, **steps} for state in (*models, base)])
    rows = _told(cache, digests)
    assert rows.keys() == shapes.keys(), "integer tensors have none"
    for name in shapes:
        start = base[name].double().numpy()
        updates = [model[name].double().numpy() - start for model in models]
        t = min(_paper(updates), 1.0)
        assert t > 0
        assert rows[name] == pytest.approx((*[t / count] * count, 1 - t), rel=1e-12)
        expected = t * np.mean([u + start for u in updates], axis=0) + (1 - t) * start
        built = dict(
            averaged_tensors(Recipe.by_tensor(digests, write_coefficients(rows, cache).digest), cache)
        )
        assert built["step"] == 3
        close = 4 * torch.finfo(dtype).eps * max(1.0, float(np.abs(expected).max()))
        assert np.abs(built[name].double().numpy() - expected).max() <= close


@pytest.mark.parametrize("degrees", [5, 30, 60, 85])
def test_of_two_models_it_is_the_foot_of_the_perpendicular_from_the_centre(
    tmp_path: Path, degrees: float
) -> None:
    """The paper's closed form, and what it stands for: seen from the centre, base and models are at right
    angles, so that the centre's foot on their plane is where the triangle's heights meet.
    """
    half = math.radians(degrees) / 2
    base = torch.zeros(3, dtype=torch.float64)
    w1, w2 = (
        torch.tensor([math.cos(half), sign * math.sin(half), 0.0], dtype=torch.float64) for sign in (1, -1)
    )
    cache, digests = _plant(tmp_path, [{"w": w1}, {"w": w2}, {"w": base}])
    rows = _told(cache, digests)
    cosine = math.cos(math.radians(degrees))
    t = 2 * cosine / (1 + cosine)
    assert rows["w"] == pytest.approx((t / 2, t / 2, 1 - t), rel=1e-12)
    found = dict(averaged_tensors(Recipe.by_tensor(digests, write_coefficients(rows, cache).digest), cache))[
        "w"
    ]
    assert float((found - w1) @ (w2 - base)) == pytest.approx(0, abs=1e-12)
    assert float((found - w2) @ (w1 - base)) == pytest.approx(0, abs=1e-12)


def test_updates_without_a_common_direction_leave_a_tensor_where_it_started(tmp_path: Path) -> None:
    base = {
        "apart": torch.tensor([1.0, 2.0]),
        "frozen": torch.tensor([3.0, 0.1]),
        "one": torch.tensor([1.0, 1.0]),
    }
    first = {**base, "apart": torch.tensor([2.0, 2.0]), "one": torch.tensor([2.0, 1.0])}
    second = {**base, "apart": torch.tensor([0.0, 2.0])}
    cache, digests = _plant(tmp_path, [first, second, base])
    rows = _told(cache, digests)
    assert rows == dict.fromkeys(base, (0.0, 0.0, 1.0))
    with ExitStack() as stack:
        *models, start = [stack.enter_context(cache.open(digest)) for digest in digests]
        assert mean_cosines(models, start).keys() == {"apart"}, "of one update there is no cosine"
    built = dict(averaged_tensors(Recipe.by_tensor(digests, write_coefficients(rows, cache).digest), cache))
    assert all(torch.equal(built[name], base[name]) for name in base)


def test_equal_updates_lead_to_the_models_themselves(tmp_path: Path) -> None:
    states = [{"w": torch.full((5,), float(i > 0)), "rows": torch.tensor([float(i)])} for i in (1, 2, 0)]
    cache, digests = _plant(tmp_path, states)
    rows = _told(cache, digests)
    assert rows["w"] == rows["rows"] == pytest.approx((0.5, 0.5, 0.0))


@given(st.floats(-1, 1.0000001), st.integers(2, 100))
def test_the_ratio_is_a_share_that_grows_with_the_cosine(cosine: float, count: int) -> None:
    t = ratio(cosine, count)
    assert 0 <= t <= 1
    assert t <= ratio(min(cosine + 0.01, 1.0), count) or cosine > 1


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(1, 3 * LANES), st.integers(0, 2**32))
def test_without_a_base_it_is_the_cosine_of_the_weights(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    states = [{"w": torch.randn(size, generator=draw) + 0.3, "i": torch.tensor(i)} for i in range(count)]
    cache, digests = _plant(tmp_path_factory.mktemp("cosine"), states)
    with ExitStack() as stack:
        found = mean_cosines([stack.enter_context(cache.open(digest)) for digest in digests])
    rows = [state["w"].double().numpy() for state in states]
    pairs = itertools.combinations(rows, 2)
    expected = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
    assert found == {"w": pytest.approx(float(expected), abs=1e-12)}
    most = max(1, size // 3)
    with ExitStack() as stack:
        files = [stack.enter_context(cache.open(digest)) for digest in digests]
        first = mean_cosines(files, most=most)
    cut, other = _plant(tmp_path_factory.mktemp("cut"), [{**s, "w": s["w"][:most].clone()} for s in states])
    with ExitStack() as stack:
        assert first == mean_cosines([stack.enter_context(cut.open(digest)) for digest in other])


def test_a_sum_of_squares_that_overflows_is_refused_by_tensor(tmp_path: Path) -> None:
    states = [{"w": torch.tensor([value], dtype=torch.float64)} for value in (1e200, -1e200, 0.0)]
    cache, digests = _plant(tmp_path, states)
    with pytest.raises(NotFinite, match="tensor w"):
        _told(cache, digests)


def test_other_instructions_of_the_processor_give_the_same_bits(tmp_path: Path) -> None:
    """numpy without AVX sums in another order, which nothing here is left to."""
    draw = torch.Generator().manual_seed(0)
    cache, digests = _plant(tmp_path, [{"w": torch.randn(5 * LANES + 77, generator=draw)} for _ in range(4)])
    here = _told(cache, digests)
    program = (
        "import sys\nfrom contextlib import ExitStack\nfrom pathlib import Path\n"
        "from stockpot.soup import CheckpointCache\nfrom stockpot.soup.model_stock import coefficients\n"
        "cache = CheckpointCache(Path(sys.argv[1]))\n"
        "with ExitStack() as stack:\n"
        "    *models, base = [stack.enter_context(cache.open(digest)) for digest in sys.argv[2:]]\n"
        "    print({name: [x.hex() for x in row] for name, row in coefficients(models, base).items()})\n"
    )
    plain = {**os.environ, "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"}
    run = [sys.executable, "-W", "ignore", "-c", program, str(cache.folder), *digests]
    there = subprocess.run(run, env=plain, capture_output=True, text=True, check=True).stdout
    assert there.strip() == str({name: [x.hex() for x in row] for name, row in here.items()})
