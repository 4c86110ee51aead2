"""Exact early rejection on a CUDA device: the plain loop's answers there."""

import pytest
import torch

from stockpot.entities import Accept, Contender, digest_of_bytes
from stockpot.evaluation import TorchBench
from stockpot.selection import run_selection
from stockpot.selection.greedy import Greedy
from stockpot.testing import tiny
from stockpot.testing.checkpoints import MadeCheckpoints

pytestmark = pytest.mark.gpu
DIGESTS = [digest_of_bytes(b"weights %d" % seed) for seed in range(7)]


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip(f"needs 1 CUDA device, found {torch.cuda.device_count()}")
    return torch.device("cuda")


@pytest.mark.parametrize("accept", list(Accept))
@pytest.mark.parametrize("kind", list(tiny.KINDS))
def test_greedy_takes_the_plain_loops_decisions(kind: str, accept: Accept, device: torch.device) -> None:
    states = {digest: tiny.weights(kind, seed=place) for place, digest in enumerate(DIGESTS)}
    states[DIGESTS[-1]] = tiny.weights(
        kind, seed=6, spread=3.0
    )  # spoils a soup: of some kinds the others never do

    bench = TorchBench(
        tiny.TinyTask(kind, n="403"),
        identity=("tiny", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(states.__getitem__),
        device=device,
    )
    contenders = [Contender(digest, f"run {place}", place) for place, digest in enumerate(DIGESTS)]
    fast, plain = (
        run_selection(Greedy(contenders, accept=accept), bench.evaluator("validation", plain=plain))
        for plain in (False, True)
    )
    assert (fast.recipe, fast.score) == (plain.recipe, plain.score)
    for step, reference in zip(fast.steps, plain.steps, strict=True):
        assert (step.recipe, step.kept) == (reference.recipe, reference.kept)
        assert step.score in (None, reference.score)
        assert reference.score is not None
        assert step.bound is None or step.bound >= reference.score
    assert any(step.bound is not None for step in fast.steps), "some were rejected early"
    assert bench.evaluator("validation").reorders in ("examples", "batches")
    if kind == "mates":
        assert bench.evaluator("validation").reorders == "batches"
