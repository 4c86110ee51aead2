"""A metric of the whole split on a CUDA device: fast and plain agree, and both see the CPU."""

import pytest
import torch
from torch import Tensor

from stockpot.entities import Ensemble, Recipe, Score, Trial, digest_of_bytes
from stockpot.evaluation import RememberedOutputs, TorchBench
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints

pytestmark = pytest.mark.gpu
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(3)]


class Watched(tiny.MeasuredTask):
    """Knows where it was measured."""

    def __init__(self) -> None:
        super().__init__(n="403")
        self.devices: set[str] = set()

    def metric(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.devices |= {tensor.device.type for tensor in (outputs, *batch)}
        return super().metric(outputs, batch)


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip(f"needs 1 CUDA device, found {torch.cuda.device_count()}")
    return torch.device("cuda")


@pytest.mark.parametrize("bytes_per_example", [4, 8192], ids=["outputs too large", "outputs remembered"])
def test_fast_and_plain_agree_bit_for_bit(bytes_per_example: int, device: torch.device) -> None:
    states, task = {digest: tiny.weights(seed=place) for place, digest in enumerate(DIGESTS)}, Watched()
    bench = TorchBench(
        task,
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(states.__getitem__),
        device=device,
        outputs=RememberedOutputs(bytes_per_example=bytes_per_example),
    )
    trials = [Trial(Recipe.mean(part)) for part in (DIGESTS[:1], DIGESTS[1:2], DIGESTS[2:], DIGESTS)]
    fast, plain = (bench.evaluator("validation", plain=plain).evaluate(trials) for plain in (False, True))
    assert fast == plain
    assert all(isinstance(outcome, Score) and outcome.metric is not None for outcome in fast)
    assert task.devices == {"cpu"}
    ensemble = bench.ensemble(Ensemble.of(DIGESTS), "validation")
    assert (ensemble is not None) == (bytes_per_example == 8192)
