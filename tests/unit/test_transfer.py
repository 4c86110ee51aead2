"""That an exported model holds the soup's very tensors, whatever flavour it has."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stockpot.workflow.publishing.transfer import differences

SOUP = {"embed.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.ones(2)}


def exported(folder: Path, tensors: dict[str, Tensor], *, cut: bool) -> Path:
    """A model folder of the transformers flavour."""
    (folder / "model").mkdir(parents=True)
    if not cut:
        save_file(tensors, folder / "model" / "model.safetensors")
        return folder
    homes = {name: f"model-{place:05}-of-00002.safetensors" for place, name in enumerate(tensors, 1)}
    for name, home in homes.items():
        save_file({name: tensors[name]}, folder / "model" / home)
    index = folder / "model" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": homes}))
    return folder


@pytest.fixture
def soup(tmp_path: Path) -> Path:
    save_file(SOUP, tmp_path / "soup.safetensors")
    return tmp_path / "soup.safetensors"


@pytest.mark.parametrize("cut", [False, True])
def test_the_same_tensors_are_found_whole_or_cut_and_in_a_wider_dtype(
    tmp_path: Path, soup: Path, *, cut: bool
) -> None:
    wider = {name: tensor.double() for name, tensor in SOUP.items()}
    for place, tensors in enumerate((SOUP, wider)):
        assert differences(exported(tmp_path / str(place), tensors, cut=cut), soup) == []


@pytest.mark.parametrize("cut", [False, True])
def test_each_tensor_that_differs_is_named(tmp_path: Path, soup: Path, *, cut: bool) -> None:
    others = {**SOUP, "head.bias": torch.tensor([1.0, 1.0000001])}
    (fault,) = differences(exported(tmp_path / "package", others, cut=cut), soup)
    assert fault.startswith("head.bias differs in the exported model")


def test_of_tied_tensors_one_is_enough_and_of_others_none_is_left_out(tmp_path: Path) -> None:
    tied = {"a": torch.ones(2, 2), "b": torch.ones(2, 2), "c": torch.zeros(2, 2)}
    save_file(tied, tmp_path / "soup.safetensors")
    one = exported(tmp_path / "one", {"a": tied["a"], "c": tied["c"]}, cut=False)
    assert differences(one, tmp_path / "soup.safetensors") == []
    none = exported(tmp_path / "none", {"a": tied["a"]}, cut=False)
    (fault,) = differences(none, tmp_path / "soup.safetensors")
    assert fault.startswith("c ")
