"""Weights swapped into a live module have the bits of the plain average, however they were reached."""

import gc
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from stockpot.entities import Digest, Recipe, WeightsFormat, digest_of_bytes
from stockpot.errors import BadCheckpoint, Incompatible, NotFinite
from stockpot.evaluation.weights import live_module
from stockpot.evaluation.weights.cuda_feed import require_room_to_pin
from stockpot.evaluation.weights.live_module import LiveModule
from stockpot.evaluation.weights.module_weights import named_tensors
from stockpot.evaluation.weights.plain_weights import put_plainly
from stockpot.soup import CheckpointCache, averaged_tensors
from stockpot.soup.canonical import FLOATS
from stockpot.soup.coefficients import write_coefficients
from stockpot.soup.weights_file import WeightsFile
from stockpot.testing import tiny
from stockpot.testing.checkpoints import CachedCheckpoints

CPU = torch.device("cpu")
DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}


class Mixed(nn.Module):
    """All that a module's state may be made of."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(40, 30)  # in several blocks, see `small_blocks`
        self.conv = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its types lack it
        self.transposed = nn.Parameter(torch.zeros(30, 40).t())
        self.scale = nn.Parameter(torch.zeros(()))
        self.nothing = nn.Parameter(torch.zeros(3, 0, 2))
        self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)
        self.long = nn.Parameter(torch.zeros(9, dtype=torch.float64))
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("unsaved", torch.ones(2), persistent=False)


MODELS: Mapping[str, Callable[[], nn.Module]] = {**tiny.MODELS, "mixed": Mixed}
SEEDS = range(6)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tiny tensors are cut into several blocks too, of uneven sizes."""
    monkeypatch.setattr(live_module, "_BLOCK", 50)


def state_of(kind: str, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """What a fine-tune would log: tied tensors equal, integer and boolean ones as they started."""
    module = MODELS[kind]()
    draw = torch.Generator().manual_seed(seed)
    made = {id(t): torch.randn(t.shape, generator=draw, dtype=torch.float64) for t in module.parameters()}
    state = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        value = made.get(id(tensor), tensor + seed if tensor.is_floating_point() else tensor)
        # A file's dtype is one that the module's holds: of a module in 16 bits, its own.
        own = dtype if tensor.dtype == torch.float32 else tensor.dtype
        state[name] = (
            value.detach().to(own if tensor.is_floating_point() else tensor.dtype).contiguous().clone()
        )
    return state


def planted(cache: CheckpointCache, states: Sequence[Mapping[str, Tensor]]) -> list[Digest]:
    file = cache.folder / "logged"
    digests = []
    for state in states:
        save_file(dict(state), file)
        digests.append(cache.ingest(file, WeightsFormat.SAFETENSORS)[0].digest)
    return digests


@pytest.fixture(scope="module")
def sweeps(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], tuple[CheckpointCache, list[Digest]]]:
    """Six checkpoints of each kind and dtype, made once."""
    made: dict[tuple[str, str], tuple[CheckpointCache, list[Digest]]] = {}

    def sweep(kind: str, dtype: str) -> tuple[CheckpointCache, list[Digest]]:
        if (kind, dtype) not in made:
            cache = CheckpointCache(tmp_path_factory.mktemp("sweep"))
            states = [state_of(kind, seed, DTYPES[dtype]) for seed in SEEDS]
            made[kind, dtype] = cache, planted(cache, states)
        return made[kind, dtype]

    return sweep


