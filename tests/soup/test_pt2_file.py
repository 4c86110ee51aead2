import errno
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._export.serde.schema import Layout, ScalarType
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

from stockpot.entities import WeightsFormat
from stockpot.errors import BadCheckpoint, StockpotError
from stockpot.soup import CheckpointCache, open_pt2
from stockpot.soup.arithmetic import DTYPES
from stockpot.soup.pt2_file import SCALAR_TYPES
from stockpot.soup.weights_file import PIECE

Edit = Callable[[dict[str, Any]], object]
CONFIG = "model/data/weights/model_weights_config.json"


class Odd(torch.nn.Module):
    """All that a state dict may hold: ties, other dtypes, views, buffers of both kinds."""

    count: torch.Tensor
    flag: torch.Tensor
    none: torch.Tensor
    slice: torch.Tensor
    turned: torch.Tensor
    mask: torch.Tensor
    hidden: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(4, 4)
        self.b = torch.nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.conv = torch.nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        self.brain = torch.nn.Parameter(torch.randn(3).bfloat16())
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("flag", torch.tensor([True, False]))
        self.register_buffer("none", torch.zeros(0, 3))
        self.register_buffer("slice", torch.arange(100.0)[10:14])
        self.register_buffer("turned", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("mask", torch.arange(500.0).expand(3, 1000, 500).transpose(1, 2))
        self.register_buffer("hidden", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = self.conv(x.sum() * torch.ones(1, 3, 4, 4)).sum()
        y = self.b(self.a(x)) + self.hidden + self.slice + self.turned[:, 0] + self.count
        total: torch.Tensor = (
            y + image + self.brain.float().sum() + self.none.sum() + self.flag[0] + self.mask[0, 0, 0]
        )
        return total


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    model = Odd().eval()
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor")  # what torch says to slices and views
        torch.export.save(torch.export.export(model, (torch.ones(2, 4),)), path)
    return path, model.state_dict()


@pytest.fixture
def edited(exported: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> Callable[[Edit], Path]:
    """Write the archive again with a changed table of weights."""

    def edit(change: Edit, **kwargs: Any) -> Path:
        path = tmp_path / "edited.pt2"
        with zipfile.ZipFile(exported[0]) as old, zipfile.ZipFile(path, "w", **kwargs) as new:
            for name in old.namelist():
                content = old.read(name)
                if name.endswith("model_weights_config.json"):
                    document = json.loads(content)
                    change(document["config"])
                    content = json.dumps(document).encode()
                new.writestr(name, content)
        return path

    return edit


def refusal(path: Path) -> BadCheckpoint:
    with pytest.raises(BadCheckpoint) as caught, open_pt2(path):
        pass
    assert str(path) in caught.value.what
    assert caught.value.mend
    return caught.value


def test_an_exported_state_dict_is_read_bit_for_bit(
    exported: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    path, state = exported
    with open_pt2(path) as weights:
        assert [spec.name for spec in weights.tensors] == sorted(state)  # tied names both, hidden not
        for name, tensor in state.items():
            read = weights.read(name)
            assert read.is_contiguous()
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor), name
            pieces = [bytes(piece) for piece in weights.pieces(name)]
            assert max(map(len, pieces), default=0) <= PIECE, "an expanded tensor is never in memory"
            assert (
                b"".join(pieces)
                == tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )


def test_the_same_weights_have_one_digest_from_both_formats(
    exported: tuple[Path, dict[str, torch.Tensor]], cache: CheckpointCache, ingest: Any
) -> None:
    path, state = exported
    checkpoint, _ = cache.ingest(path, WeightsFormat.PT2)
    assert (
        ingest({name: tensor.detach().contiguous().clone() for name, tensor in state.items()}) == checkpoint
    )


def test_what_mlflow_logs_is_read(tmp_path: Path) -> None:
    import mlflow

    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.GroupNorm(1, 3)).eval()
    example = np.ones((2, 4), dtype=np.float32)
    mlflow.pytorch.save_model(model, tmp_path / "m", input_example=example, pip_requirements=["torch"])
    with open_pt2(tmp_path / "m" / "data" / "model.pt2") as weights:
        state = model.state_dict()
        assert {spec.name for spec in weights.tensors} == state.keys()
        assert all(torch.equal(weights.read(name), tensor) for name, tensor in state.items())


def test_the_table_of_dtypes_is_torchs() -> None:
    assert Layout(7) is Layout.Strided
    for number, name in SCALAR_TYPES.items():
        assert _SERIALIZE_TO_TORCH_DTYPE[ScalarType(number)] == DTYPES[name]
    assert sorted(SCALAR_TYPES.values()) == sorted(DTYPES)


def test_a_pickle_inside_is_refused_with_advice(edited: Callable[[Edit], Path]) -> None:
    error = refusal(edited(lambda config: config["brain"].update(use_pickle=True)))
    assert "pickle" in error.what
    assert "serialization_format" in error.mend


def test_a_pickled_module_is_refused_with_advice(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    assert "serialization_format" in refusal(tmp_path / "model.pth").mend


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"path_name": "../constants/tensor_0"}, "no payload's name"),
        ({"path_name": "weight_99"}, "no member"),
        ({"path_name": 3}, "no payload's name"),
        ({"tensor_meta": None}, "no strided tensor"),
        ({"sizes": [{"as_int": 400}]}, "and its tensor takes"),
        ({"sizes": [{"as_expr": "s0"}]}, "counts"),
        ({"sizes": [{"as_int": -1}]}, "counts"),
        ({"sizes": [{"as_int": 1 << 62}, {"as_int": 4}], "strides": [{"as_int": 0}] * 2}, "out of range"),
        ({"strides": [{"as_int": 2}]}, "and its tensor takes"),
        ({"strides": []}, "0 strides for 1 sizes"),
        ({"storage_offset": {"as_int": 1}}, "and its tensor takes"),
        ({"storage_offset": {"as_int": -1}}, "counts"),
        ({"dtype": 10}, "'number 10' is not supported"),
        ({"dtype": True}, "not supported"),
        ({"dtype": [7]}, "dtype"),
        ({"layout": 1}, "no strided tensor"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(
    edited: Callable[[Edit], Path], change: dict[str, Any], complaint: str
) -> None:
    def apply(config: dict[str, Any]) -> None:
        entry = config["brain"]
        for key, value in change.items():
            (entry if key in entry else entry["tensor_meta"])[key] = value

    error = refusal(edited(apply))
    assert len(error.faults) == 1
    assert "'brain'" in error.faults[0]
    assert complaint in error.faults[0]


def test_a_small_archive_cannot_claim_a_huge_tensor(edited: Callable[[Edit], Path]) -> None:
    huge = {"sizes": [{"as_int": 1 << 40}], "strides": [{"as_int": 0}]}
    error = refusal(edited(lambda config: config["brain"]["tensor_meta"].update(huge)))
    assert "many times larger" in error.what
    assert "'brain'" in error.faults[0]


def test_names_that_span_one_payload_again_and_again_are_refused(tmp_path: Path) -> None:
    """Each is two numbers that lie far apart: next to nothing to hold, all of the payload to read."""
    far_apart = {"sizes": [{"as_int": 2}], "strides": [{"as_int": (1 << 20) - 1}]}
    meta = {"dtype": 7, "layout": 7, "storage_offset": {"as_int": 0}, **far_apart}
    entry = {"path_name": "weight_0", "use_pickle": False, "tensor_meta": meta}
    for names, refused in [(3, False), (80, True)]:
        path = tmp_path / f"{names}.pt2"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(CONFIG, json.dumps({"config": {f"w{i}": entry for i in range(names)}}))
            archive.writestr("model/byteorder", "little")
            archive.writestr("model/data/weights/weight_0", bytes(4 << 20))
        if refused:
            assert "many times larger" in refusal(path).what
        else:
            with open_pt2(path) as weights:
                assert len(weights.tensors) == names


def test_compressed_members_are_refused(edited: Callable[..., Path]) -> None:
    path = edited(lambda config: config, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in str(refusal(path))


@pytest.mark.parametrize("bit", [0, 5, 6])
@pytest.mark.parametrize(("signature", "flags"), [(b"PK\1\2", 8), (b"PK\3\4", 6)])
def test_members_that_are_encrypted_or_patched_are_refused(
    edited: Callable[..., Path], bit: int, signature: bytes, flags: int
) -> None:
    """In the directory's entry, or in the header before the member."""
    path = edited(lambda config: config)
    content = bytearray(path.read_bytes())
    at = -1
    while (at := content.find(signature, at + 1)) >= 0:
        content[at + flags] |= 1 << bit
    path.write_bytes(content)
    assert "encrypted, or a patch" in str(refusal(path))


def test_a_payload_that_changed_on_the_way_is_refused(edited: Callable[..., Path]) -> None:
    path = edited(lambda config: config)
    with zipfile.ZipFile(path) as archive:
        member = next(m for m in archive.infolist() if "/data/weights/weight_" in m.filename and m.file_size)
    content = bytearray(path.read_bytes())
    content[content.index(member.filename.encode()) + len(member.filename)] ^= 1
    path.write_bytes(content)
    assert member.filename in str(refusal(path))
    assert "CRC" in str(refusal(path))


def test_too_many_open_files_are_no_fault_of_the_archive(
    edited: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edited(lambda config: config)

    def full(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("stockpot.soup.zip_members.os.dup", full)
    with pytest.raises(StockpotError, match="ulimit -n") as caught, open_pt2(path):
        pass
    assert not isinstance(caught.value, BadCheckpoint)


def test_a_member_named_twice_is_refused(edited: Callable[[Edit], Path]) -> None:
    path = edited(lambda config: config)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(CONFIG, "{}")
    assert "twice" in str(refusal(path))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"model/data/other": "x"}, "0 tables of weights"),
        ({CONFIG: "{}", "model/data/weights/other_weights_config.json": "{}"}, "2 tables of weights"),
        ({CONFIG: "{}", "model/byteorder": "little"}, "one key"),
        ({CONFIG: '{"config": {}, "config": {}}'}, "given twice"),
        ({CONFIG: '{"config": {}}', "model/byteorder": "big"}, "little-endian"),
        ({CONFIG: '{"config": {}}', "model/byteorder": "little" * 99}, "limit"),
        ({CONFIG: '{"config": {}}'}, "no member"),
        ({CONFIG: '{"config": {}}', "model/byteorder": "little"}, "no tensors"),
    ],
)
def test_an_archive_without_one_table_of_weights_is_refused(
    tmp_path: Path, members: dict[str, str], complaint: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert complaint in str(refusal(tmp_path / "a.pt2"))


def test_a_member_that_is_not_where_the_directory_says_is_refused(edited: Callable[[Edit], Path]) -> None:
    path = edited(lambda config: config)
    content = path.read_bytes()
    path.write_bytes(content.replace(CONFIG.encode(), CONFIG.replace("weights_c", "weights_x").encode(), 1))
    assert "not where the directory says" in str(refusal(path))


def test_a_huge_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    size = 1 << 30
    path = tmp_path / "a.pt2"
    with path.open("wb") as stream:
        stream.truncate(size)  # sparse: takes no space
        stream.seek(size)
        stream.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0))
    assert "too large" in str(refusal(path))


def test_a_file_cut_anywhere_is_refused(
    exported: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    content = exported[0].read_bytes()
    for length in [0, 1, 21, 22, 100, len(content) // 2, *range(len(content) - 120, len(content))]:
        (tmp_path / "a.pt2").write_bytes(content[:length])
        refusal(tmp_path / "a.pt2")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused_and_nothing_else(
    exported: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(exported[0].read_bytes())
    start = data.draw(st.sampled_from([0, content.index(b'{"config"'), content.rindex(b"PK\x01\x02"), -80]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[(start + data.draw(st.integers(0, 79))) % len(content)] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.pt2"
    path.write_bytes(content)
    try:
        with open_pt2(path) as weights:
            for spec in weights.tensors:
                assert weights.read(spec.name).shape == spec.shape
    except BadCheckpoint as error:
        assert error.mend  # noqa: PT017 - either outcome is right
