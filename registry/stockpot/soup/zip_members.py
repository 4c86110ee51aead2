"""The directory of a zip archive whose members lie in it as they are, read strictly and in bounded memory."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from stockpot.soup.disk_faults import is_the_machines, unreadable
from stockpot.soup.weights_file import RegularFile, damaged

_DIRECTORY_LIMIT = 16 << 20  # bytes: some 200,000 members
_LOCAL_HEADER = struct.Struct("<4s2xH18xHH")
"""Signature, flags, lengths of name and extra field (APPNOTE 4.3.7)."""
_ALTERED = 1 << 0 | 1 << 5 | 1 << 6
"""Flags of members that are encrypted, patched, or strongly encrypted (APPNOTE 4.4.4)."""


class ZipMembers:
    """The members of an open archive, by name.

    Raises BadCheckpoint for what is no zip archive, and StockpotError where the machine cannot read it.
    """

    def __init__(self, file: RegularFile) -> None:
        self.file = file
        self._members = _directory(file)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in the directory's order."""
        return tuple(self._members)

    def locate(self, name: str) -> tuple[int, int]:
        """Offset and size of a member's bytes. Raises ValueError unless they lie there as they are."""
        member = self._members.get(name)
        if member is None:
            raise ValueError(f"there is no member {name[:200]!a}")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise ValueError(f"member {name[:200]!a} is compressed, which torch never does")
        fixed = _LOCAL_HEADER.size
        local = self.file.read(member.header_offset, fixed)
        signature, flags, name_length, extra_length = _LOCAL_HEADER.unpack(local)
        if (member.flag_bits | flags) & _ALTERED:
            raise ValueError(f"member {name[:200]!a} is encrypted, or a patch of other data")
        offset = member.header_offset + fixed + name_length + extra_length
        local_name = self.file.read(member.header_offset + fixed, name_length)
        moved = signature != b"PK\x03\x04" or local_name != name.encode()
        if moved or offset + member.file_size > self.file.size:
            raise ValueError(f"member {name[:200]!a} is not where the directory says")
        return offset, member.file_size

    def read(self, name: str, limit: int) -> bytearray:
        """A member's bytes. Raises ValueError where they are more than the limit, or changed on the way."""
        offset, size = self.locate(name)
        if size > limit:
            raise ValueError(f"member {name[:200]!a} has {size:,} bytes, more than the limit of {limit:,}")
        content = self.file.read(offset, size)
        if zlib.crc32(content) != self._members[name].CRC:
            raise ValueError(_changed(name))
        return content

    def require_whole(self, names: Iterable[str], mend: str) -> None:
        """Hold these members against their CRC, by two threads: what changed on the way is not averaged.

        Raises BadCheckpoint naming every one that changed.
        """
        asked = list(dict.fromkeys(names))
        with ThreadPoolExecutor(2) as pool:
            whole = zip(asked, pool.map(self._is_whole, asked), strict=True)
            faults = [_changed(name) for name, is_whole in whole if not is_whole]
        if faults:
            raise damaged(self.file.path, "its weights are damaged", faults, mend=mend)

    def _is_whole(self, name: str) -> bool:
        offset, size = self.locate(name)
        crc = 0
        for piece in self.file.pieces(offset, offset + size):
            crc = zlib.crc32(piece, crc)
        return crc == self._members[name].CRC


class _CautiousFile(io.FileIO):
    """What zipfile reads the directory through: never more than a directory's worth at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if (left if size is None or size < 0 else min(size, left)) > _DIRECTORY_LIMIT:
            raise zipfile.BadZipFile("its directory is too large")
        return super().read(size) or b""


def _directory(file: RegularFile) -> dict[str, zipfile.ZipInfo]:
    try:
        with (
            _CautiousFile(os.dup(file.descriptor)) as stream,
            zipfile.ZipFile(stream) as archive,
        ):
            found = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OSError) as error:
        if isinstance(error, OSError) and is_the_machines(error):
            raise unreadable(file.path, error) from error
        raise damaged(file.path, f"is no zip archive, or a truncated one: {error}") from error
    members = {member.filename: member for member in found}
    if len(members) < len(found):
        raise damaged(file.path, "its directory names a member twice")
    return members


def _changed(name: str) -> str:
    return f"member {name[:200]!a} is damaged: it has another CRC than the directory says"
