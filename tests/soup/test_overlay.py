from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stockpot.entities import Checkpoint, OverlayRule, Recipe, WeightsFormat, digest_of_bytes
from stockpot.errors import BadCheckpoint, Incompatible
from stockpot.soup import CheckpointCache, averaged_tensors, build
from stockpot.soup import one_pass as one_pass_module
from stockpot.soup.overlay import Overlay

DTYPES = (torch.float32, torch.bfloat16)


def model(seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Of a checkpoint with BatchNorm, whose tensors lie in many parts of a file."""
    drawn = torch.Generator().manual_seed(seed)
    sizes = {"a.weight": 7, "bn.running_mean": 5, "bn.running_var": 5, "bn.weight": 3, "z.weight": 11}
    state = {name: torch.randn(size, generator=drawn).to(dtype) for name, size in sizes.items()}
    return {**state, "bn.num_batches_tracked": torch.tensor(seed), "ids": torch.arange(4)}


def ingested(tmp_path: Path, cache: CheckpointCache, dtype: torch.dtype) -> list[Checkpoint]:
    found = []
    for seed in range(3):
        save_file(model(seed, dtype), tmp_path / f"{seed}.safetensors")
        found.append(cache.ingest(tmp_path / f"{seed}.safetensors", WeightsFormat.SAFETENSORS)[0])
    return found


def statistics(dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        "bn.running_mean": torch.linspace(-1, 1, 5).to(dtype),
        "bn.running_var": torch.linspace(1, 2, 5).to(dtype),
        "bn.num_batches_tracked": torch.tensor(17),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("part", [1, 2, 3, 1 << 18])
def test_an_overlay_replaces_its_tensors_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, part: int
) -> None:
    monkeypatch.setattr(one_pass_module, "_PART", part)
    cache = CheckpointCache(tmp_path / "cache")
    checkpoints = ingested(tmp_path, cache, dtype)
    assert len({checkpoint.exact for checkpoint in checkpoints}) == 1, "counters differ, and need not agree"
    plain = Recipe.mean([checkpoint.digest for checkpoint in checkpoints])
    laid = Overlay.of(statistics(dtype))
    rule = OverlayRule("train", 3, "bn/1", digest_of_bytes(b"data"))
    average = load_file(cache.path(build(plain, cache).digest))
    assert average["bn.num_batches_tracked"] == 0, "the first ingredient's"
    for overlay in (laid.digest, rule):
        recipe = replace(plain, overlay=overlay)
        built = build(recipe, cache, overlay=laid)
        assert build(recipe, cache, overlay=laid, known=built.digest) == built
        found = load_file(cache.path(built.digest))
        streamed = dict(averaged_tensors(recipe, cache, overlay=laid))
        for name, tensor in {**average, **statistics(dtype)}.items():
            assert torch.equal(found[name], tensor), name
            assert torch.equal(streamed[name], tensor), name


def test_an_average_that_overflows_only_where_statistics_are_laid_is_good(tmp_path: Path) -> None:
    cache = CheckpointCache(tmp_path / "cache")
    huge = torch.full((5,), 3e38)
    for name in ("a", "b"):
        state = {
            **model(0, torch.float32),
            "bn.running_var": huge,
            "a.weight": torch.full((7,), ord(name) * 1.0),
        }
        save_file(state, tmp_path / f"{name}.safetensors")
    digests = [
        cache.ingest(tmp_path / f"{name}.safetensors", WeightsFormat.SAFETENSORS)[0].digest for name in "ab"
    ]
    laid = Overlay.of(statistics(torch.float32))
    recipe = replace(Recipe.mean(digests), overlay=laid.digest)
    built = build(recipe, cache, overlay=laid)
    assert torch.equal(load_file(cache.path(built.digest))["bn.running_var"], torch.linspace(1, 2, 5))


def test_an_overlay_is_named_by_its_values_alone_and_hostile_bytes_are_refused() -> None:
    state = statistics(torch.float32)
    laid = Overlay.of(state)
    assert laid.digest == digest_of_bytes(laid.content) == Overlay.of(dict(reversed(state.items()))).digest
    assert Overlay.of({**state, "bn.num_batches_tracked": torch.tensor(18)}).digest != laid.digest
    again = Overlay(laid.content)
    assert all(torch.equal(again.read(name), tensor) for name, tensor in state.items())
    for content in (b"", laid.content[:-1], laid.content + b"\0", b"\xff" * 64):
        with pytest.raises(BadCheckpoint, match="statistics"):
            Overlay(content)


def test_statistics_of_another_model_are_refused(tmp_path: Path) -> None:
    cache = CheckpointCache(tmp_path / "cache")
    digests = [checkpoint.digest for checkpoint in ingested(tmp_path, cache, torch.float32)]
    other = Overlay.of({"bn.running_mean": torch.zeros(6), "x": torch.zeros(1)})
    with pytest.raises(Incompatible) as refused:
        build(replace(Recipe.mean(digests), overlay=other.digest), cache, overlay=other)
    assert "bn.running_mean F32[6], x F32[1]" in refused.value.faults[0]
