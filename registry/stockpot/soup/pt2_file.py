"""The weights inside a ``torch.export`` archive (``.pt2``), read without torch's loader, which unpickles.

The archive is a zip of uncompressed members. ``<root>/data/weights/<model>_weights_config.json`` maps
each name to a payload beside it: the raw bytes of a storage, which several tensors may share. See
``torch/export/pt2_archive/_package.py`` and ``torch/_export/serde/schema.py`` (schema version 8).
Constants and buffers that are not persistent lie elsewhere and are no part of a state dict.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from stockpot.soup import strict_json
from stockpot.soup.strided import require_moderate, strided_place
from stockpot.soup.weights_file import Place, WeightsFile, collect_places, damaged, open_regular, spec_from
from stockpot.soup.zip_members import ZipMembers

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


@contextmanager
def open_pt2(path: Path) -> Iterator[WeightsFile]:
    """Open the state dict of a torch.export archive.

    Raises BadCheckpoint naming every fault that can be told from the others.
    """
    with open_regular(path) as file:
        members = ZipMembers(file)
        folder, config = _read_config(members)
        if any(
            isinstance(entry, Mapping) and entry.get("use_pickle") is not False for entry in config.values()
        ):
            raise damaged(
                path, "its weights are pickled, and pickles are never opened", mend=f"use {HOW_TO_LOG}"
            )
        payloads = partial(_payload, members, folder)
        places = collect_places(path, config, lambda name, entry: _place(name, entry, payloads))
        require_moderate(file, places)
        members.require_whole(
            (folder + entry["path_name"] for entry in config.values()), mend=f"use {HOW_TO_LOG}"
        )
        yield WeightsFile(file, places)


def _read_config(members: ZipMembers) -> tuple[str, dict[str, Any]]:
    path = members.file.path
    found = [match for name in members.names if (match := _CONFIG.fullmatch(name))]
    if len(found) != 1:
        raise damaged(
            path,
            f"holds {len(found)} tables of weights instead of one: no torch.export archive of one model, "
            "or one by an older torch, which pickles weights",
            mend=f"with a torch of today, use {HOW_TO_LOG}",
        )
    name, folder = found[0].group(0), found[0].group(1)
    try:
        document = strict_json.parse(members.read(name, strict_json.LIMIT))
        byte_order = members.read(folder.split("/", 1)[0] + "/byteorder", len("little"))
    except ValueError as error:
        raise damaged(path, f"{name}: {error}") from error
    config = document.get("config")
    if not isinstance(config, dict) or document.keys() != {"config"}:
        raise damaged(path, f"{name}: it has one key, config")
    if byte_order != b"little":
        raise damaged(path, "its byte order is not little-endian")
    return folder, config


def _payload(members: ZipMembers, folder: str, name: object) -> tuple[int, int]:
    if not isinstance(name, str) or not re.fullmatch(r"\w+", name, re.ASCII):
        raise ValueError(f"{str(name)[:100]!a} is no payload's name")
    return members.locate(folder + name)


def _place(name: str, entry: object, payload: Callable[[object], tuple[int, int]]) -> Place:
    meta = entry.get("tensor_meta") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(meta, Mapping) or meta.get("layout") != _STRIDED:
        raise ValueError("its entry describes no strided tensor")
    number = meta.get("dtype")
    dtype = SCALAR_TYPES.get(number) if type(number) is int else None
    spec = spec_from(name, dtype or f"number {number}", _integers(meta.get("sizes")))
    skipped, strides = _integer(meta.get("storage_offset")), _integers(meta.get("strides"))
    return strided_place(spec, skipped, strides, payload(entry.get("path_name")))


def _integers(value: object) -> object:
    """What the schema writes as ``[{"as_int": 3}, ...]``; anything else is left for others to refuse."""
    return list(map(_integer, value)) if isinstance(value, list) else value


def _integer(item: object) -> object:
    return item["as_int"] if isinstance(item, Mapping) and item.keys() == {"as_int"} else item
