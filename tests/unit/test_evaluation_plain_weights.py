"""Weights set the plain way are those of the hot swap, bit for bit, and owe it nothing."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from stockpot.entities import Digest, Recipe, digest_of_bytes
from stockpot.errors import BadCheckpoint, Incompatible, NotFinite
from stockpot.evaluation.weights import live_module
from stockpot.evaluation.weights.live_module import LiveModule
from stockpot.evaluation.weights.module_weights import named_tensors
from stockpot.evaluation.weights.plain_weights import put_plainly
from stockpot.soup import arithmetic
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints

DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(3)]
SOUP = Recipe.mean(DIGESTS)
CPU = torch.device("cpu")


def made(states: Sequence[Mapping[str, Tensor]]) -> MadeCheckpoints:
    return MadeCheckpoints(lambda digest: states[DIGESTS.index(digest)])


def bits(module: nn.Module) -> dict[str, tuple[torch.dtype, bytes]]:
    return {
        name: (tensor.dtype, tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in named_tensors(module).items()
    }


def filled(module: nn.Module, recipe: Recipe, states: Sequence[Mapping[str, Tensor]]) -> nn.Module:
    put_plainly(module, recipe, made(states))
    return module


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", list(tiny.MODELS))
def test_the_bits_are_the_hot_swaps(kind: str, stored: torch.dtype) -> None:
    states = [
        {name: tensor.to(stored) for name, tensor in tiny.weights(kind, seed=seed).items()}
        for seed in range(3)
    ]
    for dtype in {stored, torch.promote_types(stored, torch.float32)}:
        means = [Recipe.mean(part) for part in (DIGESTS[:1], DIGESTS[:2], DIGESTS, DIGESTS[::-1])]
        grouped = Recipe.grouped([DIGESTS[:1], DIGESTS[1:]])
        for recipe in (
            *means,
            grouped,
            Recipe.ties(DIGESTS[0], DIGESTS[1:]),
            Recipe.linear(dict(zip(DIGESTS, ((-1, 3), (1, 1), (5, 7)), strict=True))),
        ):
            plain = filled(tiny.KINDS[kind]().to(dtype), recipe, states)
            hot = LiveModule(tiny.KINDS[kind]().to(dtype), made(states), CPU).hold(recipe)
            assert bits(plain) == bits(hot)


def norms(count: int) -> list[Mapping[str, Tensor]]:
    def state(seed: int) -> dict[str, Tensor]:
        norm = nn.BatchNorm1d(4)
        norm.running_mean = torch.full((4,), float(seed))
        norm.num_batches_tracked = torch.tensor(7)
        return {name: tensor.clone() for name, tensor in norm.state_dict().items()}

    return [state(seed) for seed in range(count)]


def test_buffers_are_averaged_and_counters_copied() -> None:
    module = filled(nn.BatchNorm1d(4), SOUP, norms(3))
    assert torch.equal(named_tensors(module)["running_mean"], torch.ones(4))
    assert torch.equal(named_tensors(module)["num_batches_tracked"], torch.tensor(7))


def test_tied_tensors_stay_one_and_trainable_ones_trainable() -> None:
    module = filled(tiny.Tied(), SOUP, [tiny.weights("tied", seed=seed) for seed in range(3)])
    assert isinstance(module, tiny.Tied)
    assert module.head.weight is module.embed.weight
    assert module.head.weight.requires_grad


def test_a_fault_of_the_hot_swap_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [tiny.weights(seed=seed) for seed in range(3)]
    right = bits(filled(tiny.dense(), SOUP, states))

    def fails(*_: object) -> None:
        raise AssertionError("used")

    for name in ("_copy", "_copy_mean", "mean_of_groups", "GroupSums", "LiveModule", "ThreadedFeed"):
        monkeypatch.setattr(live_module, name, fails)
    for name in ("RunningSum", "rounded"):
        monkeypatch.setattr(arithmetic, name, fails)
    assert bits(filled(tiny.dense(), SOUP, states)) == right


def changed(name: str, tensor: Tensor) -> list[Mapping[str, Tensor]]:
    """The last of three differs."""
    *others, last = norms(3)
    return [*others, {**last, name: tensor}]


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (changed("weight", torch.ones(5)), "its tensors are others"),
        (changed("more", torch.ones(5)), "its tensors are others"),
        ([{**state, "step": torch.tensor(i)} for i, state in enumerate(norms(3))], "step holds other values"),
        ([{"weight": torch.ones(4)}] * 3, "missing bias"),
        ([{**norms(1)[0], "more": torch.ones(1)}] * 3, "unexpected more"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(states: Sequence[Mapping[str, Tensor]], told: str) -> None:
    module = nn.BatchNorm1d(4)
    before = bits(module)
    with pytest.raises(Incompatible, match=told):
        put_plainly(module, SOUP, made(states))
    assert bits(module) == before


def test_tied_tensors_that_differ_are_refused() -> None:
    state = {**tiny.weights("tied"), "head.weight": torch.zeros(tiny.VOCABULARY, tiny.FEATURES)}
    with pytest.raises(Incompatible, match="are one tensor in the model"):
        put_plainly(tiny.Tied(), SOUP, made([state] * 3))


def test_a_sum_that_overflows_is_named_and_the_module_left_as_it_is() -> None:
    module = nn.Linear(2, 2)
    before = bits(module)
    state = {"weight": torch.full((2, 2), 3e38), "bias": torch.zeros(2)}
    with pytest.raises(NotFinite, match=r"1 of 2 tensors") as raised:
        put_plainly(module, SOUP, made([state] * 3))
    assert raised.value.faults == ("weight",)
    assert bits(module) == before


def test_an_overlay_is_refused() -> None:
    recipe = Recipe(SOUP.ingredients, overlay=Digest("sha256:" + 64 * "0"))
    with pytest.raises(BadCheckpoint, match="here are none"):
        put_plainly(tiny.dense(), recipe, made([tiny.weights()] * 3))
