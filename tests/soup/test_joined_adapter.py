"""A soup of adapters as one adapter: its product is the mean of the products, or it is not written."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.soup.adapters import PREFIX, factors, product, write_adapter
from tests.soup.conftest import Ingest
from torch import Tensor

from stockpot.entities import Checkpoint, Recipe, WeightsFormat
from stockpot.errors import Incompatible
from stockpot.soup import CheckpointCache, build, ingest_adapter, join_adapters

BASE = {
    "enc.q.weight": torch.arange(12.0).reshape(4, 3) / 7,
    "enc.v.weight": torch.arange(6.0).reshape(2, 3) / 7,
    "enc.emb.weight": torch.arange(15.0).reshape(5, 3) / 3,
    "head.weight": torch.ones(2, 3),
}
Adapters = Sequence[tuple[Mapping[str, Tensor], Mapping[str, Any]]]


class Table:
    """Adapters of one base, their soup, and what they are joined to."""

    def __init__(self, cache: CheckpointCache, base: Checkpoint, folder: Path) -> None:
        self.cache, self.base, self.folder = cache, base, folder

    def joined(self, adapters: Adapters, recipe: Recipe | None = None) -> Path:
        files = [write_adapter(self.folder / f"{n}", one, **more) for n, (one, more) in enumerate(adapters)]
        merged = [self._merged(file) for file in files]
        recipe = recipe or Recipe.mean([each.digest for each in merged])
        soup = self.cache.path(build(recipe, self.cache).digest)
        weights = [1 / len(files)] * len(files)
        sources = [(file, WeightsFormat.SAFETENSORS) for file in files]
        into = self.folder / "adapter"
        join_adapters(self.cache, sources, weights, self.base.digest, soup, into, ties=False)
        return into

    def _merged(self, file: Path) -> Checkpoint:
        return ingest_adapter(self.cache, file, WeightsFormat.SAFETENSORS, self.base.digest, ties=False)[0]


@pytest.fixture
def table(cache: CheckpointCache, ingest: Ingest, tmp_path: Path) -> Table:
    return Table(cache, ingest(BASE), tmp_path)


def test_the_product_of_joined_factors_is_the_mean_of_the_products(table: Table) -> None:
    one = factors("enc.q", 4, 3, rank=2, seed=1) | factors("enc.v", 2, 3, rank=2, seed=2)
    other = factors("enc.q", 4, 3, rank=3, seed=3) | {"head.weight": torch.full((2, 3), 5.0)}
    into = table.joined(
        [
            ({**one, "head.weight": torch.full((2, 3), 3.0)}, {"lora_alpha": 4}),
            (other, {"r": 3, "lora_alpha": 6, "use_rslora": True}),
        ]
    )
    found = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in load_file(into / "adapter_model.safetensors").items()
    }
    mean = (2 * product(one, "enc.q") + 6 / 3**0.5 * product(other, "enc.q")) / 2
    torch.testing.assert_close(product(found, "enc.q"), mean, rtol=1e-6, atol=1e-6)
    # An adapter without this module leaves it as it is.
    torch.testing.assert_close(product(found, "enc.v"), product(one, "enc.v"), rtol=1e-6, atol=1e-6)
    assert found["head.weight"].equal(torch.full((2, 3), 4.0))
    config = json.loads((into / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) in {(5, 5), (2, 2)}
    assert {*config["rank_pattern"]} | {"^enc.q", "^enc.v"} == {"^enc.q", "^enc.v"}
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert config["base_model_name_or_path"] == "base"


def test_embeddings_are_joined_whatever_peft_wrote_beside_their_factors(table: Table) -> None:
    random = torch.Generator().manual_seed(7)
    adapters: list[dict[str, Tensor]] = [
        {
            "enc.emb.lora_embedding_A": torch.randn(2, 5, generator=random),
            "enc.emb.lora_embedding_B": torch.randn(3, 2, generator=random),
            "enc.emb.base_layer.weight": BASE["enc.emb.weight"],
        }
        for _ in range(3)
    ]
    into = table.joined([(adapter, {}) for adapter in adapters])
    found = load_file(into / "adapter_model.safetensors")
    assert found[f"{PREFIX}enc.emb.lora_embedding_A"].shape == (6, 5)
    assert found[f"{PREFIX}enc.emb.lora_embedding_B"].shape == (3, 6)
    adapters[0]["enc.emb.base_layer.weight"] = BASE["enc.emb.weight"] + 1
    (table.folder / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(Incompatible, match="trained both whole and by factors"):
        table.joined([(adapter, {}) for adapter in adapters])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (({"head.weight": torch.ones(2, 3)}, {}), r"not all adapters hold head\.weight whole"),
        (({}, {"fan_in_fan_out": True}), "fan_in_fan_out is not the same"),
    ],
)
def test_what_one_adapter_cannot_say_is_refused_by_name(
    table: Table, more: tuple[dict[str, Tensor], dict[str, Any]], told: str
) -> None:
    tensors, config = more
    with pytest.raises(Incompatible, match=told):
        table.joined([(factors("enc.q", 4, 3), {}), ({**factors("enc.q", 4, 3, seed=1), **tensors}, config)])


def test_an_adapter_that_is_not_the_soup_is_not_taken_for_it(table: Table, tmp_path: Path) -> None:
    adapters: Adapters = [(factors("enc.q", 4, 3, seed=seed), {}) for seed in range(2)]
    save_file(BASE, tmp_path / "base.safetensors")
    plain, _ = table.cache.ingest(tmp_path / "base.safetensors", WeightsFormat.SAFETENSORS)
    with pytest.raises(Incompatible, match="base plus adapter is not the soup") as caught:
        table.joined(adapters, Recipe.mean([plain.digest]))
    assert caught.value.faults[0].startswith("enc.q.weight differs by ")
