"""Low-rank adapters become ordinary checkpoints: base plus update, or one clear refusal."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.soup.adapters import CONFIG, factors, product, write_adapter
from tests.soup.conftest import Ingest
from torch import Tensor

from stockpot.entities import Checkpoint, Recipe, TensorSpec, WeightsFormat
from stockpot.errors import BadCheckpoint, Incompatible, NotFinite, StockpotError
from stockpot.soup import CheckpointCache, build, ingest_adapter, merged_tensors
from stockpot.soup.adapter_config import parse_config

BASE = {
    "enc.q.weight": torch.arange(12.0).reshape(4, 3) / 7,
    "enc.q.bias": torch.arange(4.0),
    "enc.emb.weight": torch.arange(15.0).reshape(5, 3) / 3,
    "enc.square.weight": torch.arange(9.0).reshape(3, 3) / 5,
    "enc.conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2) / 9,
    "enc.steps": torch.tensor([3]),
    "head.weight": torch.ones(2, 3),
}

Merge = Callable[..., dict[str, Tensor]]


@pytest.fixture
def merge(cache: CheckpointCache, ingest: Ingest, tmp_path: Path) -> Merge:
    """What an adapter of these tensors makes of a base."""

    def merged(
        tensors: Mapping[str, Tensor],
        base: Mapping[str, Tensor] = BASE,
        *,
        ties: bool = False,
        **config: Any,
    ) -> dict[str, Tensor]:
        file = write_adapter(tmp_path / "adapter", tensors, **config)
        return load_file(cache.path(_ingest(cache, file, ingest(dict(base)), ties=ties).digest))

    return merged


def _ingest(cache: CheckpointCache, file: Path, base: Checkpoint, *, ties: bool = False) -> Checkpoint:
    return ingest_adapter(cache, file, WeightsFormat.SAFETENSORS, base.digest, ties=ties)[0]


def _differ(found: Mapping[str, Tensor], base: Mapping[str, Tensor] = BASE) -> set[str]:
    assert found.keys() == base.keys()
    return {name for name in base if not found[name].equal(base[name])}


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 3),
        ({"use_rslora": True}, 6 / math.sqrt(2)),
        ({"lora_alpha": 1}, 0.5),
        ({"alpha_pattern": {"v": 1, "enc.q": 10, "q": 20}}, 5),
        ({"alpha_pattern": {r"^enc\.[a-q]$": 10}}, 5),
        ({"r": 8, "rank_pattern": {"q": 2}}, 3),
    ],
)
def test_a_weight_gets_the_scaled_product_of_its_factors(
    merge: Merge, config: dict[str, Any], scale: float
) -> None:
    adapter = factors("enc.q", 4, 3)
    found = merge(adapter, **config)
    assert _differ(found) == {"enc.q.weight"}
    wanted = BASE["enc.q.weight"].double() + scale * product(adapter, "enc.q")
    torch.testing.assert_close(found["enc.q.weight"].double(), wanted, rtol=1e-6, atol=1e-6)


def test_weights_that_are_stored_the_other_way_get_the_transposed_product(merge: Merge) -> None:
    adapter = factors("enc.q", 3, 4) | factors("enc.square", 3, 3, seed=1)
    for transposed in (True, False):
        if not transposed:
            del adapter["enc.q.lora_A.weight"], adapter["enc.q.lora_B.weight"]
        found = merge(adapter, fan_in_fan_out=transposed)
        square = 3 * product(adapter, "enc.square")
        wanted = BASE["enc.square.weight"].double() + (square.T if transposed else square)
        torch.testing.assert_close(found["enc.square.weight"].double(), wanted, rtol=1e-6, atol=1e-6)
        if transposed:
            wanted = BASE["enc.q.weight"].double() + 3 * product(adapter, "enc.q").T
            torch.testing.assert_close(found["enc.q.weight"].double(), wanted, rtol=1e-6, atol=1e-6)


def test_where_no_shape_tells_how_a_square_weight_is_stored_and_others_contradict_it_is_refused(
    merge: Merge,
) -> None:
    adapter = factors("enc.q", 3, 4) | factors("enc.square", 3, 3)
    with pytest.raises(Incompatible, match=r"square weights of enc\.square"):
        merge(adapter, fan_in_fan_out=False)


def test_convolutions_and_embeddings_are_updated_by_their_own_factors(merge: Merge) -> None:
    random = torch.Generator().manual_seed(3)
    adapter = {
        "enc.conv.lora_A.weight": torch.randn(2, 3, 2, 2, generator=random),
        "enc.conv.lora_B.weight": torch.randn(2, 2, 1, 1, generator=random),
        "enc.emb.lora_embedding_A": torch.randn(2, 5, generator=random),
        "enc.emb.lora_embedding_B": torch.randn(3, 2, generator=random),
    }
    found = merge(adapter)
    assert _differ(found) == {"enc.conv.weight", "enc.emb.weight"}
    conv = BASE["enc.conv.weight"] + 3 * product(adapter, "enc.conv").float()
    torch.testing.assert_close(found["enc.conv.weight"], conv)
    down, up = adapter["enc.emb.lora_embedding_A"], adapter["enc.emb.lora_embedding_B"]
    torch.testing.assert_close(found["enc.emb.weight"], BASE["enc.emb.weight"] + 3 * (up @ down).T)


def test_whole_tensors_take_the_place_of_the_bases_in_its_dtype(merge: Merge) -> None:
    base = {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in BASE.items()
    }
    adapter = {
        **factors("enc.q", 4, 3),
        "enc.q.base_layer.bias": torch.full((4,), 1 / 3),
        "head.modules_to_save.weight": torch.full((2, 3), 7.0),
        "head.original_module.weight": torch.full((2, 3), 9.0),
    }
    found = merge(adapter, base, bias="all", modules_to_save=["head"])
    assert _differ(found, base) == {"enc.q.weight", "enc.q.bias", "head.weight"}
    assert found["enc.q.bias"].equal(torch.full((4,), 1 / 3).bfloat16())
    assert found["head.weight"].equal(torch.full((2, 3), 7.0).bfloat16())
    # cast once, not before and after the sum
    exact = base["enc.q.weight"].double() + 3 * product(adapter, "enc.q")
    assert found["enc.q.weight"].equal(exact.bfloat16())


def test_a_head_that_the_base_lacks_takes_the_place_of_the_bases_own(merge: Merge) -> None:
    adapter = {**factors("enc.q", 4, 3), "classifier.weight": torch.ones(7, 3)}
    found = merge(adapter, modules_to_save=["classifier", "score"])
    assert found.keys() == {name for name in BASE if name != "head.weight"} | {"classifier.weight"}
    with pytest.raises(Incompatible, match=r"classifier\.weight: neither a part of the base"):
        merge(adapter)


@pytest.mark.parametrize("prefix", ["model.", "bert."])
def test_a_base_that_is_a_part_of_the_model_is_found_in_it(merge: Merge, prefix: str) -> None:
    bare = {name.removeprefix("enc."): tensor for name, tensor in BASE.items() if name != "head.weight"}
    adapter = {**factors(f"{prefix}q", 4, 3), "head.weight": torch.ones(2, 3)}
    found = merge(adapter, bare, modules_to_save=["head"])
    assert found.keys() == {prefix + name for name in bare} | {"head.weight"}


def test_a_model_that_is_a_part_of_the_base_is_found_in_it(merge: Merge) -> None:
    adapter = factors("q", 4, 3)
    found = merge(adapter)
    assert found.keys() == {name.removeprefix("enc.") for name in BASE if name != "head.weight"}
    assert not found["q.weight"].equal(BASE["enc.q.weight"])


def _soup(cache: CheckpointCache, *checkpoints: Checkpoint) -> dict[str, Tensor]:
    return load_file(cache.path(build(Recipe.mean([c.digest for c in checkpoints]), cache).digest))


def test_the_mean_of_merged_adapters_is_the_mean_of_updates_and_not_of_factors(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path
) -> None:
    base = ingest(BASE)
    both = [factors("enc.q", 4, 3, seed=seed) for seed in (1, 2)]
    merged = [_ingest(cache, write_adapter(tmp_path / f"{n}", one), base) for n, one in enumerate(both)]
    found = _soup(cache, *merged)["enc.q.weight"].double()
    update = 3 * sum(product(one, "enc.q") for one in both) / 2
    torch.testing.assert_close(found, BASE["enc.q.weight"].double() + update, rtol=1e-5, atol=1e-5)
    mixed = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
    wrong = BASE["enc.q.weight"].double() + 3 * product(mixed, "enc.q")
    assert (found - wrong).abs().max() > 0.1


def test_an_adapter_averaged_with_itself_is_itself(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path
) -> None:
    base = ingest(BASE)
    one = factors("enc.q", 4, 3)
    # The same update, of other factors: no two files of one digest are averaged.
    other = {name: tensor * (2 if "lora_A" in name else 0.5) for name, tensor in one.items()}
    merged = [_ingest(cache, write_adapter(tmp_path / f"{n}", a), base) for n, a in enumerate((one, other))]
    assert merged[0] == merged[1]
    alone = load_file(cache.path(merged[0].digest))
    assert _soup(cache, merged[0]).keys() == alone.keys()
    wanted = BASE["enc.q.weight"].double() + 3 * product(one, "enc.q")
    torch.testing.assert_close(alone["enc.q.weight"].double(), wanted, rtol=1e-6, atol=1e-6)


def test_the_bits_depend_on_neither_threads_nor_blocks(merge: Merge) -> None:
    random = torch.Generator().manual_seed(5)
    base = {"q.weight": torch.randn(300, 700, generator=random)}
    adapter = factors("q", 300, 700, rank=8)
    found = merge(adapter, base, r=8)["q.weight"]
    down, up = adapter["q.lora_A.weight"], adapter["q.lora_B.weight"]
    total = up[:, 0:1] * down[0]
    for place in range(1, 8):
        total = total + up[:, place : place + 1] * down[place]
    assert found.equal(total * 0.75 + base["q.weight"])


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"peft_type": None}, "peft_type is 'None'"),
        ({"use_dora": True}, "'use_dora' is set"),
        ({"lora_bias": True}, "'lora_bias' is set"),
        ({"layer_replication": [[0, 2]]}, "'layer_replication' is set"),
        ({"trainable_token_indices": [1]}, "'trainable_token_indices' is set"),
        ({"target_parameters": ["experts.w"]}, "'target_parameters' is set"),
        ({"use_qalora": True}, "'use_qalora' is set"),
        ({"megatron_config": {"a": 1}}, "'megatron_config' is set"),
        ({"a_setting_of_2031": "yes"}, "'a_setting_of_2031' is set"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights is 'pissa_niter_16'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
        ({"init_lora_weights": "LoftQ"}, "init_lora_weights is 'loftq'"),
        ({"init_lora_weights": ["corda"]}, "init_lora_weights is"),
    ],
)
def test_what_is_more_than_a_low_rank_update_is_refused_by_name(
    merge: Merge, config: dict[str, Any], told: str
) -> None:
    with pytest.raises(Incompatible) as caught:
        merge(factors("enc.q", 4, 3), **config)
    assert told in caught.value.what
    assert "merge_and_unload()" in caught.value.mend


@pytest.mark.parametrize(
    ("tensors", "config", "told"),
    [
        ({"enc.q.lora_magnitude_vector": torch.ones(4)}, {}, "lora_magnitude_vector is no part of"),
        ({"enc.q.lora_B.bias": torch.ones(4)}, {}, "lora_B.bias is no part of"),
        ({"enc.z.lora_A.weight": torch.ones(2, 3)}, {}, "is there without"),
        (factors("enc.z", 4, 3), {}, "the base has no weights of these modules: enc.z"),
        (factors("enc.emb", 4, 3), {}, "factors [2, 3] and [4, 2] for a weight F32[5, 3]"),
        (factors("enc.emb", 5, 3, rank=3), {}, "its rank is 3, which adapter_config.json does not tell"),
        ({"enc.steps": torch.ones(1)}, {}, "enc.steps: F32 in the adapter, I64 in the base"),
        (
            {
                "enc.conv.lora_A.weight": torch.ones(2, 3, 2, 2),
                "enc.conv.lora_B.weight": torch.ones(2, 1, 1, 1),
            },
            {},
            "factors [2, 3, 2, 2] and [2, 1, 1, 1]",
        ),
    ],
)
def test_tensors_that_are_no_low_rank_update_of_the_base_are_refused_by_name(
    merge: Merge, tensors: dict[str, Tensor], config: dict[str, Any], told: str
) -> None:
    with pytest.raises(Incompatible, match="cannot be merged into its base exactly") as caught:
        merge(factors("enc.q", 4, 3) | tensors, **config)
    assert any(told in fault for fault in caught.value.faults), caught.value.faults


def test_a_quantised_base_and_an_adapter_without_updates_are_refused(merge: Merge) -> None:
    quantised = {**BASE, "enc.q.weight": torch.ones(4, 3, dtype=torch.uint8)}
    with pytest.raises(Incompatible) as caught:
        merge(factors("enc.q", 4, 3), quantised)
    assert "for a weight U8[4, 3]" in caught.value.faults[0]
    with pytest.raises(Incompatible) as caught:
        merge({"enc.q.bias": torch.ones(4)})
    assert caught.value.faults == ("it holds no low-rank update",)


def test_embeddings_that_the_output_shares_are_refused_only_where_the_model_predicts_words(
    merge: Merge,
) -> None:
    base = {"m.embed.weight": torch.ones(5, 3), "m.q.weight": torch.ones(4, 3)}
    adapter = {
        "m.embed.lora_embedding_A": torch.ones(2, 5),
        "m.embed.lora_embedding_B": torch.ones(3, 2),
    }
    for ties, config in ((True, {}), (False, {"task_type": "CAUSAL_LM"})):
        with pytest.raises(Incompatible) as caught:
            merge(adapter, base, ties=ties, **config)
        assert caught.value.faults[0].startswith("m.embed.weight is changed, and the base uses it as")
        merge(adapter, {**base, "m.out.weight": torch.ones(5, 3)}, ties=ties, **config)
    merge(adapter, base)
    merge(adapter, base, ties=True, task_type="SEQ_CLS")


def test_numbers_that_are_not_finite_are_named_as_the_adapters_own(
    merge: Merge, cache: CheckpointCache
) -> None:
    adapter = factors("enc.q", 4, 3)
    adapter["enc.q.lora_B.weight"][1, 1] = math.nan
    with pytest.raises(NotFinite, match="NaN or infinity in 1 of 2 tensors") as caught:
        merge(adapter)
    assert caught.value.faults == ("base_model.model.enc.q.lora_B.weight",)
    half = {name: tensor.half() for name, tensor in BASE.items() if tensor.is_floating_point()}
    with pytest.raises(NotFinite) as caught:
        merge(factors("enc.q", 4, 3), half, lora_alpha=1e9)
    assert caught.value.faults == ("enc.q.weight",)
    assert {path.suffix for path in cache.folder.iterdir()} <= {".safetensors", ".stamp"}


def test_an_adapter_by_torch_save_is_the_same_one(
    cache: CheckpointCache, ingest: Ingest, tmp_path: Path
) -> None:
    base, adapter = ingest(BASE), factors("enc.q", 4, 3)
    file = write_adapter(tmp_path / "a", adapter)
    wanted = _ingest(cache, file, base)
    torch.save(load_file(file), tmp_path / "a" / "adapter_model.bin")
    found, _ = ingest_adapter(
        cache, tmp_path / "a" / "adapter_model.bin", WeightsFormat.TORCH, base.digest, ties=False
    )
    assert found == wanted


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "does not begin"),
        (b"[]", "does not begin"),
        (b'{"peft_type": "LORA", "peft_type": "LORA"}', "given twice"),
        (b'{"peft_type": "LORA", "r": NaN}', "no JSON"),
        (b'{"peft_type": "LORA", "r": 0}', "no positive whole number"),
        (b'{"peft_type": "LORA", "r": true}', "r holds 'True'"),
        (b'{"peft_type": "LORA", "r": 1e400}', "r holds 'inf'"),
        (b'{"peft_type": "LORA", "lora_alpha": "x"}', "lora_alpha holds 'x'"),
        (b'{"peft_type": "LORA", "alpha_pattern": [1]}', "alpha_pattern is no map"),
        (b'{"peft_type": "LORA", "alpha_pattern": {"(a|a)+": 1}}', "no simple pattern"),
        (b'{"peft_type": "LORA", "alpha_pattern": {".*.*.*x": 1}}', "no simple pattern"),
        (b'{"peft_type": "LORA", "alpha_pattern": {"(a": 1}}', "alpha_pattern has '(a'"),
        (b'{"peft_type": "LORA", "alpha_pattern": {"[z-a]": 1}}', "alpha_pattern has '[z-a]'"),
        (b'{"peft_type": "LORA", "use_rslora": 1}', "use_rslora is neither"),
        (b'{"peft_type": "LORA", "modules_to_save": [1]}', "modules_to_save is no list of names"),
        (b'{"peft_type": "LORA", "base_model_name_or_path": 7}', "base_model_name_or_path is no text"),
        (b"{" + b" " * (1 << 20) + b"}", "longer than 1,048,576 bytes"),
        (b'{"peft_type": "LORA", "r": 1' + b"0" * 400 + b"}", "r holds '1000"),
        (b'{"peft_type": "LORA", "lora_alpha": 1' + b"0" * 400 + b"}", "lora_alpha holds '1000"),
        (
            json.dumps({"peft_type": "LORA", "alpha_pattern": {f"m{n}": 1 for n in range(2001)}}).encode(),
            "more than 2,000 patterns",
        ),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_clear_fault(content: bytes, told: str) -> None:
    with pytest.raises(BadCheckpoint) as caught:
        parse_config(content)
    assert told in caught.value.what


def test_patterns_for_very_many_modules_are_refused_before_they_are_tried() -> None:
    content = json.dumps({**CONFIG, "alpha_pattern": {f"m{n}": 1 for n in range(2000)}}).encode()
    config = parse_config(content)
    specs = [
        TensorSpec(f"base_model.model.q{n}.lora_{kind}.weight", "F32", shape)
        for n in range(600)
        for kind, shape in (("A", (2, 4)), ("B", (4, 2)))
    ]
    with pytest.raises(Incompatible, match="2000 patterns for 600 modules"):
        merged_tensors(config, specs, [], tied=False)


_WORDS = st.sampled_from(["", "q", "enc.q", "LORA", ".*", "(", "\\", "\x00", "ä", "[[a]"])
_VALUES = _WORDS | st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats()
_JSON = _VALUES | st.lists(_VALUES, max_size=2) | st.dictionaries(_WORDS, _VALUES, max_size=2)


@given(st.dictionaries(st.sampled_from([*CONFIG, "rank_pattern", "alpha_pattern", "task_type"]), _JSON))
def test_whatever_a_configuration_holds_is_read_or_refused(changes: dict[str, object]) -> None:
    try:
        config = parse_config(json.dumps({**CONFIG, **changes}).encode())
    except StockpotError:
        return
    assert math.isfinite(config.scale("enc.q", 2))


@given(st.data())
def test_whatever_byte_of_a_configuration_is_another_it_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(json.dumps(dict(CONFIG)).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(StockpotError):
        assert parse_config(content).ranks


_SHAPES = st.sampled_from([(), (2,), (2, 3), (4, 2), (2, 5), (3, 2), (2, 3, 2, 2), (2, 2, 1, 1), (0, 3)])


@settings(max_examples=40)  # each writes and reads files
@given(
    st.dictionaries(
        st.sampled_from(
            [
                f"enc.{module}.{end}"
                for module in ("q", "emb", "conv", "square")
                for end in ("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B", "bias")
            ]
        ),
        _SHAPES,
        min_size=1,
    )
)
def test_whatever_shapes_factors_have_they_are_merged_or_refused(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[int, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    cache = CheckpointCache(folder / "cache")
    save_file(BASE, folder / "base.safetensors")
    base, _ = cache.ingest(folder / "base.safetensors", WeightsFormat.SAFETENSORS)
    file = write_adapter(folder / "a", {name: torch.ones(shape) for name, shape in shapes.items()})
    try:
        found = _ingest(cache, file, base)
    except StockpotError:
        return
    assert {s.name: s.shape for s in found.tensors if "bias" not in s.name} == {
        name: tuple(tensor.shape) for name, tensor in BASE.items() if "bias" not in name
    }
