"""What completed passes leave behind."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stockpot.entities import digest_of_bytes
from stockpot.evaluation import outputs as remembered
from stockpot.evaluation.outputs import Remembered, RememberedOutputs
from stockpot.soup.whole_file import writing

RECIPE, OTHER, PROTOCOL = (digest_of_bytes(name) for name in (b"recipe", b"other", b"protocol"))


def passed(outputs: Tensor | None = None, n: int = 6) -> Remembered:
    return Remembered(np.linspace(0.0, 1.0, n), np.linspace(1.0, 2.0, n), outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_file_brings_a_pass_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    outputs = torch.randn(6, 3, 2).to(dtype)
    RememberedOutputs(tmp_path / "new").keep(RECIPE, PROTOCOL, passed(outputs))
    found = RememberedOutputs(tmp_path / "new").get(RECIPE, PROTOCOL, outputs=True)
    assert found is not None
    assert found.outputs is not None
    assert found.outputs.dtype == dtype
    assert torch.equal(found.outputs, outputs)
    assert (found.scores.tolist(), found.gaps.tolist()) == (passed().scores.tolist(), passed().gaps.tolist())
    assert [file.suffix for file in (tmp_path / "new").iterdir()] == [".safetensors"]


def test_other_recipes_and_protocols_are_absent(tmp_path: Path) -> None:
    known = RememberedOutputs(tmp_path)
    known.keep(RECIPE, PROTOCOL, passed())
    assert known.get(OTHER, PROTOCOL) is None
    assert known.get(RECIPE, OTHER) is None
    assert RememberedOutputs().get(RECIPE, PROTOCOL) is None


def test_outputs_that_are_large_or_no_floats_are_left_out() -> None:
    known = RememberedOutputs(bytes_per_example=16)
    for outputs in (torch.zeros(6, 5), torch.zeros(6, 4, dtype=torch.int32)):
        known.keep(RECIPE, PROTOCOL, passed(outputs))
        assert known.get(RECIPE, PROTOCOL) is not None
        assert known.get(RECIPE, PROTOCOL, outputs=True) is None
    known.keep(RECIPE, PROTOCOL, passed(torch.zeros(6, 4)))
    assert known.get(RECIPE, PROTOCOL, outputs=True) is not None


@pytest.mark.parametrize("place", [0, 9, 60, -1])
def test_a_damaged_file_is_absent(tmp_path: Path, place: int) -> None:
    RememberedOutputs(tmp_path).keep(RECIPE, PROTOCOL, passed(torch.ones(6, 3)))
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert RememberedOutputs(tmp_path).get(RECIPE, PROTOCOL) is None
    for size in (0, 7, len(content) - 1):
        file.write_bytes(content[:size])
        assert RememberedOutputs(tmp_path).get(RECIPE, PROTOCOL) is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    known = RememberedOutputs(tmp_path / "file" / "below")
    known.keep(RECIPE, PROTOCOL, passed())
    assert known.get(RECIPE, PROTOCOL) is not None


def test_memory_is_bounded_outputs_give_way_first_and_the_least_recently_used() -> None:
    names = [digest_of_bytes(b"%d" % place) for place in range(4)]
    known = RememberedOutputs(memory=2 * 96 + 2 * 400 + 96)
    for name in names[:2]:
        known.keep(name, PROTOCOL, passed(torch.zeros(6, 16, dtype=torch.float32)))
    known.get(names[0], PROTOCOL)
    for name in names[2:]:
        known.keep(name, PROTOCOL, passed(torch.zeros(6, 16, dtype=torch.float32)))
    assert [known.get(n, PROTOCOL, outputs=True) is not None for n in names] == [False, False, False, True]
    assert all(known.get(name, PROTOCOL) is not None for name in names)
    for place in range(20):
        known.keep(digest_of_bytes(b"more %d" % place), PROTOCOL, passed())
    assert known.get(names[0], PROTOCOL) is None


def test_the_outputs_that_were_used_last_stay() -> None:
    first, second, third = (digest_of_bytes(b"%d" % place) for place in range(3))
    known = RememberedOutputs(memory=3 * 96 + 2 * 384)
    for name in (first, second):
        known.keep(name, PROTOCOL, passed(torch.zeros(6, 16)))
    known.get(first, PROTOCOL)
    known.keep(third, PROTOCOL, passed(torch.zeros(6, 16)))
    kept = [known.get(n, PROTOCOL, outputs=True) is not None for n in (first, second, third)]
    assert kept == [True, False, True]


def test_the_folder_keeps_its_limit_and_what_was_used_last(tmp_path: Path) -> None:
    RememberedOutputs(tmp_path / "one").keep(RECIPE, PROTOCOL, passed())
    (file,) = (tmp_path / "one").iterdir()
    names = [digest_of_bytes(b"%d" % place) for place in range(4)]
    folder = tmp_path / "limited"
    for place, name in enumerate(names):
        RememberedOutputs(folder, limit=2 * file.stat().st_size).keep(name, PROTOCOL, passed())
        for age, old in enumerate(reversed(list(folder.iterdir()))):
            assert age < 2, f"{old} is one too many"
        for each in folder.iterdir():  # all of them are of yesterday now: only a use makes one younger
            os.utime(each, (each.stat().st_mtime - 86400 + place,) * 2)
        assert RememberedOutputs(folder).get(names[0], PROTOCOL) is not None, "used each time"
    assert RememberedOutputs(folder).get(names[3], PROTOCOL) is not None
    assert len(list(folder.iterdir())) == 2


def test_outputs_that_left_memory_come_back_from_the_folder(tmp_path: Path) -> None:
    known = RememberedOutputs(tmp_path, memory=500)
    for name in (RECIPE, OTHER):
        known.keep(name, PROTOCOL, passed(torch.ones(6, 16)))
    assert known.get(RECIPE, PROTOCOL, outputs=True) is not None


def test_several_threads_may_share_it(tmp_path: Path) -> None:
    known = RememberedOutputs(tmp_path, memory=5000)
    names = [digest_of_bytes(b"%d" % place) for place in range(40)]

    def work(place: int) -> bool:
        known.keep(names[place], PROTOCOL, passed(torch.full((6, 8), float(place))))
        found = known.get(names[place], PROTOCOL, outputs=True)
        return found is not None and found.outputs is not None and bool((found.outputs == place).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".writing-dead").write_bytes(b"half of it")
    with writing(tmp_path) as alive:
        RememberedOutputs(tmp_path)
        assert list(tmp_path.iterdir()) == [alive.path]


def test_outputs_have_a_limit_on_disk_although_nobody_set_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RememberedOutputs(tmp_path / "one").keep(RECIPE, PROTOCOL, passed())
    (file,) = (tmp_path / "one").iterdir()
    monkeypatch.setattr(remembered, "LIMIT", 2 * file.stat().st_size)
    said: list[str] = []
    known = RememberedOutputs(tmp_path / "many", say=said.append)
    for number in range(5):
        known.keep(digest_of_bytes(b"%d" % number), PROTOCOL, passed())
        assert len(said) == (number >= 2), "once, when the limit is reached"
    assert len(list((tmp_path / "many").iterdir())) == 2
    assert str(tmp_path / "many") in said[0]
    assert f"{2 * file.stat().st_size / 1e9:.3g} GB" in said[0]
    assert "STOCKPOT_CACHE_LIMIT" in said[0]
