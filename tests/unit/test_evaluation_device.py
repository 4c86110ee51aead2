import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest
import torch

from registry.errors import BadRequest
from registry.evaluation.device import choose_device, device_model, reproducible

CPU = torch.device("cpu")


def settings() -> list[object]:
    """Whatever torch lets be read: it refuses some switches to a program that uses their successors."""
    backends: Any = torch.backends
    owners = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.cudnn, backends]
    owners += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn]
    return [
        torch.get_rng_state().tolist(),
        backends.cudnn.deterministic,
        backends.cudnn.benchmark,
        *[owner.fp32_precision for owner in owners],
        _read(lambda: backends.cuda.matmul.allow_tf32),
        _read(lambda: backends.cudnn.allow_tf32),
        _read(torch.get_float32_matmul_precision),
    ]


def _read(switch: Callable[[], object]) -> object:
    try:
        return switch()
    except RuntimeError:
        return "refused"


def test_the_device_is_cuda_where_there_is_one() -> None:
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match=f"(?s){name}.*To mend it"):
        choose_device(name)


def test_the_cpu_is_named_with_its_architecture() -> None:
    kind, machine = device_model(CPU).split()
    assert kind == "cpu"
    assert machine


PROGRAMS = [
    "pass",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
]


def inside_and_after(program: str) -> None:
    """Run in a process of its own: torch's switches leave traces that cannot be undone."""
    exec(program)  # noqa: S102 - one of PROGRAMS
    before = settings()
    with reproducible(CPU):
        inside: list[Any] = settings()
        torch.rand(3)
    assert settings() == before
    deterministic, benchmark, *precisions = inside[1:]
    assert (deterministic, benchmark) == (True, False)
    *owners, matmul, cudnn, name = precisions
    assert set(owners[:3] + owners[5:8]) <= {"ieee", "none"}
    assert (matmul, cudnn, name) == (False, False, "highest") or "refused" in (matmul, cudnn, name)


@pytest.mark.parametrize("program", PROGRAMS)
def test_float32_is_exact_inside_and_settings_are_as_before_afterwards(program: str) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=inside_and_after, args=(program,))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_random_numbers_are_the_same_every_time_inside() -> None:
    draws = []
    for _ in range(2):
        with reproducible(CPU):
            draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1]
