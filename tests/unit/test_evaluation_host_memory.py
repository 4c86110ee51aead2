"""The memory that a process may take is its container's, not its host's."""

import os
from pathlib import Path

import pytest
import torch

from stockpot.evaluation.devices import device
from stockpot.evaluation.devices.host_memory import available_memory

GB = 1 << 30
HOST = 256 * GB


def machine(root: Path, cgroup: str = "", **groups: dict[str, str]) -> Path:
    """A machine with 200 of 256 GB to be had, 150 GB of them in the page cache."""
    texts = {
        "proc/meminfo": f"MemTotal: {HOST // 1024} kB\nMemFree: {50 * GB // 1024} kB\n"
        f"MemAvailable: {200 * GB // 1024} kB\nCached: {170 * GB // 1024} kB\nShmem: {20 * GB // 1024} kB\n",
        "proc/self/cgroup": cgroup,
    }
    for group, files in groups.items():
        texts |= {f"sys/fs/cgroup/{group.strip('/')}/{name}": text for name, text in files.items()}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(limit: str, used: int, inactive: int = 0) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon {used - inactive}\ninactive_file {inactive}\nactive_file 0\n",
    }


def version_1(limit: int, used: int, inactive: int = 0) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{used}\n",
        "memory.stat": f"inactive_file 0\ntotal_inactive_file {inactive}\n",
    }


def test_without_a_limit_it_is_what_the_system_estimates_and_no_shared_memory(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path)) == 200 * GB


def test_a_containers_limit_counts_and_what_it_would_give_up_is_to_be_had(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", **{"": version_2(str(8 * GB), 5 * GB, 2 * GB)})
    assert available_memory(root) == (8 - 5 + 2) * GB


@pytest.mark.parametrize("narrow", ["jobs", "jobs/mine"])
def test_the_narrowest_of_the_groups_around_a_process_counts(tmp_path: Path, narrow: str) -> None:
    limits = {"jobs": str(64 * GB), "jobs/mine": "max"} | {narrow: str(4 * GB)}
    groups = {name: version_2(limit, GB) for name, limit in limits.items()}
    assert available_memory(machine(tmp_path, "0::/jobs/mine\n", **groups)) == 3 * GB


def test_a_group_without_a_limit_is_none(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/mine\n", mine=version_2("max", 5 * GB))
    assert available_memory(root) == 200 * GB


@pytest.mark.parametrize("mounted", ["memory", "memory/docker/1f"])
def test_limits_of_the_older_kind_count_wherever_they_are_mounted(tmp_path: Path, mounted: str) -> None:
    lines = "9:cpu,cpuacct:/docker/1f\n4:memory:/docker/1f\n0::/\n"
    root = machine(tmp_path, lines, **{mounted: version_1(8 * GB, 6 * GB, GB)})
    assert available_memory(root) == 3 * GB


def test_no_limit_of_the_older_kind_is_a_huge_number(tmp_path: Path) -> None:
    root = machine(tmp_path, "4:memory:/\n", memory=version_1(9223372036854771712, 6 * GB))
    assert available_memory(root) == 200 * GB


def test_a_group_that_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, "0::/\n", **{"": version_2(str(GB), 2 * GB)})) == 0


def test_a_system_that_tells_nothing_gives_a_part_of_its_memory(tmp_path: Path) -> None:
    assert 0 < available_memory(tmp_path) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_batches_are_kept_in_what_this_process_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available_memory", lambda: 7)
    assert device.free_memory(torch.device("cpu")) == 7
