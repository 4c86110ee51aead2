import argparse
import datetime as dt
import os
import pathlib
import pickle
import random
import struct
import subprocess
import sys
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.soup.torch_archives import contents, members_of, opened_or_refused, packed, raw, with_pickle

from stockpot.entities import WeightsFormat
from stockpot.errors import BadCheckpoint, Pickled
from stockpot.soup import CheckpointCache, open_torch
from stockpot.soup.arithmetic import DTYPES
from stockpot.soup.torch_file import CONVERSION, WEIGHTS_KEYS

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
Tensors = dict[str, torch.Tensor]


def saved(path: Path, value: object, **kwargs: Any) -> Path:
    torch.save(value, path, **kwargs)
    return path


def refusal(path: Path) -> BadCheckpoint:
    with pytest.raises(BadCheckpoint) as caught, open_torch(path):
        pass
    assert str(path) in caught.value.what
    assert caught.value.mend
    return caught.value


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].is_contiguous()
        assert raw(found[name]) == raw(tensor), name


def assert_read_as_torch_does(path: Path) -> None:
    assert_same(contents(path), torch.load(path, weights_only=True, map_location="cpu"))


def odd() -> Tensors:
    """All that a state dict may hold."""
    tied, stored = torch.randn(4, 3), torch.arange(1000.0)
    attributed, parameter = torch.ones(2), torch.nn.Parameter(torch.randn(3).bfloat16())
    attributed.note = parameter.note = "ours"  # type: ignore[attr-defined]  # what people hang on tensors
    return {
        **{f"of.{name}": torch.arange(5).to(dtype) for name, dtype in DTYPES.items()},
        "tied.one": tied,
        "tied.other": tied,
        "tied.part": tied[1:, :2],
        "turned": tied.t(),
        "far": stored[10:900:7],
        "mask": torch.arange(500.0).expand(3, 1000, 500).transpose(1, 2),
        "conv": torch.randn(5, 3, 2, 2).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3),
        "nothing": torch.zeros(0, 3),
        "none of it": stored[4:4],
        "learned": torch.nn.Parameter(torch.randn(2, 2)),
        "frozen": torch.nn.Parameter(torch.randn(2).half(), requires_grad=False),
        "noted": attributed,
        "noted.too": parameter,
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_saves_is_read_bit_for_bit(tmp_path: Path, protocol: int) -> None:
    value = odd()
    path = saved(tmp_path / "a.pt", value, pickle_protocol=protocol)
    assert_same(contents(path), value)
    if protocol == 2:  # torch reads no other without running it
        assert_read_as_torch_does(path)


@st.composite
def views(draw: st.DrawFn) -> Tensors:
    """Views of few storages under some names."""
    storages = [torch.arange(60).to(dtype) for dtype in draw(st.lists(st.sampled_from([*DTYPES.values()])))]
    found = {}
    for name in draw(st.lists(st.text("ab.é_", min_size=1, max_size=9), unique=True)) if storages else []:
        tensor = draw(st.sampled_from(storages))[draw(st.integers(0, 59)) :]
        sizes = draw(st.lists(st.integers(0, 3), max_size=3))
        strides = draw(st.lists(st.integers(0, 4), min_size=len(sizes), max_size=len(sizes)))
        if 0 in sizes or 1 + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True)) <= len(tensor):
            found[name] = tensor.as_strided(sizes, strides)
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tensors=views())
def test_views_are_read_as_torch_reads_them(tmp_path: Path, tensors: Tensors) -> None:
    path = saved(tmp_path / "a.pt", {"first": torch.ones(1), **tensors})
    assert_read_as_torch_does(path)


