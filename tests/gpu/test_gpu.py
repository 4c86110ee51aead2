"""What must hold on a CUDA device. The CPU's answers are the reference."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from registry.entities import Digest, Recipe, Score, Trial, WeightsFormat
from registry.evaluation import TorchBench
from registry.evaluation.device import choose_device, reproducible
from registry.soup import CheckpointCache, averaged_tensors
from registry.testing import tiny

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
        weights=lambda recipe: averaged_tensors(recipe, cache, device),
        device=device,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", list(tiny.MODELS))
def test_averages_have_the_same_bits_as_on_the_cpu(
    tmp_path: Path, device: torch.device, kind: str, dtype: torch.dtype
) -> None:
    cache, digests = sweep(tmp_path, kind, dtype)
    for count in range(1, 6):
        recipe = Recipe.mean(digests[:count])
        on_cpu = dict(averaged_tensors(recipe, cache))
        on_device = dict(averaged_tensors(recipe, cache, device))
        assert on_device.keys() == on_cpu.keys()
        for name, tensor in on_device.items():
            assert tensor.device.type == device.type
            assert torch.equal(tensor.cpu().view(torch.uint8), on_cpu[name].view(torch.uint8)), name


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
    assert protocol.device == torch.cuda.get_device_name(device)
    assert not protocol.tf32
    assert choose_device().type == "cuda"


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
