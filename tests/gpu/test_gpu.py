"""What must hold on a CUDA device. The CPU's answers are the reference."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stockpot.entities import Digest, Recipe, Score, Trial, WeightsFormat
from stockpot.errors import BadCheckpoint, NotFinite, OutOfDeviceMemory
from stockpot.evaluation import TorchBench
from stockpot.evaluation.devices.device import choose_device, reproducible
from stockpot.evaluation.devices.device_faults import device_blamed, no_way_around
from stockpot.evaluation.weights import live_module
from stockpot.evaluation.weights.live_module import LiveModule
from stockpot.soup import CheckpointCache, averaged_tensors
from stockpot.soup.coefficients import write_coefficients
from stockpot.testing import tiny
from stockpot.testing.checkpoints import CachedCheckpoints

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip(f"needs 1 CUDA device, found {torch.cuda.device_count()}")
    return torch.device("cuda")


def sweep(
    folder: Path, kind: str, dtype: torch.dtype = torch.float32
) -> tuple[CheckpointCache, list[Digest]]:
    """Five fine-tunes in a cache."""
    cache = CheckpointCache(folder)
    digests = []
    for seed in range(5):
        file = folder / f"{kind}-{seed}.safetensors"
        save_file({name: tensor.to(dtype) for name, tensor in tiny.weights(kind, seed=seed).items()}, file)
        checkpoint, _ = cache.ingest(file, WeightsFormat.SAFETENSORS)
        digests.append(checkpoint.digest)
    return cache, digests


def bench(cache: CheckpointCache, kind: str, device: torch.device) -> TorchBench:
    return TorchBench(
        tiny.TinyTask(kind, n="200"),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=CachedCheckpoints(cache),
        device=device,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", list(tiny.MODELS))
def test_averages_have_the_same_bits_as_on_the_cpu(
    tmp_path: Path, device: torch.device, kind: str, dtype: torch.dtype
) -> None:
    cache, digests = sweep(tmp_path, kind, dtype)
    rows = {
        name: tuple((seed + 1 + tensor.numel()) / 97 for seed in range(5))  # tied tensors have the same
        for name, tensor in tiny.weights(kind).items()
    }
    by_tensor = Recipe.by_tensor(digests, write_coefficients(rows, cache).digest)
    grouped = Recipe.grouped([digests[:2], digests[2:3], digests[3:]])
    module = tiny.MODELS[kind]().to(device, dtype)
    live = LiveModule(module, CachedCheckpoints(cache), device)
    ties = Recipe.ties(digests[0], digests[1:])
    for recipe in (by_tensor, Recipe.grouped([digests[:1], digests[2:3], digests[3:]]), ties, grouped):
        held = live.hold(recipe)
        for name, tensor in averaged_tensors(recipe, cache):
            assert torch.equal(held.state_dict()[name].cpu(), tensor.to(held.state_dict()[name].dtype)), name
    for recipe in (by_tensor, grouped, ties, *(Recipe.mean(digests[:count]) for count in range(1, 6))):
        on_cpu = dict(averaged_tensors(recipe, cache))
        on_device = dict(averaged_tensors(recipe, cache, device))
        assert on_device.keys() == on_cpu.keys()
        for name, tensor in on_device.items():
            assert tensor.device.type == device.type
            assert torch.equal(tensor.cpu().view(torch.uint8), on_cpu[name].view(torch.uint8)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", list(tiny.MODELS))
def test_swapped_weights_have_the_same_bits_as_on_the_cpu_prepared_or_not(
    tmp_path: Path, device: torch.device, kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "_CUDA_BLOCK", 50)  # so that blocks take turns in the slots
    cache, digests = sweep(tmp_path, kind, dtype)
    a, b, c, d, e = digests
    walk = [[a], [a, b], [a, c], [a, c, d], [e], [a, c, e], [a, c, e], digests, digests[::-1], [b, a]]
    for prepared in (lambda walked: walked[-1], lambda walked: walked[0], lambda _: None):
        checkpoints = CachedCheckpoints(cache)
        live = LiveModule(tiny.MODELS[kind]().to(device), checkpoints, device)
        for walked in walk:
            if digest := prepared(walked):
                live.prepare(Recipe.mean([digest]))
            recipe = Recipe.mean(walked)
            state = live.hold(recipe).state_dict()
            for name, tensor in averaged_tensors(recipe, cache):
                right = tensor.to(state[name].dtype).view(torch.uint8)
                assert torch.equal(state[name].cpu().view(torch.uint8), right), name


def test_a_prepared_checkpoint_is_read_once_and_a_missing_one_is_told_when_it_is_held(
    tmp_path: Path, device: torch.device
) -> None:
    cache, (a, b, c, *_) = sweep(tmp_path, "dense")
    checkpoints, nowhere = CachedCheckpoints(cache), Digest(f"sha256:{'0' * 64}")
    live = LiveModule(tiny.dense().to(device), checkpoints, device)
    for digest in (a, b, c):
        live.hold(Recipe.mean([digest]))
    live.hold(Recipe.mean([a, b]))
    checkpoints.opened.clear()
    live.prepare(Recipe.mean([a, c]))
    live.hold(Recipe.mean([a, c]))
    assert checkpoints.opened == [c]
    live.prepare(Recipe.mean([a, nowhere]))
    with pytest.raises(BadCheckpoint, match="not in the cache"):
        live.hold(Recipe.mean([a, nowhere]))
    live.hold(Recipe.mean([a, c]))


def test_large_tensors_that_are_prepared_while_others_are_copied_are_whole(
    tmp_path: Path, device: torch.device
) -> None:
    cache, made = CheckpointCache(tmp_path), []
    for value in range(4):
        save_file({"weight": torch.full((6000, 4000), float(value))}, tmp_path / "logged")
        made.append(cache.ingest(tmp_path / "logged", WeightsFormat.SAFETENSORS)[0].digest)
    live = LiveModule(torch.nn.Linear(4000, 6000, bias=False).to(device), CachedCheckpoints(cache), device)
    for value in [*range(1, 4)] * 5:
        live.prepare(Recipe.mean([made[0], made[value]]))
        module = live.hold(Recipe.mean([made[0], made[value]]))
        live.prepare(Recipe.mean([made[value % 3 + 1]]))  # overwrites what was just copied from
        assert bool((module.weight == value / 2).all())


def test_a_sum_that_overflows_is_found(tmp_path: Path, device: torch.device) -> None:
    cache, made = CheckpointCache(tmp_path), []
    for value in (2e38, 3e38):
        save_file({"weight": torch.full((9, 3), value), "bias": torch.zeros(9)}, tmp_path / "logged")
        made.append(cache.ingest(tmp_path / "logged", WeightsFormat.SAFETENSORS)[0].digest)
    live = LiveModule(torch.nn.Linear(3, 9).to(device), CachedCheckpoints(cache), device)
    with pytest.raises(NotFinite) as caught:
        live.hold(Recipe.mean(made))
    assert caught.value.faults == ("weight",)


@pytest.mark.parametrize("kind", list(tiny.MODELS))
def test_scores_are_the_same_every_time_and_close_to_the_cpus(
    tmp_path: Path, device: torch.device, kind: str
) -> None:
    cache, digests = sweep(tmp_path, kind)
    trials = [Trial(Recipe.mean(digests[:count])) for count in (1, 3, 5)]
    evaluator = bench(cache, kind, device).evaluator("test")
    first, again = evaluator.evaluate(trials), evaluator.evaluate(trials[::-1])[::-1]
    assert first == again == bench(cache, kind, device).evaluator("test").evaluate(trials)
    for outcome, reference in zip(
        first, bench(cache, kind, CPU).evaluator("test").evaluate(trials), strict=True
    ):
        assert isinstance(outcome, Score)
        assert isinstance(reference, Score)
        agreeing = sum(a == b for a, b in zip(outcome.examples, reference.examples, strict=True))
        assert agreeing >= 198, "rounding may turn a near tie, not more"


def test_the_protocol_names_the_device_model(tmp_path: Path, device: torch.device) -> None:
    cache, _ = sweep(tmp_path, "dense")
    protocol = bench(cache, "dense", device).evaluator("test").protocol
    assert protocol.conditions.device == torch.cuda.get_device_name(device)
    assert not protocol.conditions.tf32
    measured = TorchBench(
        tiny.MeasuredTask(n="200"),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=CachedCheckpoints(cache),
        device=device,
    )
    there, here = measured.evaluator("test").protocol.conditions.device.split(", metric on ")
    assert (there, here.split()[0]) == (protocol.conditions.device, "cpu")


def test_a_device_that_is_named_without_its_index_is_told_it(device: torch.device) -> None:
    first = torch.device("cuda", torch.cuda.current_device())
    assert choose_device() == choose_device("cuda") == first != device


def test_scores_may_be_made_on_the_cpu(tmp_path: Path, device: torch.device) -> None:
    class Careful(tiny.TinyTask):
        def score(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
            return super().score(outputs, batch).cpu()

    cache, digests = sweep(tmp_path, "dense")
    trial = Trial(Recipe.mean(digests))
    usual = bench(cache, "dense", device)
    careful = TorchBench(
        Careful(n="200"),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=CachedCheckpoints(cache),
        device=device,
    )
    assert careful.evaluator("test").evaluate([trial]) == usual.evaluator("test").evaluate([trial])


def test_a_kernel_that_cannot_be_launched_is_not_the_devices_fault(device: torch.device) -> None:
    refused = torch.AcceleratorError("CUDA error: invalid configuration argument")
    with pytest.raises(torch.AcceleratorError), device_blamed(choose_device("cuda"), "a test"):
        raise refused
    assert torch.ones(3, device=device).sum().item() == 3.0


def test_memory_that_was_refused_on_the_way_is_told(device: torch.device) -> None:
    def other_way() -> None:
        with suppress(torch.OutOfMemoryError):
            torch.empty(1 << 50, dtype=torch.uint8, device=device)

    with pytest.raises(OutOfDeviceMemory, match="other kernels"), no_way_around(device, "a test"):
        other_way()
    with no_way_around(device, "a test"):
        torch.zeros(1, device=device)


def test_matrix_products_are_exact_and_the_generator_is_left_as_it_was(device: torch.device) -> None:
    torch.zeros(1, device=device)  # wakes the generator
    before = torch.cuda.get_rng_state(device)
    with reproducible(device):
        # 1 + 2**-12 needs 12 bits after the point; TF32 keeps 10.
        x = torch.full((256, 256), 1 + 2**-12, device=device)
        product = (x @ torch.eye(256, device=device)).cpu()
        torch.rand(3, device=device)
    assert bool((product == 1 + 2**-12).all())
    assert torch.equal(torch.cuda.get_rng_state(device), before)


def test_the_protocol_names_what_computes_below_torch(tmp_path: Path, device: torch.device) -> None:
    cache, _ = sweep(tmp_path, "dense")
    named = dict(bench(cache, "dense", device).evaluator("test").protocol.conditions.software)
    assert named["CUDA"] == torch.version.cuda
    assert named["cuDNN"] == str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]  # torch leaves it so
    told = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert named["driver"] == told.stdout.splitlines()[0].strip()
