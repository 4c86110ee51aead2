"""The weights inside a file by ``torch.save``, read without torch's loader: no pickle is run.

The file is a zip of uncompressed members. ``<root>/data.pkl`` is a pickle in which a tensor is a call of one
of torch's rebuilders, with a storage that lies in a member of its own, ``<root>/data/<key>``. See
``torch/serialization.py`` (``_save``) and ``torch/_utils.py``. `pickle_stream` tells what the pickle
describes; this module knows the few descriptions that are weights.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TypeGuard

from stockpot.errors import Pickled
from stockpot.prose import counted
from stockpot.soup.canonical import ITEM_SIZES
from stockpot.soup.pickle_stream import STREAM_LIMIT, Made, Name, Stored, Table, Unread, interpret
from stockpot.soup.strided import require_moderate, strided_place
from stockpot.soup.weights_file import Place, WeightsFile, collect_places, damaged, open_regular, spec_from
from stockpot.soup.zip_members import ZipMembers

WEIGHTS_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "net_state_dict",
    "model",
    "module",
    "network",
    "net",
    "weights",
    "params",
)
"""Where training tools keep a model's state dict, first choice first: Lightning, timm and mmengine; the
tutorials of PyTorch and Ray; fairseq, fastai, Ignite and Fabric; DeepSpeed; what people write by hand.

A second set of weights beside it (``state_dict_ema``, ``model_ema``, ``ema``, ``teacher``) is not looked at:
what was trained is averaged, as the runs logged without an EMA are.
"""

CONVERSION = """where you trust the files, and their code can be imported, convert them to safetensors:
import mlflow, torch
from safetensors.torch import save_file
for run in ["RUN ID", ...]:
    path = mlflow.artifacts.download_artifacts(f"runs:/{run}/PATH")
    found = torch.load(path, map_location="cpu", weights_only=False)  # runs the pickle
    state = found.state_dict() if hasattr(found, "state_dict") else found  # or found["..."]
    save_file({name: t.detach().contiguous().clone() for name, t in state.items()}, "model.safetensors")
    mlflow.MlflowClient().log_artifact(run, "model.safetensors")"""
"""How runs that were logged with a pickle become usable. In capitals, what stands for a run's own."""

RUN_IDS = '"RUN ID", ...'

BEGINNING = 16
"""Bytes of a file from which `require_archive` tells what it is."""

_DTYPES = MappingProxyType(
    {
        "Double": "F64",
        "Float": "F32",
        "Half": "F16",
        "BFloat16": "BF16",
        "Long": "I64",
        "Int": "I32",
        "Short": "I16",
        "Char": "I8",
        "Byte": "U8",
        "Bool": "BOOL",
        "uint16": "U16",
        "uint32": "U32",
        "uint64": "U64",
    }
)
"""By the type of storage, without its "Storage"; by dtype, where the storage has no type."""
_UNTYPED = Name("torch.storage", "UntypedStorage")
_WITH_DTYPE = Name("torch._utils", "_rebuild_tensor_v3")
_PLAIN_REBUILDERS = frozenset(
    {Name("torch._utils", "_rebuild_tensor"), Name("torch._utils", "_rebuild_tensor_v2"), _WITH_DTYPE}
)
_PARAMETERS = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})
_WITH_ATTRIBUTES = Name("torch._tensor", "_rebuild_from_type_v2")
_PLAIN_TENSORS = frozenset({Name("torch", "Tensor"), Name("torch.nn.parameter", "Parameter")})
_REBUILDERS = frozenset({"torch._utils", "torch._tensor"})
"""Modules that hold what makes tensors, of all kinds."""
_OTHER_TENSORS = MappingProxyType(
    {
        "_rebuild_qtensor": "a quantised tensor",
        "_rebuild_sparse_tensor": "a sparse tensor",
        "_rebuild_nested_tensor": "a nested tensor",
        "_rebuild_meta_tensor_no_storage": "a tensor without values, of the device meta",
    }
)
_KINDS = MappingProxyType(
    {type(None): "None", bool: "a number", int: "a number", str: "a text", tuple: "a tuple"}
)
_DEEPEST = 3
"""Tables in tables: ``{"checkpoint": {"model": {"state_dict": ...}}}``."""
_WRAPPINGS = 4
"""Around a tensor: a parameter, and its attributes."""
_SHOWN = 12
_NAMED = 200
"""Characters of a name in a message."""
_KEY = re.compile(r"\d{1,20}", re.ASCII)
_BEGINNINGS = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", "is in the format that torch.save wrote before torch 1.6"),
    (b"GGUF", "is a GGUF file"),
    (b"\x80", "is a plain pickle, not written by torch.save"),
)
_INTERPRETING = Lock()
"""One stream at a time: several threads together would need several times the memory."""


