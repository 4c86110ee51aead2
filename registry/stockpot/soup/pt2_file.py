"""The weights inside a ``torch.export`` archive (``.pt2``), read without torch's loader, which unpickles.

The archive is a zip of uncompressed members. ``<root>/data/weights/<model>_weights_config.json`` maps
each name to a payload beside it: the raw bytes of a storage, which several tensors may share. See
``torch/export/pt2_archive/_package.py`` and ``torch/_export/serde/schema.py`` (schema version 8).
Constants and buffers that are not persistent lie elsewhere and are no part of a state dict.
"""

import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from stockpot.entities import TensorSpec
from stockpot.prose import counted
from stockpot.soup import strict_json
from stockpot.soup.canonical import ITEM_SIZES, byte_length
from stockpot.soup.disk_faults import CODES, unreadable
from stockpot.soup.weights_file import (
    Place,
    RegularFile,
    WeightsFile,
    collect_places,
    counts_from,
    damaged,
    open_regular,
    span_of,
    spec_from,
)

SCALAR_TYPES = {
    1: "U8",
    2: "I8",
    3: "I16",
    4: "I32",
    5: "I64",
    6: "F16",
    7: "F32",
    8: "F64",
    12: "BOOL",
    13: "BF16",
    28: "U16",
    34: "U32",
    35: "U64",
}
"""``ScalarType`` of ``torch/_export/serde/schema.py``."""

HOW_TO_LOG = (
    'mlflow.pytorch.log_model(model, name=..., input_example=..., serialization_format="pt2"), '
    "or safetensors.torch.save_file and mlflow.log_artifact"
)

_STRIDED = 7  # Layout.Strided of the same schema
_CONFIG = re.compile(r"([^/]+/data/weights/)[^/]+_weights_config\.json")
_DIRECTORY_LIMIT = 16 << 20  # bytes: some 200,000 members
_LOCAL_HEADER = struct.Struct("<4s2xH18xHH")
"""Signature, flags, lengths of name and extra field (APPNOTE 4.3.7)."""
_ALTERED = 1 << 0 | 1 << 5 | 1 << 6
"""Flags of members that are encrypted, patched, or strongly encrypted (APPNOTE 4.4.4)."""
_COPIES_LIMIT = 64
"""Names per byte of the file on average, and reads of it: tied and expanded weights, but no bomb."""
_SMALL = 1 << 20
"""Bytes of a file that are not worth a stricter limit: a mask in it may be expanded from one element."""


@contextmanager
def open_pt2(path: Path) -> Iterator[WeightsFile]:
    """Open the state dict of a torch.export archive.

    Raises BadCheckpoint naming every fault that can be told from the others.
    """
    with open_regular(path) as file:
        members = _members(file)
        folder, config = _read_config(file, members)
        if any(
            isinstance(entry, Mapping) and entry.get("use_pickle") is not False for entry in config.values()
        ):
            raise damaged(
                path, "its weights are pickled, and pickles are never opened", mend=f"use {HOW_TO_LOG}"
            )
        payloads = partial(_payload, file, members, folder)
        places = collect_places(path, config, lambda name, entry: _place(name, entry, payloads))
        _require_moderate(file, places)
        _require_whole(file, members, folder, config)
        yield WeightsFile(file, places)


class _CautiousFile(io.FileIO):
    """What zipfile reads the directory through: never more than a directory's worth at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if (left if size is None or size < 0 else min(size, left)) > _DIRECTORY_LIMIT:
            raise zipfile.BadZipFile("its directory is too large")
        return super().read(size) or b""


def _members(file: RegularFile) -> dict[str, zipfile.ZipInfo]:
    try:
        with (
            _CautiousFile(os.dup(file.descriptor)) as stream,
            zipfile.ZipFile(stream) as archive,
        ):
            found = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in CODES:
            raise unreadable(file.path, error) from error
        raise damaged(file.path, f"is no zip archive, or a truncated one: {error}") from error
    members = {member.filename: member for member in found}
    if len(members) < len(found):
        raise damaged(file.path, "its directory names a member twice")
    return members


def _read_config(file: RegularFile, members: Mapping[str, zipfile.ZipInfo]) -> tuple[str, dict[str, object]]:
    found = [match for name in members if (match := _CONFIG.fullmatch(name))]
    if len(found) != 1:
        raise damaged(
            file.path,
            f"holds {len(found)} tables of weights instead of one: no torch.export archive of one model, "
            "or one by an older torch, which pickles weights",
            mend=f"with a torch of today, use {HOW_TO_LOG}",
        )
    name, folder = found[0].group(0), found[0].group(1)
    try:
        document = strict_json.parse(_read_member(file, members, name, strict_json.LIMIT))
        byte_order = _read_member(file, members, folder.split("/", 1)[0] + "/byteorder", len("little"))
    except ValueError as error:
        raise damaged(file.path, f"{name}: {error}") from error
    config = document.get("config")
    if not isinstance(config, dict) or document.keys() != {"config"}:
        raise damaged(file.path, f"{name}: it has one key, config")
    if byte_order != b"little":
        raise damaged(file.path, "its byte order is not little-endian")
    return folder, config


def _read_member(
    file: RegularFile, members: Mapping[str, zipfile.ZipInfo], name: str, limit: int
) -> bytearray:
    offset, size = _locate(file, members, name)
    if size > limit:
        raise ValueError(f"member {name[:200]!a} has {size:,} bytes, more than the limit of {limit:,}")
    content = file.read(offset, size)
    if zlib.crc32(content) != members[name].CRC:
        raise ValueError(f"member {name[:200]!a} is damaged: it has another CRC than the directory says")
    return content


def _locate(file: RegularFile, members: Mapping[str, zipfile.ZipInfo], name: str) -> tuple[int, int]:
    """Offset and size of a member's bytes. Raises ValueError unless they lie there as they are."""
    member = members.get(name)
    if member is None:
        raise ValueError(f"there is no member {name[:200]!a}")
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise ValueError(f"member {name[:200]!a} is compressed, which torch never does")
    fixed = _LOCAL_HEADER.size
    local = file.read(member.header_offset, fixed)
    signature, flags, name_length, extra_length = _LOCAL_HEADER.unpack(local)
    if (member.flag_bits | flags) & _ALTERED:
        raise ValueError(f"member {name[:200]!a} is encrypted, or a patch of other data")
    offset = member.header_offset + fixed + name_length + extra_length
    local_name = file.read(member.header_offset + fixed, name_length)
    if signature != b"PK\x03\x04" or local_name != name.encode() or offset + member.file_size > file.size:
        raise ValueError(f"member {name[:200]!a} is not where the directory says")
    return offset, member.file_size


