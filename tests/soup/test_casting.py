"""Weights in another precision than they were logged in."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stockpot.entities import WeightsFormat
from stockpot.errors import Incompatible, NotFinite
from stockpot.soup import CODES, CheckpointCache
from stockpot.soup.arithmetic import DTYPES
from stockpot.soup.weights_file import PIECE

Save = Callable[[dict[str, Tensor], Path], tuple[Path, WeightsFormat]]
SOURCES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _tensors() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    floats = {
        f"part.{dtype}".replace("torch.", ""): torch.randn(7, 9, generator=draw).to(dtype)
        for dtype in SOURCES
    }
    halfway = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 2**-25, 3 * 2**-25, -(1 + 2**-11), 0.0])
    long = torch.randn(PIECE // 4 + 3, generator=draw)  # more than one piece
    return floats | {
        "part.halfway": halfway,
        "part.long": long,
        "count": torch.arange(5),
        "no": torch.zeros(0, 2),
    }


def _safetensors(tensors: dict[str, Tensor], folder: Path) -> tuple[Path, WeightsFormat]:
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors", WeightsFormat.SAFETENSORS


def _shards(tensors: dict[str, Tensor], folder: Path) -> tuple[Path, WeightsFormat]:
    homes = {name: f"model-{place}.safetensors" for place, name in enumerate(tensors)}
    for name, home in homes.items():
        save_file({name: tensors[name]}, folder / home)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": homes}))
    return index, WeightsFormat.SAFETENSORS


def _torch(tensors: dict[str, Tensor], folder: Path) -> tuple[Path, WeightsFormat]:
    turned = {
        name: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor for name, tensor in tensors.items()
    }
    torch.save({"state_dict": turned}, folder / "model.ckpt")
    return folder / "model.ckpt", WeightsFormat.TORCH


class _Holder(nn.Module):
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor)

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(buffer.double().sum() for buffer in self.buffers())


def _pt2(tensors: dict[str, Tensor], folder: Path) -> tuple[Path, WeightsFormat]:
    torch.export.save(torch.export.export(_Holder(tensors), (torch.zeros(1),)), folder / "model.pt2")
    return folder / "model.pt2", WeightsFormat.PT2


@pytest.mark.parametrize("save", [_safetensors, _shards, _torch, _pt2])
@pytest.mark.parametrize("name", list(CODES))
def test_floats_are_those_of_torchs_own_cast_and_integers_stay(
    save: Save, name: str, cache: CheckpointCache, tmp_path: Path
) -> None:
    tensors, code = _tensors(), CODES[name]  # type: ignore[index]  # an enum of texts
    (tmp_path / "logged").mkdir()
    checkpoint, _, changed = cache.ingest_cast(*save(tensors, tmp_path / "logged"), code)
    found = load_file(cache.path(checkpoint.digest))
    if save is _pt2:
        tensors = {name.replace(".", "_"): tensor for name, tensor in tensors.items()}
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        wanted = tensor.to(DTYPES[code]) if tensor.is_floating_point() else tensor
        assert found[key].dtype == wanted.dtype
        assert torch.equal(found[key], wanted), key
    assert changed == tuple(sorted({"F64", "F32", "BF16", "F16"} - {code}))

    save_file(
        {key: t.to(DTYPES[code]) if t.is_floating_point() else t for key, t in tensors.items()},
        tmp_path / "same",
    )
    assert cache.ingest(tmp_path / "same", WeightsFormat.SAFETENSORS)[0] == checkpoint


def test_halves_between_two_numbers_go_to_the_even_one(cache: CheckpointCache, tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1 + 2**-8, 1 + 3 * 2**-8])}, tmp_path / "a")
    checkpoint, *_ = cache.ingest_cast(tmp_path / "a", WeightsFormat.SAFETENSORS, "BF16")
    assert load_file(cache.path(checkpoint.digest))["a"].tolist() == [1.0, 1 + 2**-6]


def test_numbers_too_large_are_refused_by_the_names_of_their_tensors(
    cache: CheckpointCache, kept: Callable[[], list[str]], tmp_path: Path
) -> None:
    large = torch.ones(PIECE // 4 + 9)
    large[-1] = 65520.0  # the first that rounds beyond the largest, 65504
    save_file(
        {"good": large.clamp(max=65519.0), "large": large, "steps": torch.tensor(70000)}, tmp_path / "a"
    )
    with pytest.raises(Incompatible, match="too large for float16 in 1 of 3 tensors") as caught:
        cache.ingest_cast(tmp_path / "a", WeightsFormat.SAFETENSORS, "F16")
    assert caught.value.faults == ("large",)
    assert "--dtype bfloat16" in caught.value.mend
    assert kept() == []
    save_file({"a": torch.tensor([float("inf")])}, tmp_path / "b")
    with pytest.raises(NotFinite):
        cache.ingest_cast(tmp_path / "b", WeightsFormat.SAFETENSORS, "F16")
