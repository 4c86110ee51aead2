"""What PEFT writes is merged as PEFT merges it, by real models of each kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stockpot.entities import WeightsFormat
from stockpot.errors import Incompatible
from stockpot.soup import CheckpointCache, canonical_names, ingest_adapter

pytestmark = [
    pytest.mark.slow,
    # what PEFT says of itself, of transformers, and of tied embeddings
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]

SMALL: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(**SMALL, intermediate_size=32, max_position_embeddings=16)
    )


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=16, n_embd=8, n_layer=1, n_head=2, **ends))


def llama(*, tied: bool = False) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    more: dict[str, Any] = {"num_key_value_heads": 1, "intermediate_size": 32, "tie_word_embeddings": tied}
    return LlamaForCausalLM(LlamaConfig(**SMALL, **more))


def tied_llama() -> Any:
    return llama(tied=True)


def bfloat16_llama() -> Any:
    return llama().bfloat16()


def convolutions() -> Any:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv1d(4, 2, 2), nn.Linear(3, 2))


CASES: list[tuple[Callable[[], Any], dict[str, Any]]] = [
    (bert, {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}),
    (bert, {"target_modules": ["query"], "task_type": "SEQ_CLS", "bias": "all"}),
    (bert, {"target_modules": ["query"], "modules_to_save": ["classifier"], "bias": "lora_only"}),
    (
        bert,
        {
            "target_modules": "all-linear",
            "use_rslora": True,
            "rank_pattern": {"query": 3, r"layer\.1\.attention\.self\.key": 5},
            "alpha_pattern": {r"^bert.encoder.layer.0.*query": 2, "dense": 5},
            "task_type": "SEQ_CLS",
        },
    ),
    (bert, {"target_modules": ["word_embeddings", "key"], "init_lora_weights": "gaussian"}),
    (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"}),
    (llama, {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "task_type": "CAUSAL_LM"}),
    (llama, {"target_modules": "all-linear", "modules_to_save": ["lm_head", "embed_tokens"]}),
    (tied_llama, {"target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}),
    (bfloat16_llama, {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}),
    (convolutions, {"target_modules": ["0", "1", "2", "3"]}),
]


def adapted(make: Callable[[], Any], folder: Path, **config: Any) -> Any:
    """A model by PEFT whose trained numbers are random, saved in this folder; its base beside it."""
    import peft

    torch.manual_seed(0)
    base = make()
    state = base.state_dict()
    kept = {name for name in state if not (name == "lm_head.weight" and make in {tied_llama, gpt2})}
    folder.mkdir()
    save_file({name: state[name].clone() for name in kept}, folder / "base.safetensors")
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, **config))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) / 4)
    model.save_pretrained(str(folder / "adapter"))
    return model


def merged(folder: Path) -> dict[str, torch.Tensor]:
    cache = CheckpointCache(folder / "cache")
    base, _ = cache.ingest(folder / "base.safetensors", WeightsFormat.SAFETENSORS)
    file = folder / "adapter" / "adapter_model.safetensors"
    found, _ = ingest_adapter(cache, file, WeightsFormat.SAFETENSORS, base.digest, ties=False)
    return load_file(cache.path(found.digest))


@pytest.mark.parametrize(("make", "config"), CASES)
def test_an_adapter_is_merged_as_by_merge_and_unload(
    make: Callable[[], Any], config: dict[str, Any], tmp_path: Path
) -> None:
    model = adapted(make, tmp_path / "m", **config)
    found = merged(tmp_path / "m")
    wanted = model.merge_and_unload().state_dict()
    before = load_file(tmp_path / "m" / "base.safetensors")
    assert any(not wanted[name].equal(tensor) for name, tensor in before.items())
    names = canonical_names(before)
    assert {*names.values()} == found.keys()
    for name, tensor in ((names[name], wanted[name]) for name in before):
        # PEFT rounds the product to 16 bits before it is added.
        near = 2e-2 if tensor.dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(found[name], tensor, rtol=near, atol=near)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
    ],
)
def test_what_is_more_than_low_rank_is_refused_as_peft_writes_it(
    config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    adapted(llama, tmp_path / "m", target_modules=["q_proj"], task_type="CAUSAL_LM", **config)
    with pytest.raises(Incompatible) as caught:
        merged(tmp_path / "m")
    assert told in caught.value.what


@pytest.mark.parametrize("kind", ["IA3Config", "LoHaConfig", "LoKrConfig", "VeraConfig", "OFTConfig"])
def test_adapters_that_are_no_lora_are_refused_by_their_type(kind: str, tmp_path: Path) -> None:
    import peft

    model = llama()
    save_file({n: t.clone() for n, t in model.state_dict().items()}, tmp_path / "base.safetensors")
    more: dict[str, Any] = {"feedforward_modules": []} if kind == "IA3Config" else {}
    config = getattr(peft, kind)(target_modules=["q_proj"], **more)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"]
    with pytest.raises(Incompatible, match=f"peft_type is '{told}', not LORA"):
        merged(tmp_path)


def test_embeddings_that_are_tied_are_refused(tmp_path: Path) -> None:
    adapted(tied_llama, tmp_path / "m", target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM")
    with pytest.raises(Incompatible) as caught:
        merged(tmp_path / "m")
    assert "embed_tokens.weight is changed" in caught.value.faults[0]