@contextmanager
def open_torch(path: Path) -> Iterator[WeightsFile]:
    """Open the state dict in a file by ``torch.save``.

    It is the whole of what was saved where that maps names to tensors; else what lies under the first of
    `WEIGHTS_KEYS` that maps names to any tensors; tables may lie in tables. What else is there stays unread.
    An entry ``..._extra_state`` that is no tensor is left out; any other value among the tensors is a fault.
    Names stay as they are, and names of one tensor are several, as in a state dict.

    Raises Pickled where weights need a class or a function that is not on the list, and for files of other
    kinds; BadCheckpoint for what is damaged, naming every fault that can be told from the others.
    """
    with open_regular(path) as file:
        require_archive(path, file.read(0, min(file.size, BEGINNING)))
        members = ZipMembers(file)
        with _INTERPRETING:
            places = _places(members)
        require_moderate(file, list(places))
        members.require_whole(places.values(), mend=CONVERSION)
        yield WeightsFile(file, list(places))


def require_archive(path: Path, beginning: bytes | bytearray) -> None:
    """Raise Pickled where the first bytes of a file show that it is not by ``torch.save``, or an old one."""
    if beginning.startswith(b"PK\x03\x04"):
        return
    told = (what for start, what in _BEGINNINGS if beginning.startswith(start))
    raise _pickled(path, next(told, "is not by torch.save, which writes zip archives"))


def _root(members: ZipMembers) -> str:
    """The folder in the archive in which all lies, with its slash."""
    path = members.file.path
    pickles = [name for name in members.names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        if any(name.endswith("_weights_config.json") for name in members.names):
            raise damaged(path, "is a torch.export archive", mend="log it under a name that ends in .pt2")
        raise _pickled(path, f"is a zip archive with {len(pickles)} data.pkl, of which torch.save writes one")
    root = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(f"{root}code/") or name == f"{root}constants.pkl" for name in members.names):
        raise _pickled(path, "is a TorchScript archive, a program")
    return root


def _places(members: ZipMembers) -> dict[Place, str]:
    """Where the weights lie, each with the member that holds it."""
    path, root = members.file.path, _root(members)
    try:
        if f"{root}byteorder" in members.names and members.read(f"{root}byteorder", 6) != b"little":
            raise ValueError("its byte order is not little-endian")  # noqa: TRY301 - told as all of these
        value, stored = interpret(members.read(f"{root}data.pkl", STREAM_LIMIT))
        _require_one_meaning(stored)
    except ValueError as error:
        raise damaged(path, f"{root}data.pkl: {error}", mend=CONVERSION) from error
    homes: dict[Place, str] = {}
    tensors = _tensors(path, value)

    def place(name: str, _: object) -> Place:
        found, homes[found] = _place(members, root, name, tensors[name])
        return found

    collect_places(path, tensors, place)
    return homes


def _tensors(path: Path, value: object) -> dict[str, Made]:
    """The state dict in what was saved: plain tensors by name. Raises Pickled where there is none."""
    if isinstance(value, Table) and "ds_version" in value.named:
        what = "is a part of a DeepSpeed checkpoint: its zero_to_fp32.py makes one file of all"
        raise _pickled(path, what)
    table = _state_dict(value, _DEEPEST)
    if table is None:
        raise _pickled(path, *_without_weights(value))
    entries = {name: _unwrapped(entry) for name, entry in table.named.items() if not _is_extra(name, entry)}
    plain = {name: entry for name, entry in entries.items() if _is_plain(entry)}
    faults = [
        f"{name[:100]!a} is {_described(entry)}" for name, entry in entries.items() if name not in plain
    ]
    if table.others:
        faults.append(counted(table.others, "key that is no text", "keys that are no text"))
    if faults:
        raise _pickled(path, "its weights are not plain tensors alone", faults)
    return plain


def _state_dict(value: object, depth: int) -> Table | None:
    if not isinstance(value, Table):
        return None
    others = [entry for name, entry in value.named.items() if not _is_extra(name, entry)]
    if others and all(map(_is_tensor, others)):
        return value
    for inner in map(value.named.get, WEIGHTS_KEYS if depth else ()):
        if isinstance(inner, Table) and any(map(_is_tensor, inner.named.values())):
            return inner
        if (found := _state_dict(inner, depth - 1)) is not None:
            return found
    return None


def _is_extra(name: str, entry: object) -> bool:
    """Whether it is what a module's ``get_extra_state`` gave, which may be anything."""
    return name.rpartition(".")[2] == "_extra_state" and not _is_tensor(entry)


def _is_tensor(entry: object) -> TypeGuard[Made]:
    """Whether it would be a tensor of any kind."""
    of = entry.of if isinstance(entry, Made) else None
    return isinstance(of, Name) and of.module in _REBUILDERS and of.name.startswith("_rebuild_")


