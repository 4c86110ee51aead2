"""Weights that were cut into several files, beside an index that tells which tensor lies in which.

The form of Hugging Face's ``save_pretrained``: ``model-00001-of-00002.safetensors`` and so on, and
``model.safetensors.index.json`` with ``{"metadata": {...}, "weight_map": {tensor: file}}``.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import TensorSpec
from stockpot.soup import strict_json
from stockpot.soup.weights_file import RegularFile, WeightsFile, damaged, open_regular

if TYPE_CHECKING:
    from torch import Tensor

INDEX_SUFFIX = ".index.json"
"""What the name of an index ends in."""
MOST_SHARDS = 1000
"""Files that are open at once."""

_MEND = "log the whole folder again, as save_pretrained writes it"


class ShardedFile:
    """The tensors of all files that an index names: what `WeightsFile` is of one file."""

    def __init__(self, index: RegularFile, shards: Mapping[str, WeightsFile]) -> None:
        self._index = index
        self._shards = [shards[name] for name in sorted(shards)]
        self._homes = {spec.name: shard for shard in self._shards for spec in shard.tensors}

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """What the files hold together, by name."""
        specs = (spec for shard in self._shards for spec in shard.tensors)
        return tuple(sorted(specs, key=lambda spec: spec.name))

    def read(self, name: str) -> "Tensor":
        """As `WeightsFile.read`."""
        return self._homes[name].read(name)

    def pieces(self, name: str) -> Iterator[memoryview]:
        """As `WeightsFile.pieces`."""
        return self._homes[name].pieces(name)

    def sha256(self) -> str:
        """Of the index's bytes and then those of the files by name, in hexadecimal digits."""
        sha256 = hashlib.sha256()
        for file in (self._index, *(shard.file for shard in self._shards)):
            for piece in file.pieces(0, file.size):
                sha256.update(piece)
        return sha256.hexdigest()


@contextmanager
def open_sharded(
    path: Path, open_shard: Callable[[Path], AbstractContextManager[WeightsFile]]
) -> Iterator[ShardedFile]:
    """Open an index and all files that it names, which lie beside it.

    Raises BadCheckpoint naming every fault of the index, and what `open_shard` raises.
    """
    if not path.exists():
        raise _no_index(path)
    with ExitStack() as stack:
        index = stack.enter_context(open_regular(path))
        content = index.read(0, min(index.size, strict_json.LIMIT + 1))  # a longer one is refused unread
        here = [path.parent / name for name in sorted(set(_weight_map(path, content).values()))]
        shards = {file.name: stack.enter_context(open_shard(file)) for file in here if file.exists()}
        require_true(path, content, {name: shard.tensors for name, shard in shards.items()})
        yield ShardedFile(index, shards)


def require_true(path: Path, content: bytes | bytearray, shards: Mapping[str, Sequence[TensorSpec]]) -> None:
    """Raise BadCheckpoint, with every fault, unless the index tells what these files hold, each once.

    `content`: the index's. `shards`: what each file beside it holds.
    """
    if not content:
        raise _no_index(path)
    weight_map = _weight_map(path, content)
    faults = [f"{name} is missing" for name in sorted(set(weight_map.values()) - shards.keys())]
    faults += [f"{name} is not in the index" for name in sorted(shards.keys() - weight_map.values())]
    held = {(name, spec.name) for name, specs in shards.items() for spec in specs}
    told = {(home, name) for name, home in weight_map.items()}
    faults += [f"{home} does not hold {name[:100]!a}" for home, name in sorted(told - held) if home in shards]
    faults += [
        f"{home} holds {name[:100]!a}, which the index places elsewhere"
        for home, name in sorted(held - told)
        if home in weight_map.values()
    ]
    if faults:
        raise damaged(path, "it does not tell what its files hold", faults, mend=_MEND)


def _no_index(path: Path) -> Exception:
    return damaged(path, "this index of the files that weights were cut into is missing", mend=_MEND)


def _weight_map(path: Path, content: bytes | bytearray) -> dict[str, str]:
    try:
        found = strict_json.parse(content).get("weight_map")
    except ValueError as error:
        raise damaged(path, f"it is no JSON: {error}", mend=_MEND) from error
    if not isinstance(found, dict) or not found:
        raise damaged(path, "it has no weight_map", mend=_MEND)
    faults = [
        f"{str(home)[:100]!a} is no file's name"
        for home in dict.fromkeys(map(str, found.values()))
        if not home.isprintable() or not home or "/" in home or "\\" in home or home in {".", ".."}
    ]
    homes = {name: str(home) for name, home in found.items()}
    if len(set(homes.values())) > MOST_SHARDS:
        faults.append(f"it names more than {MOST_SHARDS} files")
    if faults:
        raise damaged(path, "its weight_map is wrong", faults, mend=_MEND)
    return homes
