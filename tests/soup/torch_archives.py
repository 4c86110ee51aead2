"""Files as torch.save writes them, taken apart and put together again, and what happens while one is read."""

import codecs
import io
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from stockpot.errors import BadCheckpoint
from stockpot.soup import open_torch

WATCHED = (
    "import",
    "exec",
    "compile",
    "open",
    "os.",
    "subprocess.",
    "pickle.",
    "marshal.",
    "ctypes.",
    "socket.",
)
_seen: list[str] = []
_watching: list[Path] = []


def members_of(value: object) -> dict[str, bytes]:
    """The members of what torch.save writes, by name; the root is ``archive``."""
    stream = io.BytesIO()
    torch.save(value, stream)
    with zipfile.ZipFile(stream) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: Mapping[str, bytes]) -> bytes:
    """An archive of these members, which lie in it as they are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def with_pickle(path: Path, stream: bytes, value: object = None) -> Path:
    """A file with this pickle, and the storages of `value`."""
    path.write_bytes(packed(members_of(value) | {"archive/data.pkl": stream}))
    return path


def contents(path: Path) -> dict[str, torch.Tensor]:
    """All tensors in the file, as our reader reads them: each also in pieces, which are the same."""
    with open_torch(path) as weights:
        found = {spec.name: weights.read(spec.name) for spec in weights.tensors}
        for spec in weights.tensors:
            assert found[spec.name].shape == spec.shape
            whole = b"".join(bytes(piece) for piece in weights.pieces(spec.name))
            assert whole == raw(found[spec.name])
    return found


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor, row by row."""
    whole = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
    return whole.view(torch.uint8).numpy().tobytes()


def opened_or_refused(path: Path) -> bool:
    """Read the file while Python tells of all that it does. Whether it is a checkpoint."""
    with only_read(path):
        try:
            contents(path)
        except BadCheckpoint as error:
            assert error.mend  # noqa: PT017 - either outcome is right
            return False
        return True


@contextmanager
def only_read(path: Path) -> Iterator[None]:
    """Fail where anything but this file is opened, or anything is imported, compiled or started meanwhile."""
    _seen.clear()
    _watching.append(path)
    try:
        yield
    finally:
        _watching.clear()
    assert not _seen, _seen


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event.startswith(WATCHED):
        # A number is a descriptor that is open.
        if event == "open" and (isinstance(arguments[0], int) or arguments[0] == str(_watching[0])):
            return
        _seen.append(f"{event} {arguments!r}"[:200])


def _import_what_is_imported_late() -> None:
    codecs.lookup("cp437")  # zipfile's, of names of another day
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        torch.save({"a": torch.ones(4, 4).t()}, path)
        contents(path)
        path.write_bytes(b"")
        opened_or_refused(path)


_import_what_is_imported_late()
sys.addaudithook(_watch)
