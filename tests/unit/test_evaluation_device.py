import multiprocessing
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from stockpot.errors import BadRequest
from stockpot.evaluation.devices.device import (
    choose_device,
    device_model,
    device_names,
    reproducible,
    software,
)

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


def test_the_cpu_is_named_with_what_decides_the_order_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    instructions = torch.backends.cpu.get_cpu_capability()
    named = device_model(CPU, 1)
    assert named.startswith(f"cpu {platform.machine()} ")
    assert named.endswith(f" {instructions} 1 thread")
    assert device_model(CPU, 16) == f"{named.removesuffix('1 thread')}16 threads"
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert device_model(CPU, 1) == f"{named} MKL_CBWR=COMPATIBLE"


def test_a_cpu_whose_kernels_use_other_instructions_has_another_name() -> None:
    program = (
        "import torch, stockpot.evaluation.devices.device as d; print(d.device_model(torch.device('cpu'), 1))"
    )
    plain = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert plain.stdout.strip().endswith(" DEFAULT 1 thread")
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert plain.stdout.strip() != device_model(CPU, 1)


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


@pytest.mark.parametrize(
    ("read", "write", "odd", "usual"),
    [
        (
            lambda: torch.backends.mkldnn.enabled,
            lambda on: setattr(torch.backends.mkldnn, "enabled", on),
            False,
            True,
        ),
        (
            lambda: torch.backends.cudnn.enabled,
            lambda on: setattr(torch.backends.cudnn, "enabled", on),
            False,
            True,
        ),
        (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, False, True),
        (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp, False, True),
        (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp, False, True),
        (
            lambda: torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
            lambda on: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", on),
            True,
            False,
        ),
    ],
    ids=["mkldnn", "cudnn", "fastpath", "math", "flash", "reduction"],
)
def test_kernels_that_the_program_has_switched_are_torchs_own_inside(
    read: Callable[[], object], write: Callable[[object], object], *, odd: bool, usual: bool
) -> None:
    before = read()
    try:
        write(odd)
        with reproducible(CPU):
            assert read() == usual
        assert read() == odd
    finally:
        write(before)


def test_nothing_is_cast_inside() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        with reproducible(CPU):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_random_numbers_are_the_same_every_time_inside() -> None:
    draws = []
    for _ in range(2):
        with reproducible(CPU):
            draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1]


def test_several_devices_are_named_with_commas_and_none_is_opened() -> None:
    assert device_names("cpu, cpu") == ("cpu", "cpu")
    assert device_names("cuda:0,cuda:7") == ("cuda:0", "cuda:7")
    assert device_names() == ("",)


@pytest.mark.parametrize("names", ["meta,cpu,meta", "cuda,cuda:0"])
def test_a_device_named_twice_is_refused(names: str) -> None:
    with pytest.raises(BadRequest, match="twice"):
        device_names(names)


def test_a_protocol_names_what_computes_below_torch_on_a_cuda_device_and_nothing_on_a_cpu() -> None:
    assert software(torch.device("cpu")) == ()
    assert [name for name, _ in software(torch.device("cuda"))] == ["CUDA", "cuDNN", "driver"]