def test_a_large_model_is_read_soon_and_has_one_digest_from_both_formats(
    cache: CheckpointCache, ingest: Any, tmp_path: Path
) -> None:
    state = {f"layers.{i}.weight": torch.full((3,), float(i)) for i in range(5000)}
    path = saved(tmp_path / "a.ckpt", {"state_dict": {f"model.{name}": t for name, t in state.items()}})
    checkpoint, _ = cache.ingest(path, WeightsFormat.TORCH)
    assert checkpoint == ingest(state)
    assert len(checkpoint.tensors) == 5000


def test_what_mlflow_logs_is_read(tmp_path: Path) -> None:
    import mlflow

    state = torch.nn.Linear(3, 2).state_dict()
    mlflow.pytorch.save_state_dict(state, tmp_path / "m")
    (path,) = (tmp_path / "m").iterdir()
    assert_same(contents(path), state)


def test_where_weights_lay_when_they_were_saved_does_not_matter(tmp_path: Path) -> None:
    value = odd()
    members = members_of(value)
    cpu, cuda = (b"X" + struct.pack("<I", len(place)) + place for place in (b"cpu", b"cuda:1"))
    assert cpu in members["archive/data.pkl"]
    stream = members["archive/data.pkl"].replace(cpu, cuda)
    assert_same(contents(with_pickle(tmp_path / "a.pt", stream, value)), value)