def _require_whole(
    file: RegularFile, members: Mapping[str, zipfile.ZipInfo], folder: str, config: Mapping[str, Any]
) -> None:
    """Hold every payload in use against its CRC: what changed on the way is not averaged."""
    faults = []
    for name in dict.fromkeys(folder + entry["path_name"] for entry in config.values()):
        offset, size = _locate(file, members, name)
        crc = 0
        for piece in file.pieces(offset, offset + size):
            crc = zlib.crc32(piece, crc)
        if crc != members[name].CRC:
            faults.append(f"member {name[:200]!a}: it has another CRC than the directory says")
    if faults:
        raise damaged(file.path, "its weights are damaged", faults, mend=f"use {HOW_TO_LOG}")


def _payload(
    file: RegularFile, members: Mapping[str, zipfile.ZipInfo], folder: str, name: object
) -> tuple[int, int]:
    if not isinstance(name, str) or not re.fullmatch(r"\w+", name, re.ASCII):
        raise ValueError(f"{str(name)[:100]!a} is no payload's name")
    return _locate(file, members, folder + name)


def _place(name: str, entry: object, payload: Callable[[object], tuple[int, int]]) -> Place:
    meta = entry.get("tensor_meta") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(meta, Mapping) or meta.get("layout") != _STRIDED:
        raise ValueError("its entry describes no strided tensor")
    number = meta.get("dtype")
    dtype = SCALAR_TYPES.get(number) if type(number) is int else None
    spec = spec_from(name, dtype or f"number {number}", _integers(meta.get("sizes")))
    strides = counts_from(_integers(meta.get("strides")))
    (skipped,) = counts_from(_integers([meta.get("storage_offset")]))
    if len(strides) != len(spec.shape):
        raise ValueError(f"{len(strides)} strides for {len(spec.shape)} sizes")
    offset, size = payload(entry.get("path_name"))
    needed = (skipped + span_of(spec.shape, strides)) * ITEM_SIZES[spec.dtype]
    if needed > size:
        raise ValueError(f"its payload has {counted(size, 'byte')}, and its tensor takes {needed:,}")
    by_row = math.prod(spec.shape) == 0 or _lies_by_row(spec, strides)
    return Place(spec, offset + skipped * ITEM_SIZES[spec.dtype], None if by_row else strides)


def _require_moderate(file: RegularFile, places: Sequence[Place]) -> None:
    """Bound what ingesting takes: the disk by what the tensors hold, the time by what they span as well."""
    held = {place.spec.name: max(byte_length(place.spec), _spanned(place)) for place in places}
    if sum(held.values()) > _COPIES_LIMIT * max(file.size, _SMALL):
        name = max(held, key=lambda name: held[name])
        raise damaged(
            file.path,
            f"its tensors are many times larger than the file: {sum(held.values()):,} bytes in {file.size:,}",
            [f"tensor {name[:100]!a}: holds or spans {counted(held[name], 'byte')}"],
        )


def _spanned(place: Place) -> int:
    """Bytes from the tensor's first element to its last."""
    strides = place.strides
    return 0 if strides is None else span_of(place.spec.shape, strides) * ITEM_SIZES[place.spec.dtype]


def _integers(value: object) -> object:
    """What the schema writes as ``[{"as_int": 3}, ...]``; anything else is left for others to refuse."""
    if not isinstance(value, list):
        return value
    return [
        item["as_int"] if isinstance(item, Mapping) and item.keys() == {"as_int"} else item for item in value
    ]


def _lies_by_row(spec: TensorSpec, strides: tuple[int, ...]) -> bool:
    expected = 1
    for n, stride in zip(reversed(spec.shape), reversed(strides), strict=True):
        if n != 1 and stride != expected:
            return False
        expected *= n
    return True