def _is_plain(entry: object) -> TypeGuard[Made]:
    return _is_tensor(entry) and entry.of in _PLAIN_REBUILDERS and not entry.changed


def _unwrapped(entry: object) -> object:
    """The tensor that a parameter, or a tensor with attributes, is made of."""
    for _ in range(_WRAPPINGS):
        match entry:
            case Made(Name("torch._utils", name), (inner, *_), False) if name in _PARAMETERS:
                entry = inner
            case Made(of, (function, Name() as kind, tuple() as arguments, *_), False) if (
                of == _WITH_ATTRIBUTES and kind in _PLAIN_TENSORS
            ):
                entry = Made(function, arguments)
    return entry


def _place(members: ZipMembers, root: str, name: str, tensor: Made) -> tuple[Place, str]:
    """Where a plain tensor lies, and in which member. Raises ValueError where its call makes no sense."""
    match tensor.arguments:
        case (Stored(identity), int() as skipped, tuple() as sizes, tuple() as strides, *more) if all(
            isinstance(n, int) for n in (*sizes, *strides)
        ):
            kind, key, count = _storage(identity)
        case _:
            raise ValueError("its call has other arguments than torch gives")
    dtype = kind.name.removesuffix("Storage")
    if tensor.of == _WITH_DTYPE:
        dtype, more = _dtype(more)
    if any(not isinstance(bits, Table) or bits.others or any(bits.named.values()) for bits in more[2:]):
        raise ValueError("its values are stored as their negatives or conjugates")
    spec = spec_from(name, _DTYPES.get(dtype, dtype), list(sizes))
    record = f"{root}data/{key}"
    offset, size = members.locate(record)
    expected = count * (1 if kind == _UNTYPED else ITEM_SIZES[spec.dtype])
    if size != expected:
        raise ValueError(f"its storage has {counted(size, 'byte')} instead of {expected:,}")
    return strided_place(spec, skipped, list(strides), (offset, size)), record


def _storage(identity: object) -> tuple[Name, str, int]:
    """A storage's type, key and length in elements. Raises ValueError for another persistent id."""
    match identity:
        case ("storage", Name() as kind, str() as key, str(), int() as count) if _KEY.fullmatch(key):
            if kind == _UNTYPED or (kind.module == "torch" and kind.name.endswith("Storage")):
                return kind, key, count
    raise ValueError("it names something outside of itself that is no storage of torch")


def _dtype(more: Sequence[object]) -> tuple[str, list[object]]:
    """What follows the strides where torch has no type of storage for the dtype: the dtype, and the rest."""
    match more:
        case (_, _, Name("torch", dtype), *rest):
            return dtype, [*more[:2], *rest]
    raise ValueError("its call has other arguments than torch gives")


def _require_one_meaning(stored: Sequence[Stored]) -> None:
    """Raise ValueError where a storage is named with two types or lengths, of which torch takes the first."""
    meanings: dict[str, tuple[Name, int]] = {}
    for each in stored:
        kind, key, count = _storage(each.id)
        if meanings.setdefault(key, (kind, count)) != (kind, count):
            raise ValueError(f"storage {key} has two types or lengths")


def _without_weights(value: object) -> tuple[str, list[str]]:
    """What to say of a pickle that holds no state dict, and of its parts."""
    if isinstance(value, Table):
        parts = [f"{name[:100]!a} is {_described(entry)}" for name, entry in value.named.items()]
        where = f"at its top, or under {', '.join(WEIGHTS_KEYS)}"
        return f"holds no table of names and tensors {where}", parts
    if isinstance(value, Made) and not _is_tensor(value):
        return f"is a whole object that was pickled, {_described(value)}: only its code could make it", []
    return f"holds {_described(value)} instead of a table of weights", []


def _described(value: object) -> str:
    """For a message."""
    if isinstance(value, Table):
        return "a table"
    if isinstance(value, Unread):
        return value.kind
    if not isinstance(value, Made):
        return _KINDS.get(type(value), "a name, or a storage")
    if not isinstance(value.of, Name):
        return "what a call of a call gives"
    of, arguments = value.of, value.arguments
    if of == _WITH_ATTRIBUTES and isinstance(arguments, tuple):
        of = next((kind for kind in arguments[1:2] if isinstance(kind, Name)), of)
    return _OTHER_TENSORS.get(of.name, "a tensor" if _is_plain(value) else f"of {of}"[:_NAMED])


def _pickled(path: Path, what: str, faults: Sequence[str] = ()) -> Pickled:
    shown = [*faults[:_SHOWN], *([f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else [])]
    return Pickled(f"{path}: {what}", faults=shown, mend=CONVERSION)
