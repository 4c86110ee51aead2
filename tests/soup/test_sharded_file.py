"""Weights that were cut into several files: as one checkpoint, or one clear fault."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stockpot.entities import Checkpoint, WeightsFormat
from stockpot.errors import BadCheckpoint
from stockpot.soup import CheckpointCache

INDEX = "model.safetensors.index.json"
FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
TENSORS = {
    "model.embed.weight": torch.arange(6.0).reshape(2, 3),
    "model.layer.weight": torch.arange(4.0).bfloat16(),
    "model.layer.bias": torch.tensor([1, 2]),
}


def _cut(folder: Path) -> Path:
    """The tensors in two files, as ``save_pretrained`` cuts them."""
    folder.mkdir()
    names = sorted(TENSORS)
    homes = {name: FILES[place > 0] for place, name in enumerate(names)}
    for file in FILES:
        save_file({n: TENSORS[n] for n in names if homes[n] == file}, folder / file, {"format": "pt"})
    _write(folder, {"metadata": {"total_size": 40}, "weight_map": homes})
    return folder


def _write(folder: Path, document: object) -> None:
    (folder / INDEX).write_text(json.dumps(document))


def _read(folder: Path) -> dict[str, str]:
    homes: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return homes


def _ingest(folder: Path, cache: Path) -> Checkpoint:
    return CheckpointCache(cache).ingest(folder / INDEX, WeightsFormat.SAFETENSORS)[0]


def test_cut_weights_have_the_digest_of_the_whole(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file(TENSORS, whole)
    cache = CheckpointCache(tmp_path / "cache")
    wanted, _ = cache.ingest(whole, WeightsFormat.SAFETENSORS)
    assert _ingest(_cut(tmp_path / "cut"), tmp_path / "cache") == wanted
    assert [spec.name for spec in wanted.tensors] == ["embed.weight", "layer.bias", "layer.weight"]


def test_what_was_read_is_named_by_all_files(tmp_path: Path) -> None:
    folder, cache = _cut(tmp_path / "cut"), CheckpointCache(tmp_path / "cache")
    _, before = cache.ingest(folder / INDEX, WeightsFormat.SAFETENSORS)
    _write(folder, {"weight_map": _read(folder)})
    _, after = cache.ingest(folder / INDEX, WeightsFormat.SAFETENSORS)
    assert before != after


def _without_a_file(folder: Path) -> None:
    (folder / FILES[1]).unlink()


def _without_an_index(folder: Path) -> None:
    (folder / INDEX).unlink()


def _a_tensor_elsewhere(folder: Path) -> None:
    _write(folder, {"weight_map": {**_read(folder), "model.layer.bias": FILES[0]}})


def _a_tensor_that_is_nowhere(folder: Path) -> None:
    _write(folder, {"weight_map": {**_read(folder), "model.head": FILES[0]}})


def _a_tensor_that_is_not_told(folder: Path) -> None:
    homes = _read(folder)
    del homes["model.layer.bias"]
    _write(folder, {"weight_map": homes})


def _a_tensor_twice(folder: Path) -> None:
    save_file({name: TENSORS[name] for name in sorted(TENSORS)[:2]}, folder / FILES[0])


def _a_path(folder: Path) -> None:
    _write(folder, {"weight_map": dict.fromkeys(_read(folder), "../secret.safetensors")})


def _no_json(folder: Path) -> None:
    (folder / INDEX).write_text("{")


def _no_map(folder: Path) -> None:
    _write(folder, {"weight_map": {}})


def _a_damaged_file(folder: Path) -> None:
    (folder / FILES[1]).write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_without_a_file, f"{FILES[1]} is missing"),
        (_without_an_index, "is missing"),
        (_a_tensor_elsewhere, f"{FILES[0]} does not hold 'model.layer.bias'"),
        (_a_tensor_elsewhere, f"{FILES[1]} holds 'model.layer.bias', which the index places elsewhere"),
        (_a_tensor_that_is_nowhere, f"{FILES[0]} does not hold 'model.head'"),
        (_a_tensor_that_is_not_told, "holds 'model.layer.bias'"),
        (_a_tensor_twice, "which the index places elsewhere"),
        (_a_path, "is no file's name"),
        (_no_json, "it is no JSON"),
        (_no_map, "no weight_map"),
        (_a_damaged_file, "truncated"),
    ],
)
def test_an_index_that_does_not_tell_the_truth_is_one_clear_fault(
    tmp_path: Path, spoil: Callable[[Path], None], told: str
) -> None:
    folder = _cut(tmp_path / "cut")
    spoil(folder)
    with pytest.raises(BadCheckpoint) as caught:
        _ingest(folder, tmp_path / "cache")
    assert told in "\n".join([caught.value.what, *caught.value.faults])
    assert caught.value.mend
    assert not list((tmp_path / "cache").glob("*.safetensors"))