def trained() -> tuple[dict[str, Any], dict[str, Any]]:
    """A model's state, and its optimizer's."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return model.state_dict(), optimizer.state_dict()


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(
    "layout",
    [
        lambda w: w,
        dict,
        lambda w: {"state_dict": w, "hyper_parameters": argparse.Namespace(lr=np.float64(3)), "loops": {}},
        lambda w: {"epoch": 3, "model_state_dict": w, "loss": torch.tensor(0.5)},
        lambda w: {
            "model": w,
            "args": pathlib.PurePosixPath("x"),
            "when": dt.datetime.now(dt.UTC),
        },
        lambda w: {"module": w, "lists": [w, {1, 2}, frozenset({3}), b"x" * 9999, "x" * 9999, 1 << 99, 0.5]},
        lambda w: {"checkpoint": 3, "model": {"state_dict": w, "ema": {}}},
        lambda w: {"net": defaultdict(dict, w), "state_dict": None, "model": "resnet18"},
        lambda w: {"state_dict_ema": {"a": torch.ones(1)}, "model_ema": w, "state_dict": w},
        lambda w: {"model": dict(w) | {"0._extra_state": {"any": object}}},
        lambda w: {
            "weights": w,
            "sparse": torch.eye(2).to_sparse(),
            "array": np.zeros((2, 2)),
            "itself": Rake(),
        },
        lambda w: {**{key: {"name": "x"} for key in WEIGHTS_KEYS[:-1]}, WEIGHTS_KEYS[-1]: w},
    ],
)
def test_the_state_dict_is_found_and_what_lies_beside_it_is_left_unread(
    tmp_path: Path, layout: Callable[[dict[str, Any]], Any], protocol: int
) -> None:
    weights, optimizer = trained()
    value = layout(weights)
    if not any(isinstance(entry, torch.Tensor) for entry in value.values()) or "loss" in value:
        value |= {"optimizer": optimizer, "rng": torch.get_rng_state()}
    path = saved(tmp_path / "a.ckpt", value, pickle_protocol=protocol)
    assert_same(contents(path), weights)
    assert opened_or_refused(path)


class Rake:
    """Its pickle holds itself, and sets its state."""

    def __init__(self) -> None:
        self.itself = (self, [self], {"itself": self})

    def __getstate__(self) -> object:
        return self.__dict__

    def __setstate__(self, state: object) -> None:
        raise AssertionError


class Weights(OrderedDict[str, torch.Tensor]):
    """A class of somebody's own."""


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (torch.nn.Linear(2, 2), "a whole object that was pickled, of torch.nn.modules.linear.Linear"),
        (argparse.Namespace(), "of argparse.Namespace"),
        ({"model": torch.nn.Linear(2, 2), "epoch": 1}, "'model' is of torch.nn.modules.linear.Linear"),
        ({"state_dict": Weights(STATE)}, "'state_dict' is of tests.soup.test_torch_file.Weights"),
        ({"student": STATE, "teacher": STATE}, "'student' is a table"),
        ({**STATE, "epoch": 3}, "'epoch' is a number"),
        ({"model": {**STATE, "config": "x"}}, "'config' is a text"),
        ({"model": {**STATE, "config": argparse.Namespace()}}, "'config' is of argparse.Namespace"),
        (dict[object, object](STATE) | {3: STATE["bias"]}, "1 key that is no text"),
        ({"state_dict": {}}, "'state_dict' is a table"),
        (torch.optim.AdamW([torch.ones(1)]).state_dict(), "'param_groups' is a list"),
        ({"ds_version": "0.17", "module": STATE}, "a DeepSpeed checkpoint"),
        ([STATE], "holds a list"),
        (STATE["bias"], "holds a tensor"),
        (None, "holds None"),
        ({"a": torch.eye(2).to_sparse()}, "'a' is a sparse tensor"),
        ({"a": torch.empty(2, device="meta")}, "device meta"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_would_have_to_be_run_is_refused_with_the_way_out(
    tmp_path: Path, value: object, complaint: str
) -> None:
    error = refusal(saved(tmp_path / "a.pt", value))
    assert isinstance(error, Pickled)
    assert complaint in str(error)
    assert error.mend == CONVERSION


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning"
)  # torch wants to leave them behind
def test_unusual_tensors_and_programs_are_refused_by_name(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2)])
    assert "a nested tensor" in str(refusal(saved(tmp_path / "n.pt", {"a": nested})))
    assert "a sparse tensor" in str(refusal(saved(tmp_path / "s.pt", {"a": torch.eye(2).to_sparse_csr()})))
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    assert "a quantised tensor" in str(refusal(saved(tmp_path / "q.pt", {"a": quantised})))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "t.pt")
    assert "TorchScript" in refusal(tmp_path / "t.pt").what


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        (torch.ones(2, dtype=torch.complex64), "ComplexFloat"),
        (torch.ones(2, dtype=torch.complex64).conj(), "negatives or conjugates"),
        (torch.ones(2, dtype=torch.complex64).conj().imag, "negatives or conjugates"),
        (torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
    ],
)
def test_numbers_that_no_average_takes_are_refused_by_name(
    tmp_path: Path, tensor: torch.Tensor, complaint: str
) -> None:
    error = refusal(saved(tmp_path / "a.pt", {"a": tensor, "b": torch.ones(2)}))
    (fault,) = error.faults
    assert "'a'" in fault
    assert complaint in fault


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not by torch.save"),
        (b"GGUF\3\0\0\0", "GGUF"),
        (pickle.dumps({"a": 3}), "plain pickle"),
        (b"\x93NUMPY", "not by torch.save"),
        (packed({"archive/other": b""}), "0 data.pkl"),
        (packed({"a/data.pkl": b"", "b/data.pkl": b""}), "2 data.pkl"),
        (packed({"m/data/weights/model_weights_config.json": b""}), ".pt2"),
        (packed(members_of(STATE))[:-30], "truncated"),
        (packed(members_of(STATE) | {"archive/byteorder": b"big"}), "little-endian"),
        (packed({n: c for n, c in members_of(STATE).items() if n != "archive/data/1"}), "no member"),
        (packed(members_of(STATE) | {"archive/data/1": b"four"}), "4 bytes instead of 8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_and_damaged_ones_are_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    assert complaint in str(refusal(tmp_path / "a.bin"))


def test_a_file_in_the_old_format_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", STATE, _use_new_zipfile_serialization=False)
    assert "before torch 1.6" in refusal(path).what


def test_a_file_of_an_older_torch_has_no_byte_order(tmp_path: Path) -> None:
    members = members_of(STATE)
    del members["archive/byteorder"], members["archive/.format_version"]
    (tmp_path / "a.pt").write_bytes(packed(members))
    assert_read_as_torch_does(tmp_path / "a.pt")


def test_a_byte_of_the_weights_that_changed_on_the_way_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"model": STATE, "optimizer": {"a": torch.full((2,), 7.0)}})
    content = path.read_bytes()
    for value, whole in ((1.0, False), (7.0, True)):  # weights, and what is never read
        changed = bytearray(content)
        changed[content.index(struct.pack("<2f", value, value))] ^= 1
        path.write_bytes(changed)
        if whole:
            assert_same(contents(path), STATE)
        else:
            assert "another CRC" in str(refusal(path))


