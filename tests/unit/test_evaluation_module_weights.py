import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stockpot.entities import Recipe, TensorSpec, digest_of_bytes
from stockpot.errors import BadTask, Incompatible
from stockpot.evaluation.weights.live_module import LiveModule
from stockpot.evaluation.weights.module_weights import architecture_of, fits
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints


def specs(state: dict[str, Tensor]) -> list[TensorSpec]:
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
    return [TensorSpec(name, names.get(t.dtype, "I64"), tuple(t.shape)) for name, t in sorted(state.items())]


def load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    checkpoints = MadeCheckpoints(lambda _: state)
    LiveModule(module, checkpoints, torch.device("cpu")).hold(Recipe.mean([digest_of_bytes(b"these")]))


def half_linear() -> nn.Module:
    return nn.Linear(2, 2).half()


class LanguageModel(nn.Module):
    """Tied as transformers' models are: one name below ``model.``, the other beside it."""

    def __init__(self) -> None:
        super().__init__()
        embed = nn.Embedding(5, 3)
        self.model = nn.Sequential(OrderedDict(embed=embed, mix=nn.Linear(3, 3)))
        self.lm_head = nn.Linear(3, 5, bias=False)
        self.lm_head.weight = embed.weight


@pytest.mark.parametrize("kind", list(tiny.MODELS))
def test_loaded_tensors_are_the_given_ones(kind: str) -> None:
    module, state = tiny.MODELS[kind](), tiny.weights(kind, seed=3)
    load(module, state)
    assert fits(module, specs(state)) == ()
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_the_architecture_is_named_canonically_and_sorted() -> None:
    wrapped = nn.Sequential(OrderedDict(module=nn.Sequential(OrderedDict(model=nn.Linear(3, 2)))))
    assert architecture_of(wrapped) == (TensorSpec("bias", "F32", (2,)), TensorSpec("weight", "F32", (2, 3)))
    load(wrapped, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
    assert wrapped.state_dict()["module.model.weight"].sum() == 6


def test_integer_buffers_are_loaded() -> None:
    module = nn.Module()
    module.register_buffer("steps", torch.tensor(0))
    load(module, {"steps": torch.tensor(7)})
    assert module.state_dict()["steps"] == 7
    assert fits(module, [TensorSpec("steps", "I32", ())]) != ()


def test_every_fault_is_told_at_once() -> None:
    module = nn.Linear(3, 2)
    state = {"weight": torch.ones(3, 2), "scale": torch.ones(1)}
    with pytest.raises(Incompatible) as caught:
        load(module, state)
    told = "\n".join(caught.value.faults)
    assert re.search(r"weight has shape \[3, 2\], the model's has \[2, 3\]", told)
    assert re.search(r"unexpected scale F32\[1\]", told)
    assert re.search(r"missing bias \[2\]", told)
    assert fits(module, specs(state)) == caught.value.faults


def test_a_bare_encoder_under_a_head_is_told_by_its_prefix() -> None:
    model = nn.Sequential(OrderedDict(encoder=tiny.dense(), head=nn.Linear(4, 2)))
    bare = specs(tiny.weights("dense"))
    assert fits(model, bare) == (
        "all 4 names match with prefix `encoder.`",
        "missing head.weight [2, 4], head.bias [2]",
    )
    assert fits(tiny.dense(), [TensorSpec(f"encoder.{s.name}", s.dtype, s.shape) for s in bare]) == (
        "all 4 names match without prefix `encoder.`",
    )


def test_pages_of_names_are_capped() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(100)))
    wider = [TensorSpec(s.name, s.dtype, tuple(3 * n for n in s.shape)) for s in architecture_of(model)]
    (shapes,) = fits(model, wider)
    assert shapes.endswith("and 192 more")
    unexpected, missing = fits(model, [TensorSpec(f"adapter{i}", "F32", (1,)) for i in range(1000)])
    assert unexpected.startswith("unexpected adapter0 F32[1], ")
    assert unexpected.endswith(" and 992 more")
    assert missing.endswith(" and 192 more")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_widens_into_a_float32_model_without_loss(dtype: torch.dtype) -> None:
    module = nn.Linear(2, 2)
    state = {"weight": torch.randn(2, 2, dtype=dtype), "bias": torch.randn(2, dtype=dtype)}
    assert fits(module, specs(state)) == ()
    load(module, state)
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight.to(dtype), state["weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_what_a_model_would_round_is_refused(dtype: torch.dtype) -> None:
    module = half_linear()
    state = {"weight": torch.ones(2, 2, dtype=dtype), "bias": torch.ones(2, dtype=torch.float16)}
    with pytest.raises(Incompatible, match=r"weight is .* does not hold without loss"):
        load(module, state)
    assert len(fits(module, specs(state))) == 1


def test_of_tied_tensors_one_is_enough() -> None:
    state = tiny.weights("tied", seed=2)
    for left_out in ("embed.weight", "head.weight"):
        module = tiny.Tied()
        some = {name: tensor for name, tensor in state.items() if name != left_out}
        assert fits(module, specs(some)) == ()
        load(module, some)
        assert torch.equal(module.head.weight, state["embed.weight"])
        assert module.head.weight is module.embed.weight


def test_tied_tensors_that_differ_are_refused() -> None:
    state = tiny.weights("tied")
    state["head.weight"] = state["head.weight"] + 1
    with pytest.raises(Incompatible, match=r"embed.weight and head.weight are one tensor"):
        load(tiny.Tied(), state)


def test_tied_tensors_of_two_dtypes_are_refused_since_their_averages_would_differ() -> None:
    state = tiny.weights("tied")
    state["embed.weight"] = state["embed.weight"].half()
    (fault,) = fits(tiny.Tied(), specs(state))
    assert fault == "embed.weight and head.weight are one tensor in the model, but F16 and F32"


def test_tied_tensors_that_are_both_missing_are_told_once() -> None:
    state = {name: tensor for name, tensor in tiny.weights("tied").items() if name.startswith("mix")}
    assert fits(tiny.Tied(), specs(state)) == ("missing embed.weight or head.weight [16, 8]",)


def test_a_prefix_that_only_a_left_out_tied_name_lacked_may_be_gone() -> None:
    module = LanguageModel()
    full = {name: torch.randn_like(tensor) for name, tensor in module.state_dict().items()}
    full["lm_head.weight"] = full["model.embed.weight"]
    stripped = {name.removeprefix("model."): t for name, t in full.items() if name != "lm_head.weight"}
    for state in (full, stripped):
        assert fits(module, specs(state)) == ()
        load(module, state)
        assert torch.equal(module.lm_head.weight, full["model.embed.weight"])


class HeadFirst(nn.Module):
    """Registers the tied head before the body."""

    def __init__(self) -> None:
        super().__init__()
        self.lm_head = nn.Linear(3, 5, bias=False)
        embed = nn.Embedding(5, 3)
        embed.weight = self.lm_head.weight
        self.model = nn.Sequential(OrderedDict(embed=embed, mix=nn.Linear(3, 3)))


@pytest.mark.parametrize("stripped", [True, False])
def test_a_left_out_tied_name_may_come_first(
    stripped: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    module = HeadFirst()
    full = {name: torch.randn_like(tensor) for name, tensor in module.state_dict().items()}
    del full["lm_head.weight"]
    state = {name.removeprefix("model.") if stripped else name: tensor for name, tensor in full.items()}
    assert fits(module, specs(state)) == ()
    load(module, state)
    assert torch.equal(module.lm_head.weight, full["model.embed.weight"])


class Copying(nn.Linear):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state: dict[str, Tensor] = super().state_dict(*args, **kwargs)
        return {**state, "weight": state["weight"] * 1.0}


class Viewing(nn.Linear):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state: dict[str, Tensor] = super().state_dict(*args, **kwargs)
        return {name: tensor.detach() for name, tensor in state.items()}


def test_a_state_dict_of_copies_is_refused_rather_than_loaded_into_nothing() -> None:
    module = Copying(2, 2)
    for use in (architecture_of, lambda module: load(module, module.state_dict())):
        with pytest.raises(BadTask, match=r"Copying.* neither its parameters nor its buffers: weight\n"):
            use(module)


def test_a_state_dict_of_views_is_loaded() -> None:
    module = Viewing(2, 2)
    load(module, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    assert module.weight.sum() == 4
