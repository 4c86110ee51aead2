"""Files of transformers whose names are not the module's: real tiny models, saved as the library does it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stockpot.entities import Recipe, TensorSpec, digest_of_bytes
from stockpot.evaluation.weights.live_module import LiveModule
from stockpot.evaluation.weights.module_weights import fits, stored_names
from stockpot.evaluation.weights.plain_weights import put_plainly
from stockpot.soup import canonical_names
from stockpot.soup.arithmetic import spec_of
from stockpot.tasks.huggingface.images import ImageClassification
from stockpot.tasks.huggingface.sentences import Embedder
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.tracking.mlflow_packaging import package
from stockpot.workflow.publishing.transfer import differences

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
MIXTURE: dict[str, Any] = {**SIZES, "vocab_size": 16, "num_key_value_heads": 1, "num_local_experts": 2}


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    module: nn.Module = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **SIZES))
    return module


def swin() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    sizes: dict[str, Any] = {"embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 2}
    module: nn.Module = SwinForImageClassification(SwinConfig(image_size=16, patch_size=4, **sizes))
    return module


def neox() -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    module: nn.Module = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=16, **SIZES))
    return module


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    module: nn.Module = BertForSequenceClassification(BertConfig(vocab_size=16, **SIZES))
    return module


def embedder() -> nn.Module:
    from transformers import EsmConfig, EsmModel

    config: Any = EsmConfig(vocab_size=16, pad_token_id=1, mask_token_id=2, **SIZES)
    return Embedder(EsmModel(config), "mean", normalize=True)


def mixture() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    module: nn.Module = MixtralForCausalLM(MixtralConfig(**MIXTURE))
    return module


def saved(module: nn.Module, folder: Path, **options: Any) -> dict[str, Tensor]:
    """What ``save_pretrained`` writes, under canonical names."""
    model: Any = module.model if isinstance(module, Embedder) else module
    model.save_pretrained(folder, **options)
    state = load_file(folder / "model.safetensors")
    names = canonical_names(state)
    return {names[name]: tensor for name, tensor in state.items()}


def with_old_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As BERT's first files have it."""
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {
        next((name.replace(new, then) for new, then in old.items() if new in name), name): tensor
        for name, tensor in state.items()
    }


def specs(state: Mapping[str, Tensor]) -> list[TensorSpec]:
    return [spec_of(name, tensor) for name, tensor in sorted(state.items())]


@pytest.mark.parametrize("make", [vit, swin, neox, bert, embedder])
def test_what_save_pretrained_wrote_is_put_where_from_pretrained_puts_it(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    trained, live, plain = make(), make(), make()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.normal_()  # norms begin alike
    state = saved(trained, tmp_path)
    if make is bert:
        state = with_old_norms(state)
        assert any(name.endswith("LayerNorm.gamma") for name in state)
    assert not state.keys() <= set(canonical_names(live.state_dict()).values()), "the file has its own names"
    assert fits(live, specs(state)) == ()
    recipe = Recipe.mean([digest_of_bytes(b"these")])
    checkpoints = MadeCheckpoints(lambda _: state)
    LiveModule(live, checkpoints, torch.device("cpu")).hold(recipe)
    put_plainly(plain, recipe, checkpoints)
    names = stored_names(trained, set(state))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(live.state_dict()[name], tensor), name
        assert torch.equal(plain.state_dict()[name], tensor), name
        assert names[name] not in state or torch.equal(state[names[name]], tensor), name
    assert state.keys() <= set(names.values())

    [lost, *_] = [name for name in state if "ayer" in name]
    assert any(
        "missing" in fault for fault in fits(live, specs({n: t for n, t in state.items() if n != lost}))
    )
    strange = {name if name != lost else f"strange.{name}": tensor for name, tensor in state.items()}
    assert any("unexpected strange" in fault for fault in fits(live, specs(strange)))


def test_two_stored_tensors_for_one_of_the_model_do_not_fit(tmp_path: Path) -> None:
    module = bert()
    state = saved(module, tmp_path)
    both = state | with_old_norms(state)
    assert any("unexpected" in fault and "gamma" in fault for fault in fits(module, specs(both)))


def test_experts_that_are_joined_are_refused_by_name_with_the_way_to_save_them(tmp_path: Path) -> None:
    module = mixture()
    joined, missing = fits(module, specs(saved(module, tmp_path)))
    assert "block_sparse_moe.experts.0.w1.weight" in joined
    assert "other tensors of MixtralForCausalLM" in joined
    assert "save_original_format=False" in joined
    assert missing.startswith("missing")
    assert "gate_up_proj" in missing
    assert fits(module, specs(saved(module, tmp_path / "own", save_original_format=False))) == ()
    again: Any = type(module)
    loaded = again.from_pretrained(tmp_path / "own").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("by_name", [False, True])
def test_a_graph_or_code_of_such_a_model_holds_the_weights_of_its_file(
    tmp_path: Path, *, by_name: bool
) -> None:
    module, pixels = vit().eval(), torch.randn(4, 3, 8, 8)
    no_client: Any = None  # it is asked for nothing
    soup = tmp_path / "soup.safetensors"
    save_file(saved(module, tmp_path), soup, metadata={"format": "pt"})
    (tmp_path / "theirs").mkdir()
    packaged = package(
        no_client,
        module,
        soup,
        {"pixel_values": pixels} if by_name else pixels,
        tmp_path / "into",
        model_id=None,
        theirs=tmp_path / "theirs",
        architecture=(f"{ImageClassification.__module__}:ImageClassification", {"model": str(tmp_path)}),
    )
    assert packaged.kind.startswith("pyfunc" if by_name else "pt2")
    assert differences(tmp_path / "into", soup) == []
    changed = load_file(soup)
    changed["vit.encoder.layer.1.attention.attention.key.weight"].view(-1)[0] += 1
    save_file(changed, soup)
    assert len(differences(tmp_path / "into", soup)) == (0 if by_name else 1), "code loads the file itself"