def test_a_small_file_cannot_claim_a_huge_tensor(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"a": torch.ones(1).expand(1 << 20, 1 << 20)})
    assert "many times larger" in refusal(path).what


def test_one_storage_cannot_have_two_meanings(tmp_path: Path) -> None:
    stream = members_of({"a": torch.ones(4), "b": torch.ones(4).int()})["archive/data.pkl"]
    changed = stream.replace(b"X\1\0\0\0001", b"X\1\0\0\0000")
    assert changed != stream
    assert "two types" in str(refusal(with_pickle(tmp_path / "a.pt", changed, {"a": torch.ones(4)})))


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


WORD = text("touch /tmp/stockpot-was-here")
ARGUMENT = b"(" + WORD + b"t"
SYSTEM = named("posix", "system")
STORED = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + b"K\2tQ"
SIZES = b"K\0K\2\x85K\1\x85"
TENSOR = named("torch._utils", "_rebuild_tensor_v2") + b"(" + STORED + SIZES + b"\x89NtR"
TRAPS = {
    "reduce": SYSTEM + ARGUMENT + b"R",
    "reduce of a reduce": named("builtins", "getattr") + b"(" + SYSTEM + WORD + b"tR" + ARGUMENT + b"R",
    "stack global": text("os") + text("system") + b"\x93" + ARGUMENT + b"R",
    "inst": b"(" + WORD + b"iposix\nsystem\n",
    "obj": b"(" + SYSTEM + WORD + b"o",
    "newobj": SYSTEM + ARGUMENT + b"\x81",
    "newobj with names": SYSTEM + ARGUMENT + b"}\x92",
    "state": named("tests.soup.test_torch_file", "Rake") + b")R" + b"}" + text("x") + WORD + b"sb",
    "state of a call": SYSTEM + ARGUMENT + b"R" + ARGUMENT + b"b",
    "ext": b"\x82\x01",
    "long ext": b"\x84\1\0\0\0",
    "a path outside": text("../../../../etc/passwd") + b"Q",
    "a path as a key": b"("
    + text("storage")
    + named("torch", "FloatStorage")
    + text("../../../etc/passwd")
    + text("cpu")
    + b"K\2tQ",
    "a storage of another class": b"(" + text("storage") + SYSTEM + text("0") + text("cpu") + b"K\2tQ",
    "a path as text": b"P/etc/passwd\n",
    "buffers": b"\x97",
    "a module of torch": named("torch._utils", "_import_dotted_name") + ARGUMENT + b"R",
    "a dotted name": named("torch", "_utils._rebuild_tensor_v2") + b"(" + STORED + SIZES + b"\x89NtR",
    "a name with a space": named("torch._utils ", "_rebuild_tensor_v2") + b"(" + STORED + SIZES + b"\x89NtR",
    "a rebuilder of anything": named("torch._tensor", "_rebuild_from_type_v2")
    + b"("
    + SYSTEM
    + named("torch", "Tensor")
    + ARGUMENT
    + b"}tR",
    "a table of a call": named("collections", "defaultdict") + b"(" + SYSTEM + b"tR" + WORD + b"Ns",
    "a table by key": named("collections", "OrderedDict") + ARGUMENT + b"R",
    "load": named("torch", "load") + ARGUMENT + b"R",
    "bytes in torch": named("torch.storage", "_load_from_bytes") + b"(C\4evil" + b"tR",
    "a tensor's state": TENSOR + ARGUMENT + b"b",
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("as_key", [False, True])
@pytest.mark.parametrize("protocol", [b"\x80\2", b"\x80\4"])
def test_nothing_of_a_trapped_file_is_run(
    tmp_path: Path, trap: str, protocol: bytes, *, as_key: bool
) -> None:
    """Alone, as a weight, and beside weights: there a call that was not written for us is left alone."""
    weights = b"}" + text("w") + TENSOR + b"s"
    sprung = TRAPS[trap]
    entry = sprung + b"N" if as_key else text("other") + sprung
    streams = [sprung, weights + entry + b"s", b"}" + text("model") + weights + b"s" + entry + b"s"]
    outcomes = []
    for stream in streams:
        path = with_pickle(tmp_path / "a.pt", protocol + stream + b".", {"a": torch.ones(2)})
        outcomes.append(opened_or_refused(path))
    assert outcomes[:2] == [False, False] or trap == "a table of a call"
    assert not Path("/tmp/stockpot-was-here").exists()  # noqa: S108 - where the traps would write


@pytest.mark.parametrize(
    "trap", ["reduce", "stack global", "newobj", "state", "load", "a dotted name", "a rebuilder of anything"]
)
def test_a_call_beside_the_weights_is_left_unread(tmp_path: Path, trap: str) -> None:
    stream = b"\x80\2}" + text("model") + b"}" + text("w") + TENSOR + b"ss" + text("x") + TRAPS[trap] + b"s."
    path = with_pickle(tmp_path / "a.pt", stream, {"a": torch.ones(2)})
    assert opened_or_refused(path)
    assert_same(contents(path), {"w": torch.ones(2)})


DEEP = b")" + b"\x85" * 200_000
WIDE = b")" + b"q\1h\1\x86" * 200
"""A tuple of a tuple twice, and so on: short, and endless for whoever walks it."""


@pytest.mark.parametrize("value", [DEEP, WIDE], ids=["deep", "wide"])
@pytest.mark.parametrize(
    "weight",
    [
        b"%s",
        b"%s)R",
        named("torch._utils", "_rebuild_tensor_v2") + b"%sR",
        TENSOR.replace(SIZES, b"%sK\2\x85K\1\x85"),
        TENSOR.replace(SIZES, b"K\0%sK\1\x85"),
        TENSOR.replace(SIZES, b"K\0K\2%s\x86K\1\x85"),
        TENSOR.replace(SIZES, b"K\0K\2\x85%s"),
        TENSOR.replace(b"tR", b"%stR"),
        TENSOR + b"%sb",
        named("torch._tensor", "_rebuild_from_type_v2") + b"(%s" + named("torch", "Tensor") + b")}tR",
        named("torch._tensor", "_rebuild_from_type_v2") + b"(" + SYSTEM + b"%s)}tR",
        named("torch._utils", "_rebuild_parameter") + b"(%s\x89NtR",
        b"%sQ",
        STORED.replace(b"K\2tQ", b"%stQ"),
        text("torch") + b"%s\x93",
        b"}%sNs",
    ],
)
def test_values_that_nest_without_end_are_refused_soon(tmp_path: Path, weight: bytes, value: bytes) -> None:
    stream = (
        b"\x80\2N\x940" + b"}" + text("w") + TENSOR + b"s" + text("x") + weight.replace(b"%s", value) + b"s."
    )
    assert not opened_or_refused(with_pickle(tmp_path / "a.pt", stream, {"a": torch.ones(2)}))


def mutants(count: int, seed: int) -> Any:
    """Files with changed bytes: anywhere, or in the pickle, with the CRC that then is right."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    weights, optimizer = trained()
    values: list[Any] = [
        odd(),
        {"state_dict": weights, "optimizer": optimizer, "cfg": argparse.Namespace(x=3)},
    ]
    originals = [members_of(value) for value in values]
    instructions = b"()]}.NQRb0123cehjqrstuXKMJG\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95"
    for _ in range(count):
        members = dict(draw.choice(originals))
        anywhere = draw.random() < 0.2
        content = bytearray(packed(members) if anywhere else members["archive/data.pkl"])
        for _ in range(draw.choice([1, 1, 1, 2, 4])):
            at = draw.randrange(len(content))
            match draw.randrange(4):
                case 0:
                    content[at] = draw.randrange(256)
                case 1:
                    content[at] = draw.choice(instructions)
                case 2:
                    del content[at : at + draw.randint(1, 8)]
                case 3:
                    begin = draw.randrange(len(content))
                    content[at:at] = content[begin : begin + draw.randint(1, 40)]
        yield bytes(content) if anywhere else packed(members | {"archive/data.pkl": bytes(content)})


def read_mutants(folder: Path, count: int, seed: int) -> None:
    path = folder / "a.pt"
    outcomes = []
    for content in mutants(count, seed):
        path.write_bytes(content)
        begin = time.monotonic()
        outcomes.append(opened_or_refused(path))
        assert time.monotonic() - begin < 60
    assert {True, False} <= set(outcomes)


def test_changed_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    read_mutants(tmp_path, 2000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_hundred_thousand_mutants_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    read_mutants(tmp_path, 10_000, seed)


BOMBS: dict[str, Callable[[], bytes]] = {
    "tables": lambda: b"}" * 3_000_000,
    "small tables": lambda: b"}X\1\0\0\0aNs" * 1_000_000,
    "tables in tables": lambda: b"}" + b"X\1\0\0\0a}" * 1_000_000 + b"s" * 1_000_000,
    "tuples in tuples": lambda: b")" + b"\x85" * 3_000_000,
    "a memo": lambda: b"N" + b"\x94" * 3_000_000,
    "calls of calls": lambda: b"N" + b")R" * 1_500_000,
    "marks": lambda: b"(" * 3_000_000,
    "names": lambda: b"cab\ncd\n" * 1_000_000,
    "texts": lambda: (b"X\x80\0\0\0" + "\U0001f600".encode() + b"a" * 124) * 230_000,
    "long texts": lambda: (b"X\0\x10\0\0" + "\U0001f600".encode() + b"a" * 4092) * 8_000,
    "a text of 16 MB": lambda: b"X\x00\x00\x00\x01" + b"a" * (1 << 24) + b"0" * 9,
    "a text of 4 GB": lambda: b"X\xff\xff\xff\xff",
    "a text of any length": lambda: b"\x8d" + b"\xff" * 8,
    "a number of any length": lambda: b"\x8b\xff\xff\xff\x7f",
    "a place in the memo": lambda: b"Nr\xff\xff\xff\xff",
    "a long stream": lambda: b"N" * (33 << 20),
}


@pytest.mark.slow
def test_a_pickle_of_any_kind_takes_little_memory_and_time(tmp_path: Path) -> None:
    """All of them at once, in four threads: as much as one of them."""
    code = """if True:
        import resource, sys
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        from stockpot.errors import BadCheckpoint
        from stockpot.soup import open_torch
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        def read(path):
            try:
                open_torch(Path(path)).__enter__()
            except BadCheckpoint:
                return True
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, sys.argv[1:]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    paths = [
        with_pickle(tmp_path / f"{number}.pt", b"\x80\2" + bomb() + b".")
        for number, bomb in enumerate(BOMBS.values())
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], stdout=subprocess.PIPE, text=True, check=True, timeout=300
    )
    assert int(done.stdout) < 400 << 10, "KiB"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    real = saved(tmp_path / "a.pt", STATE)
    (tmp_path / "link").symlink_to(real)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        assert "not a regular file" in str(refusal(tmp_path / name))
