import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from stockpot.entities import TensorSpec
from stockpot.errors import BadCheckpoint, StockpotError
from stockpot.soup import open_safetensors
from stockpot.soup.safetensors_file import HEADER_LIMIT

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(path: Path, header: Mapping[str, object] | bytes, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def refusal(path: Path) -> BadCheckpoint:
    with pytest.raises(BadCheckpoint) as caught, open_safetensors(path):
        pass
    assert str(path) in caught.value.what
    assert caught.value.mend
    return caught.value


def test_what_the_library_writes_is_read_bit_for_bit(tmp_path: Path) -> None:
    tensors = {
        "double": torch.randn(3).double(),
        "single": torch.randn(2, 3),
        "half": torch.randn(5).half(),
        "brain": torch.randn(3, 1).bfloat16(),
        "long": torch.arange(4),
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(3.0),
        "nothing": torch.empty(0, 7),
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    with open_safetensors(tmp_path / "a.safetensors") as weights:
        assert [spec.name for spec in weights.tensors] == sorted(tensors)
        assert TensorSpec("brain", "BF16", (3, 1)) in weights.tensors
        for name, tensor in tensors.items():
            read = weights.read(name)
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)
            whole = b"".join(bytes(piece) for piece in weights.pieces(name))
            assert whole == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({**A, "dtype": "F8_E4M3"}, "F8_E4M3"),
        ({**A, "dtype": "C64"}, "C64"),
        ({**A, "dtype": ["F32"]}, "dtype"),
        ({**A, "shape": [-2]}, "counts"),
        ({**A, "shape": [2.0]}, "counts"),
        ({**A, "shape": [True, 2]}, "counts"),
        ({**A, "shape": 2}, "counts"),
        ({**A, "shape": [3]}, "data_offsets"),
        ({**A, "shape": [1 << 62, 1 << 62, 4]}, "out of range"),
        ({**A, "shape": [0, 1 << 62, 4], "data_offsets": [0, 0]}, "out of range"),
        ({**A, "shape": [1 << 70]}, "counts"),
        ({**A, "data_offsets": [8, 0]}, "data_offsets"),
        ({**A, "data_offsets": [0, 8, 16]}, "data_offsets"),
        ({**A, "data_offsets": [8]}, "data_offsets"),
        ({**A, "data_offsets": []}, "data_offsets"),
        ({**A, "data_offsets": [-8, 0]}, "counts"),
        ({**A, "more": 1}, "nothing else"),
        ({"dtype": "F32", "shape": [2]}, "nothing else"),
        ([], "nothing else"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(tmp_path: Path, entry: object, complaint: str) -> None:
    error = refusal(written(tmp_path / "a.safetensors", {"a": entry}))
    assert len(error.faults) == 1
    assert "'a'" in error.faults[0]
    assert complaint in error.faults[0]


@pytest.mark.parametrize("name", ["", "../../x\0", "a\nb", "x" * 1025, "\u202eevil"])
def test_a_name_that_misleads_is_refused(tmp_path: Path, name: str) -> None:
    assert "printable" in str(refusal(written(tmp_path / "a.safetensors", {name: A})))


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (b'{"a": %s, "a": %s}' % ((json.dumps(A).encode(),) * 2), "'a' is given twice"),
        (b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', "given twice"),
        (b" " + json.dumps({"a": A}).encode(), "begin with {"),
        (b"[]", "begin with {"),
        (b'{"a": ', "no JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"\xff": 1}', "utf-8"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"{}", "no tensors"),
        (b'{"__metadata__": {"format": 1}}', "__metadata__"),
        (b'{"__metadata__": ["format"]}', "__metadata__"),
        (b'{"__metadata__": {"by": "\\ud800"}}', "surrogate"),
        (b'{"__metadata__": {"by": "\\uD83D\\\\uDE00"}}', "surrogate"),
        (b'{"__metadata__": {"\\udc00": "x"}}', "surrogate"),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [-0, 8]}}', "-0"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_header_with_two_meanings_or_none_is_refused(tmp_path: Path, header: bytes, complaint: str) -> None:
    assert complaint in str(refusal(written(tmp_path / "a.safetensors", header)))


@pytest.mark.parametrize(
    ("second", "data", "complaint"),
    [
        ([4, 12], 12, "overlaps"),
        ([0, 8], 8, "overlaps"),
        ([12, 20], 20, "4 bytes before 'b'"),
        ([8, 16], 17, "1 byte after"),
        ([8, 16], 15, "truncated by 1 byte"),
    ],
)
def test_tensors_must_tile_the_data(tmp_path: Path, second: list[int], data: int, complaint: str) -> None:
    header = {"a": A, "b": {**A, "data_offsets": second}}
    assert complaint in str(refusal(written(tmp_path / "a.safetensors", header, bytes(data))))


def test_all_faults_are_told_at_once_but_not_thousands(tmp_path: Path) -> None:
    header: dict[str, object] = {f"t{i}": {**A, "dtype": "F4"} for i in range(1000)}
    error = refusal(written(tmp_path / "a.safetensors", header))
    assert "'t0'" in error.faults[0]
    assert "'t1'" in error.faults[1]
    assert error.faults[-1] == "and 980 more"


def test_an_oversized_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as stream:
        stream.write((HEADER_LIMIT + 1).to_bytes(8, "little"))
        stream.truncate(HEADER_LIMIT + 100)  # sparse: takes no space
    assert "limit" in str(refusal(path))
    path.write_bytes(b"\xff" * 8 + b"{}")
    assert "limit" in str(refusal(path))


def test_a_character_outside_the_basic_plane_may_be_escaped(tmp_path: Path) -> None:
    note = b'{"__metadata__": {"by": "\\ud83d\\ude00 \\\\ud800"}, "a": %s}' % json.dumps(A).encode()
    with open_safetensors(written(tmp_path / "a.safetensors", note)) as weights:
        assert [spec.name for spec in weights.tensors] == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "count"), [("[],", HEADER_LIMIT // 3 - 9), ("[],", 740_000), ("{},", 740_000), ("0,", 1_400_000)]
)
def test_a_header_of_any_size_takes_little_memory(tmp_path: Path, part: str, count: int) -> None:
    header = ('{"a": [' + part * count + "0]}").encode()
    path = written(tmp_path / "a.safetensors", header)
    code = """if True:
        import resource, sys
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        from stockpot.errors import BadCheckpoint
        from stockpot.soup import open_safetensors
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        def read(path):
            try:
                open_safetensors(Path(path)).__enter__()
            except BadCheckpoint:
                return True
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, sys.argv[1:] * 8))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400 << 10, "KiB, of eight at once: 16 MiB of each lie in memory at least"


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = save({"a": torch.randn(3), "b": torch.arange(2)})
    path = tmp_path / "a.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert "truncated" in str(refusal(path))


@given(place=st.integers(0, 200), value=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    content = bytearray(save({"a": torch.randn(3), "b": torch.arange(2)}, metadata={"format": "pt"}))
    content[place % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(content)
    try:
        with open_safetensors(path) as weights:
            for spec in weights.tensors:
                assert weights.read(spec.name).shape == spec.shape
    except BadCheckpoint as error:
        assert error.mend  # noqa: PT017 - either outcome is right


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    real = written(tmp_path / "a.safetensors", {"a": A})
    (tmp_path / "link").symlink_to(real)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        assert "not a regular file" in str(refusal(tmp_path / name))


def test_a_missing_file_is_no_fault_of_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StockpotError, match="No such file") as caught, open_safetensors(tmp_path / "none"):
        pass
    assert not isinstance(caught.value, BadCheckpoint)


def test_a_file_that_shrinks_while_open_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", {"a": A})
    with open_safetensors(path) as weights:
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(BadCheckpoint, match="shrank"):
            weights.read("a")