def same_bits(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach().contiguous(), other.detach().contiguous()
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return one.numel() == 0 or torch.equal(one.view(-1).view(torch.uint8), other.view(-1).view(torch.uint8))


def require_average(module: nn.Module, recipe: Recipe, cache: CheckpointCache) -> None:
    """The module holds this recipe's average, to the bit."""
    state = module.state_dict()
    average = dict(averaged_tensors(recipe, cache))
    assert average.keys() == state.keys()
    for name, tensor in average.items():
        assert same_bits(state[name], tensor.to(state[name].dtype)), name


def coefficients(cache: CheckpointCache, of: Digest, seeds: Sequence[int]) -> Digest:
    """Other ones for tensors of other shapes, so that tied tensors have the same."""
    with cache.open(of) as file:
        floats = [spec for spec in file.tensors if spec.dtype in FLOATS]
    rows = {spec.name: tuple((1 + math.prod(spec.shape) + seed) / 97 for seed in seeds) for spec in floats}
    return write_coefficients(rows, cache).digest


@st.composite
def walks(draw: st.DrawFn) -> list[list[int]]:
    """Recipes as lists of seeds: greedy steps, kept or not, with repeats and others in between."""
    order = draw(st.permutations(list(SEEDS)))
    soup, walk = [order[0]], []
    for candidate in order[1:]:
        walk.append([*soup, candidate])
        if draw(st.booleans()):
            soup.append(candidate)
        other = st.lists(st.sampled_from(SEEDS), min_size=1, unique=True)
        walk += draw(st.lists(st.one_of(other, st.sampled_from(walk)), max_size=2))
    return walk


@settings(max_examples=12, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize(
    ("kind", "stored", "held"),
    [
        *((kind, "F32", "F32") for kind in MODELS),
        ("attention", "F16", "F32"),
        ("conv", "BF16", "F32"),
        ("dense", "F16", "F16"),
        ("mixed", "BF16", "BF16"),
        ("tied", "F64", "F64"),
        ("dense", "F32", "F64"),
        ("dense", "BF16", "F64"),
    ],
)
def test_every_recipe_has_the_bits_of_the_plain_average_whatever_came_before(
    sweeps: Callable[[str, str], tuple[CheckpointCache, list[Digest]]],
    kind: str,
    stored: str,
    held: str,
    data: st.DataObject,
) -> None:
    cache, digests = sweeps(kind, stored)
    module = MODELS[kind]()
    if held != "F32":
        module = module.to(DTYPES[held])
        if kind == "mixed":
            module.long.data = module.long.data.double()
    live = LiveModule(module, CachedCheckpoints(cache), CPU)
    for seeds in data.draw(walks()):
        if data.draw(st.integers(0, 9)) == 0:
            live.forget()
        recipe = Recipe.mean([digests[seed] for seed in seeds])
        if recipe.is_soup and data.draw(st.booleans()):
            recipe = Recipe.linear({digests[seed]: (seed - 9, 7) for seed in seeds})
        elif recipe.is_soup and data.draw(st.booleans()):
            recipe = Recipe.by_tensor(recipe.checkpoints, coefficients(cache, digests[0], seeds))
        elif len(seeds) > 2 and data.draw(st.booleans()):
            recipe = Recipe.ties(recipe.checkpoints[0], recipe.checkpoints[1:])
        assert live.hold(recipe) is module
        require_average(module, recipe, cache)


@st.composite
def grouped_walks(draw: st.DrawFn) -> list[list[list[int]]]:
    """Groups of seeds: each begins with one, others come to one of them, kept or not, in whatever order."""
    order = draw(st.permutations(list(SEEDS)))
    count = draw(st.integers(2, 4))
    groups, walk = [[seed] for seed in order[:count]], list[list[list[int]]]()
    for candidate in order[count:]:
        place = draw(st.integers(0, count - 1))
        tried = [[*g, candidate] if at == place else g for at, g in enumerate(groups)]
        walk += [groups, tried] if draw(st.booleans()) else [tried]
        groups = tried if draw(st.booleans()) else groups
        others = st.sampled_from([groups[::-1], groups[1:], [g[::-1] for g in tried], groups])
        walk += draw(st.lists(others, max_size=1))
    return walk


@settings(max_examples=8, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("free", [0, 1 << 40], ids=["no room", "room"])
@pytest.mark.parametrize(
    ("kind", "stored", "held"),
    [("mixed", "F32", "F32"), ("mixed", "BF16", "BF16"), ("attention", "F16", "F32"), ("tied", "F64", "F64")],
)
def test_groups_have_the_bits_of_the_plain_average_whatever_came_before(
    sweeps: Callable[[str, str], tuple[CheckpointCache, list[Digest]]],
    kind: str,
    stored: str,
    held: str,
    free: int,
    data: st.DataObject,
) -> None:
    cache, digests = sweeps(kind, stored)
    module = MODELS[kind]().to(DTYPES[held])
    if kind == "mixed":
        module.long.data = module.long.data.double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_module, "free_memory", lambda _: free)
        live = LiveModule(module, CachedCheckpoints(cache), CPU)
    for groups in data.draw(grouped_walks()):
        if data.draw(st.integers(0, 9)) == 0:
            live.forget()
        if data.draw(st.integers(0, 4)) == 0:
            live.hold(Recipe.mean([digests[seed] for seed in groups[0]]))
        named = [[digests[seed] for seed in group] for group in groups]
        recipe = Recipe.grouped(named) if len(named) > 1 else Recipe.mean(named[0])
        live.prepare(recipe)
        assert live.hold(recipe) is module
        require_average(module, recipe, cache)


def live_dense(
    folder: Path, states: Sequence[Mapping[str, Tensor]]
) -> tuple[LiveModule, CachedCheckpoints, list[Digest]]:
    """A live module of two layers, and a cache with these states."""
    cache = CheckpointCache(folder)
    digests = planted(cache, states)
    checkpoints = CachedCheckpoints(cache)
    return LiveModule(tiny.dense(), checkpoints, CPU), checkpoints, digests


def dense(count: int) -> list[dict[str, Tensor]]:
    return [tiny.weights("dense", seed=seed) for seed in range(count)]


def test_a_trial_reads_its_candidate_once_and_an_accepted_one_once_more(tmp_path: Path) -> None:
    live, checkpoints, (a, b, c, d, e) = live_dense(tmp_path, dense(5))
    for digest in (a, b, c, d, e):
        live.hold(Recipe.mean([digest]))

    def opened_for(*recipe: Digest) -> list[Digest]:
        checkpoints.opened.clear()
        live.hold(Recipe.mean(recipe))
        return checkpoints.opened.copy()

    assert opened_for(a, b) == [a, b]
    assert opened_for(a, c) == [c]
    assert opened_for(a, c) == [], "it is held"
    assert opened_for(d) == [d], "the sum stays through a single one"
    assert opened_for(a, c, d) == [c, d]
    assert opened_for(a, c, e) == [e]
    assert opened_for(b, e) == [b, e]


def test_a_trial_in_any_group_reads_its_candidate_once(tmp_path: Path) -> None:
    live, checkpoints, (a, b, c, d, e, f) = live_dense(tmp_path, dense(6))
    for digest in (a, b, c, d, e, f):
        live.hold(Recipe.mean([digest]))

    def opened_for(*groups: list[Digest]) -> list[Digest]:
        checkpoints.opened.clear()
        checkpoints.prefetched.clear()
        recipe = Recipe.grouped(groups)
        live.prepare(recipe)
        live.hold(recipe)
        assert checkpoints.prefetched == checkpoints.opened[-1:]
        return checkpoints.opened.copy()

    assert opened_for([a], [b], [c]) == [b, c, a]
    assert opened_for([a], [b, d], [c]) == [a, d], "what was read last is kept, so it joins its sum"
    assert opened_for([a, d], [b], [c]) == [d]
    assert opened_for([a], [b], [c, e]) == [e]
    assert opened_for([a], [b], [c, e, f]) == [e, f]
    assert opened_for([a, d], [b], [c, e]) == [d]
    assert opened_for([a], [b, d, f], [c, e]) == [d, f]
    assert opened_for([a], [b, d], [c, e]) == [e], "all of it is added already: one is read for the rest"


def test_without_room_for_a_sum_of_each_group_they_are_read_again_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, told = CheckpointCache(tmp_path), list[str]()
    digests = planted(cache, dense(6))
    checkpoints = CachedCheckpoints(cache)
    each = sum(tensor.nbytes for tensor in tiny.weights("dense").values())
    room = [each]
    monkeypatch.setattr(live_module, "free_memory", lambda _: room[0])
    live = LiveModule(tiny.dense(), checkpoints, CPU, told.append)
    for digest in digests:
        live.hold(Recipe.mean([digest]))

    def opened_for(*groups: str) -> str:
        checkpoints.opened.clear()
        recipe = Recipe.grouped([[digests["abcdef".index(one)] for one in group] for group in groups])
        require_average(live.hold(recipe), recipe, cache)
        return "".join("abcdef"[digests.index(digest)] for digest in checkpoints.opened if digest in digests)

    assert opened_for("a", "b") == "ba", "two sums are needed in any case"
    assert not told
    assert opened_for("a", "b", "c") == "abc"
    assert told == [
        "no room to keep the sums of 3 groups of weights: most of them are read again for each recipe"
    ]
    assert opened_for("a", "b", "cd") == "cd", "what comes to the last group leaves the others alone"
    assert opened_for("a", "be", "c") == "abec"
    room[0] = 6 * each
    assert opened_for("a", "b", "c") == "bca"
    assert opened_for("a", "bd", "c") == "ad"


def test_what_is_forgotten_is_made_anew_of_all_its_ingredients(tmp_path: Path) -> None:
    live, checkpoints, digests = live_dense(tmp_path, dense(3))
    live.hold(Recipe.mean(digests))
    live.forget()
    checkpoints.opened.clear()
    live.hold(Recipe.mean(digests))
    assert checkpoints.opened == digests


@pytest.mark.slow
def test_no_more_than_one_sum_is_kept(tmp_path: Path) -> None:
    def tensors() -> dict[int, Tensor]:
        gc.collect()
        return {id(o): o for o in gc.get_objects() if issubclass(type(o), Tensor)}

    def elements() -> int:
        foreign = others.keys() | {id(t) for t in named_tensors(module).values()}
        storages = [t.untyped_storage() for key, t in tensors().items() if key not in foreign]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    others = tensors()  # of libraries, some without memory
    live, _, digests = live_dense(tmp_path, dense(6))
    module = live.hold(Recipe.mean(digests[:1]))
    live.hold(Recipe.mean(digests[:2]))
    with_two = elements()
    live.hold(Recipe.mean(digests))
    live.hold(Recipe.mean(digests[::-1]))
    buffers = torch.get_num_threads() * 50 * 4
    assert elements() <= with_two + buffers < with_two + sum(t.nbytes for t in module.parameters())


def test_tensors_of_the_module_stay_its_own_and_can_be_trained(tmp_path: Path) -> None:
    live, _, digests = live_dense(tmp_path, dense(3))
    module = live.hold(Recipe.mean(digests[:1]))
    before = {name: (tensor, tensor.data_ptr()) for name, tensor in named_tensors(module).items()}
    live.hold(Recipe.mean(digests))
    for name, tensor in named_tensors(module).items():
        assert (tensor, tensor.data_ptr()) == before[name]
        assert tensor.requires_grad
        assert not tensor.is_inference()
    module(torch.ones(1, tiny.FEATURES)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_module_made_in_inference_mode_is_filled_too(tmp_path: Path) -> None:
    cache = CheckpointCache(tmp_path)
    digests = planted(cache, dense(2))
    with torch.inference_mode():
        module = tiny.dense()
    recipe = Recipe.mean(digests)
    LiveModule(module, CachedCheckpoints(cache), CPU).hold(recipe)
    require_average(module, recipe, cache)


def test_torch_keeps_its_threads(tmp_path: Path, two_threads: None) -> None:
    seen: list[int] = []
    live, _, digests = live_dense(tmp_path, dense(3))
    live.hold(Recipe.mean(digests))
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert [torch.get_num_threads(), *seen] == [2, 2]


def test_the_threads_end_with_the_live_module(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    live, _, digests = live_dense(tmp_path, dense(2))
    live.hold(Recipe.mean(digests))
    own = set(threading.enumerate()) - others
    assert len(own) == torch.get_num_threads()
    del live
    gc.collect()
    for thread in own:
        thread.join(10)
    assert not any(thread.is_alive() for thread in own)


def test_preparing_asks_the_checkpoints_to_fetch_ahead(tmp_path: Path) -> None:
    live, checkpoints, digests = live_dense(tmp_path, dense(2))
    live.prepare(Recipe.mean(digests))
    assert checkpoints.prefetched == [digests[1]]


# What is refused


def require_next_holds(live: LiveModule, checkpoints: CachedCheckpoints, digests: Sequence[Digest]) -> None:
    """After an error the next recipe is put in whole."""
    recipe = Recipe.mean(digests)
    checkpoints.opened.clear()
    module = live.hold(recipe)
    assert checkpoints.opened, "nothing counted as held"
    require_average(module, recipe, checkpoints.cache)


def test_every_fault_of_the_layout_is_told_at_once(tmp_path: Path) -> None:
    good = tiny.weights()
    bad = {
        "0.weight": good["0.weight"][:3].clone(),
        "0.bias": good["0.bias"].double(),
        "scale": torch.ones(1),
    }
    live, checkpoints, digests = live_dense(tmp_path, [good, bad])
    live.hold(Recipe.mean(digests[:1]))
    with pytest.raises(Incompatible, match="do not fit Sequential") as caught:
        live.hold(Recipe.mean(digests[1:]))
    told = "\n".join(caught.value.faults)
    for part in (
        "0.weight has shape [3, 8], the model's has [16, 8]",
        "0.bias is F64, which the model's F32 does not hold",
        "unexpected scale F32[1]",
        "missing 2.weight [4, 16], 2.bias [4]",
    ):
        assert part in told
    require_next_holds(live, checkpoints, digests[:1])


def test_ingredients_that_differ_are_refused_with_every_reason(tmp_path: Path) -> None:
    first, wide = state_of("mixed", 0, torch.float32), state_of("mixed", 1, torch.float32)
    other_mask = {**state_of("mixed", 2, torch.float32), "mask": torch.tensor([True, True])}
    narrow = {**wide, "wide.bias": wide["wide.bias"].half(), "conv.bias": torch.ones(4)}
    cache = CheckpointCache(tmp_path)
    digests = planted(cache, [first, narrow, other_mask])
    checkpoints = CachedCheckpoints(cache)
    live = LiveModule(Mixed(), checkpoints, CPU)
    with pytest.raises(Incompatible, match="do not go together") as caught:
        live.hold(Recipe.mean(digests))
    dtype, shape, *values = caught.value.faults
    assert "F16 instead of F32: wide.bias" in dtype + shape
    assert "conv.bias [4] instead of [5]" in dtype + shape
    assert [fault.partition(": ")[2] for fault in values] == [
        "its integer or boolean tensors hold other values"
    ]
    require_next_holds(live, checkpoints, digests[:1])
    require_next_holds(live, checkpoints, digests[2:3])


def test_tied_tensors_that_differ_in_a_file_are_refused_and_it_is_named(tmp_path: Path) -> None:
    torn = tiny.weights("tied", seed=1)
    torn["head.weight"] = torn["head.weight"] + 1
    cache = CheckpointCache(tmp_path)
    digests = planted(cache, [tiny.weights("tied"), torn])
    checkpoints = CachedCheckpoints(cache)
    live = LiveModule(tiny.Tied(), checkpoints, CPU)
    for recipe in (digests, digests[1:], digests):
        with pytest.raises(Incompatible, match=r"embed.weight and head.weight are one tensor") as caught:
            live.hold(Recipe.mean(recipe))
        (fault,) = caught.value.faults
        assert fault.startswith(digests[1].removeprefix("sha256:")[:12])
    require_next_holds(live, checkpoints, digests[:1])


def test_headers_are_compared_and_tied_and_integer_tensors_read_once_per_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CheckpointCache(tmp_path)
    digests = planted(cache, [tiny.weights("tied", seed=seed) for seed in range(4)])
    live = LiveModule(tiny.Tied(), CachedCheckpoints(cache), CPU)
    placed: list[int] = []
    read: list[int] = []
    for seen, name in ((placed, "placement"), (read, "_equal"), (read, "exact_digest")):
        original = getattr(live_module, name)
        watched = lambda *args, seen=seen, original=original: (seen.append(1), original(*args))[1]  # noqa: E731 - a watch
        monkeypatch.setattr(live_module, name, watched)
    for count in (1, 2, 3, 4, 2, 1):
        live.hold(Recipe.mean(digests[:count]))
        live.hold(Recipe.mean(digests[-count:]))
    assert (len(placed), len(read)) == (1, 2 * 4)


@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize(("stored", "sign"), [(torch.float32, 1), (torch.float32, -1), (torch.float64, 1)])
def test_a_sum_that_overflows_is_refused_with_every_tensor_and_the_sum_before_stays(
    tmp_path: Path,
    stored: torch.dtype,
    sign: int,
    ranked: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    huge = sign * torch.finfo(stored).max * 0.75
    states = [{name: tensor.to(stored) for name, tensor in state.items()} for state in dense(4)]
    for state in states[1:3]:
        state["0.weight"][15, 7] = state["2.bias"][0] = huge
    cache = CheckpointCache(tmp_path)
    digests = planted(cache, states)
    checkpoints = CachedCheckpoints(cache)
    module = tiny.dense().to(stored)
    live = LiveModule(module, checkpoints, CPU)
    for digest in digests if ranked else ():
        live.hold(Recipe.mean([digest]))
    with pytest.raises(NotFinite, match="2 of 4 tensors") as caught:
        live.hold(Recipe.mean(digests[1:3]))
    assert caught.value.faults == ("0.weight", "2.bias")
    require_next_holds(live, checkpoints, [digests[1], digests[3]])
    assert checkpoints.opened.count(digests[1]) == 0, "the sum was not touched"
    with pytest.raises(NotFinite):
        live.hold(Recipe.mean([digests[1], digests[2]]))
    require_next_holds(live, checkpoints, [digests[1], digests[3]])


def test_ties_that_overflow_are_refused_and_the_sum_before_stays(tmp_path: Path) -> None:
    states = dense(5)
    for state, value in zip(states[:3], (-3e38, 3e38, 3e38), strict=True):
        state["0.weight"][15, 7] = value
    live, checkpoints, digests = live_dense(tmp_path, states)
    a, b, c, d, e = digests
    for recipe in (Recipe.mean([e]), Recipe.mean([b, d])):
        live.hold(recipe)
    with pytest.raises(NotFinite, match="1 of 4 tensors") as caught:
        live.hold(Recipe.ties(a, [b, c]))
    assert caught.value.faults == ("0.weight",)
    checkpoints.opened.clear()
    recipe = Recipe.mean([b, e])
    live.hold(recipe)
    assert checkpoints.opened == [e]
    require_average(live.hold(recipe), recipe, checkpoints.cache)


def test_a_wider_tensor_beside_it_hides_no_overflow(tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in tiny.dense().state_dict().items()}
    states = [{**state, "2.bias": state["2.bias"].double() + n} for n in range(2)]
    for each in states:
        each["0.weight"] = torch.full_like(each["0.weight"], 3e38)
    cache = CheckpointCache(tmp_path)
    digests = planted(cache, states)
    module = tiny.dense()
    module.get_submodule("2").bias = nn.Parameter(state["2.bias"].double())
    live = LiveModule(module, CachedCheckpoints(cache), CPU)
    for digest in digests:
        live.hold(Recipe.mean([digest]))
    with pytest.raises(NotFinite) as caught:
        live.hold(Recipe.mean(digests))
    assert caught.value.faults == ("0.weight",)


def test_many_large_values_are_no_overflow(tmp_path: Path) -> None:
    """The check adds them up, which overflows: that alone proves nothing."""
    states = dense(2)
    for state in states:
        state["0.weight"].fill_(1e38)
    live, checkpoints, digests = live_dense(tmp_path, states)
    require_next_holds(live, checkpoints, digests)


class Failing(CachedCheckpoints):
    """Files that shrink while they are read, as often as `failures` says."""

    failures = 0

    @contextmanager
    def open(self, digest: Digest) -> Iterator[WeightsFile]:
        with super().open(digest) as weights:
            if self.failures:
                self.failures -= 1
                weights.file.size -= 40
            yield weights


@pytest.mark.parametrize("failing", [[1], [1, 2], [1, 2, 3], [0, 1], [0, 1, 2]])
def test_a_file_that_cannot_be_read_to_its_end_leaves_nothing_held_and_no_sum(
    tmp_path: Path, failing: list[int]
) -> None:
    cache = CheckpointCache(tmp_path)
    digests = planted(cache, dense(4))
    checkpoints = Failing(cache)
    live = LiveModule(tiny.dense(), checkpoints, CPU)
    for digest in digests:
        live.hold(Recipe.mean([digest]))
    live.hold(Recipe.mean([digests[0], digests[3]]))
    checkpoints.failures = 1
    with pytest.raises(BadCheckpoint, match="truncated"):
        live.hold(Recipe.mean([digests[seed] for seed in failing]))
    for seeds in ([0, 2], [0, 2, 1], failing):
        require_next_holds(live, checkpoints, [digests[seed] for seed in seeds])


def test_a_checkpoint_of_another_dtype_in_between_changes_nothing(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in tiny.weights(seed=9).items()}
    live, checkpoints, (a, b, c, other) = live_dense(tmp_path, [*dense(3), half])
    for recipe in ([a, b], [other], [a, c], [other], [a, c, b]):
        require_next_holds(live, checkpoints, recipe)


def test_tensors_of_one_size_and_two_dtypes_are_told_apart(tmp_path: Path, one_thread: None) -> None:
    """One after the other they go through one buffer."""
    cache, module = CheckpointCache(tmp_path), nn.Linear(1, 30)
    states = [{"bias": torch.randn(30).half(), "weight": torch.randn(30, 1).bfloat16()} for _ in range(3)]
    digests = planted(cache, states)
    live = LiveModule(module, CachedCheckpoints(cache), CPU)
    for count in (1, 2, 3):
        recipe = Recipe.mean(digests[:count])
        live.hold(recipe)
        require_average(module, recipe, cache)


def test_a_file_stays_open_until_no_thread_reads_it_also_after_an_error(
    tmp_path: Path, two_threads: None
) -> None:
    reading, lagged, closed = threading.Barrier(2), threading.Event(), threading.Event()
    closed_early = []

    def fill(*_: object) -> None:
        if threading.current_thread() is threading.main_thread() or lagged.is_set():
            return
        if reading.wait(30):
            raise OSError("disk")
        closed_early.append(closed.wait(0.3))
        lagged.set()

    class Watched(CachedCheckpoints):
        @contextmanager
        def open(self, digest: Digest) -> Iterator[WeightsFile]:
            closed.clear()
            try:
                with super().open(digest) as weights:
                    weights.file.fill = fill  # type: ignore[method-assign, assignment]  # one thread fails, another lags
                    yield weights
            finally:
                closed.set()

    cache = CheckpointCache(tmp_path)
    (digest,) = planted(cache, dense(1))
    live = LiveModule(tiny.dense(), Watched(cache), CPU)
    with pytest.raises(OSError, match="disk"):
        live.hold(Recipe.mean([digest]))
    assert closed.is_set()
    assert lagged.wait(30)
    assert closed_early == [False]


def test_a_checkpoint_that_is_nowhere_and_an_overlay_are_refused(tmp_path: Path) -> None:
    live, _, (a,) = live_dense(tmp_path, dense(1))
    with pytest.raises(BadCheckpoint, match="not in the cache"):
        live.hold(Recipe.mean([a, digest_of_bytes(os.urandom(8))]))
    with pytest.raises(BadCheckpoint, match="here are none"):
        live.hold(Recipe(Recipe.mean([a]).ingredients, overlay=a))


def test_memory_is_pinned_only_where_twice_as_much_is_left() -> None:
    require_room_to_pin(1 << 20, available=2 << 20)
    with pytest.raises(MemoryError, match=f"{2 << 20} bytes to be pinned"):
        require_room_to_pin((1 << 20) + 1, available=3 << 20)


def test_tied_tensors_with_other_coefficients_are_refused(tmp_path: Path) -> None:
    cache = CheckpointCache(tmp_path)
    digests = planted(cache, [tiny.weights("tied", seed=seed) for seed in range(2)])
    names = sorted(tiny.weights("tied"))
    rows = {name: (0.5, float(place)) for place, name in enumerate(names)}
    recipe = Recipe.by_tensor(digests, write_coefficients(rows, cache).digest)
    live = LiveModule(tiny.Tied(), CachedCheckpoints(cache), CPU)
    with pytest.raises(Incompatible, match=r"embed.weight and head.weight: one tensor in the model"):
        live.hold(recipe)
    with pytest.raises(Incompatible, match="one tensor in the model"):
        put_plainly(tiny.Tied(), recipe, CachedCheckpoints(cache))
