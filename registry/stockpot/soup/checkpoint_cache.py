"""Checkpoints on the local disk, each in canonical form under the name of its digest."""

import hashlib
import json
import os
import re
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path

from stockpot.entities import Checkpoint, Digest, TensorSpec, WeightsFormat
from stockpot.errors import Altered, BadCheckpoint, NotCached, NotFinite, Pickled, StockpotError
from stockpot.prose import counted
from stockpot.soup import stamp
from stockpot.soup.canonical import FLOATS, byte_length, canonical_names, header_of, in_layout_order
from stockpot.soup.casting import CastFile
from stockpot.soup.compatibility import must_agree
from stockpot.soup.disk_faults import disk_fault
from stockpot.soup.eviction import LeastRecentlyUsed
from stockpot.soup.pt2_file import open_pt2
from stockpot.soup.safetensors_file import open_safetensors, parsed
from stockpot.soup.sharded_file import INDEX_SUFFIX, ShardedFile, open_sharded
from stockpot.soup.torch_file import CONVERSION, open_torch
from stockpot.soup.weights_file import RegularFile, WeightsFile
from stockpot.soup.whole_file import UnfinishedFile, remove_leftovers, writing

_SUFFIX = ".safetensors"
_DIGEST = re.compile("sha256:([0-9a-f]{64})")


class CheckpointCache:
    """A folder of canonical checkpoint files, ``<64 hexadecimal digits>.safetensors``, each with a stamp.

    Any number of processes may share it: a file appears whole or not at all, and all writers of one
    name write the same bytes. A file that no longer looks as it did when it was written (`stamp` says
    what that can tell) is hashed before it is used; one whose bytes are wrong is removed.

    Beyond `limit` bytes the least recently used files are removed when another is written: never that
    one, nor one that is open or pinned in this process. A limit below what is pinned together, such as the
    ingredients of one recipe, is overrun.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._shelf = files_of(folder, limit)
        remove_leftovers(folder)

    def has(self, digest: Digest) -> bool:
        """Whether the checkpoint is here, its bytes unseen. It may be evicted before it is opened."""
        return self._path(digest).is_file()

    def path(self, digest: Digest) -> Path:
        """The checkpoint's file, which is there until it is evicted. Raises what `open` raises."""
        with self.open(digest):
            return self._path(digest)

    @contextmanager
    def open(self, digest: Digest) -> Iterator[WeightsFile]:
        """The checkpoint's file, unaltered, its header checked; not evicted meanwhile.

        Raises NotCached if it is not here, Altered if it was altered on disk: then it is removed.
        """
        path = self._path(digest)
        with self._shelf.pinned([path]), ExitStack() as stack:
            try:
                weights = stack.enter_context(open_safetensors(path))
            except StockpotError as error:
                # By now another process may have brought it back.
                if isinstance(error.__cause__, FileNotFoundError) or not path.exists():
                    raise self._missing(digest) from error
                if isinstance(error, BadCheckpoint):
                    raise self.altered({digest: error.what}) from error
                raise
            self._prove(weights.file, digest)
            self._shelf.touch(path)
            yield weights

    def link(self, digest: Digest, file: Path) -> None:
        """Give the checkpoint a second name, in a folder of this disk, where nobody evicts it.

        Where the file system has no links, that is a copy. Raises what `open` raises, and StockpotError where
        the disk fails.
        """
        with self.open(digest):
            try:
                with stamp.kept(self._path(digest)):
                    _link(self._path(digest), file)
            except FileNotFoundError as error:  # another process has evicted it
                raise self._missing(digest) from error
            except OSError as error:
                raise disk_fault(self.folder, error) from error

    def unlink(self, digest: Digest, file: Path) -> None:
        """Take that second name away. Raises StockpotError where the disk fails."""
        try:
            with stamp.kept(self._path(digest)):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise disk_fault(self.folder, error) from error

    @contextmanager
    def pinned(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Meanwhile this process evicts none of these, whether they are here yet or not."""
        with self._shelf.pinned(list(map(self._path, digests))):
            yield

    def altered(self, faults: Mapping[Digest, str]) -> Altered:
        """Remove these files, whose bytes are not those of their names, and say so."""
        for digest in faults:
            self._path(digest).unlink(missing_ok=True)
        return Altered(
            f"{self.folder}: altered on disk, and removed",
            faults=[f"{self._path(digest).name}: {digest}: {fault}" for digest, fault in faults.items()],
            mend="run the request again: it downloads what is missing. If it happens again, check the disk",
        )

    def _prove(self, file: RegularFile, digest: Digest) -> None:
        status = os.fstat(file.descriptor)
        if stamp.is_stamped(file.path, status):
            return
        found = f"sha256:{file.sha256()}"
        if found != digest:
            raise self.altered({digest: f"its bytes are {found}"})
        stamp.stamp(file.path, status)

    def checkpoint(self, digest: Digest) -> Checkpoint:
        """Describe a checkpoint that is here: reads its header and its integer tensors."""
        with self.open(digest) as weights:
            return _described(digest, weights)

    def ingest(self, file: Path, format: WeightsFormat) -> tuple[Checkpoint, str]:  # noqa: A002 - the field's name
        """Bring a weights file into the cache, in canonical form and in bounded memory; or the files that an
        index names, which lie beside it.

        Returns the checkpoint, and the SHA-256 of what was read in hexadecimal digits. Raises
        NotFinite naming every tensor with NaN or infinity, BadCheckpoint for any other fault of the
        file, StockpotError where the disk fails. Then nothing is left behind.
        """
        with _open_any(file, format) as weights:
            return self._ingest(weights, file)

    def ingest_cast(
        self,
        file: Path,
        format: WeightsFormat,  # noqa: A002 - as above
        code: str,
    ) -> tuple[Checkpoint, str, tuple[str, ...]]:
        """The same with all floating-point tensors in one dtype, named by its safetensors code.

        Returns besides the dtypes that were cast. Raises besides Incompatible, naming every tensor with
        numbers too large for the dtype.
        """
        with _open_any(file, format) as weights:
            cast = CastFile(weights, code)
            return *self._ingest(cast, file), cast.cast_from

    def _ingest(self, weights: WeightsFile | ShardedFile | CastFile, file: Path) -> tuple[Checkpoint, str]:
        with ThreadPoolExecutor(1) as beside:
            original = beside.submit(weights.sha256)
            names = canonical_names(spec.name for spec in weights.tensors)
            sources = {canonical: name for name, canonical in names.items()}
            tensors = in_layout_order(replace(spec, name=names[spec.name]) for spec in weights.tensors)
            pieces = (piece for spec in tensors for piece in weights.pieces(sources[spec.name]))
            parts = weights.with_room(pieces) if isinstance(weights, CastFile) else pieces
            return self.write(tensors, parts, origin=str(file)), original.result()

    def write(self, tensors: Sequence[TensorSpec], parts: Iterable[memoryview], *, origin: str) -> Checkpoint:
        """Write a checkpoint from its data, cut anywhere between two elements.

        `tensors` and `parts` come in layout order; each part is done with before the next is asked
        for. `origin` names the data in errors. Raises NotFinite and StockpotError, as `ingest` does.
        """
        header = header_of(tensors)
        sha256 = hashlib.sha256(header)
        with (
            self.draft(len(header) + sum(map(byte_length, tensors))) as file,
            ThreadPoolExecutor(1) as beside,
        ):
            file.put(header, 0)
            end = len(header)
            for part in _finite(parts, tensors, origin):
                hashed = beside.submit(sha256.update, part)
                file.put(part, end)
                hashed.result()
                end += len(part)
            return self.keep(file, Digest(f"sha256:{sha256.hexdigest()}"))

    @contextmanager
    def draft(self, size: int) -> Iterator[UnfinishedFile]:
        """A new file for a checkpoint of so many bytes; gone at the end unless it was kept.

        Raises StockpotError where the disk fails.
        """
        try:
            remove_leftovers(self.folder)
            self._shelf.evict(room=size)
            with writing(self.folder) as file:
                yield file
        except OSError as error:
            raise disk_fault(self.folder, error) from error

    def keep(self, file: UnfinishedFile, digest: Digest) -> Checkpoint:
        """Give a draft that holds this checkpoint its name, on the disk for good."""
        path = self._path(digest)
        # Of the open file: by its name, another process may have evicted it before we look.
        described = _described(digest, parsed(RegularFile(file.path, file.descriptor)))
        with self._shelf.pinned([path]):
            stamp.stamp(path, file.finish(path))
            self._shelf.evict(keep=path)
        return described

    def _missing(self, digest: Digest) -> NotCached:
        return NotCached(
            f"checkpoint {digest} is not in the cache {self.folder}",
            mend="run the request again: it downloads what is missing",
        )

    def _path(self, digest: Digest) -> Path:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise BadCheckpoint(
                f"{digest[:100]!a} is no digest", mend="give sha256: and 64 hexadecimal digits"
            )
        return self.folder / f"{match.group(1)}{_SUFFIX}"


def files_of(folder: Path, limit: int | None = None) -> LeastRecentlyUsed:
    """The files of the cache in this folder, which need not be there."""
    return LeastRecentlyUsed(folder, _SUFFIX, limit, beside=stamp.SUFFIX)


def _link(file: Path, other: Path) -> None:
    try:
        os.link(file, other)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(file, other)


def _described(digest: Digest, weights: WeightsFile) -> Checkpoint:
    return Checkpoint(digest, weights.file.size, weights.tensors, exact_digest(weights))


def exact_digest(weights: WeightsFile) -> Digest:
    """Name what must agree in all ingredients: layout and bytes of integer and boolean tensors."""
    tensors = must_agree(weights.tensors)
    layout = json.dumps([[spec.name, spec.dtype, spec.shape] for spec in tensors])
    sha256 = hashlib.sha256(layout.encode())
    for spec in tensors:
        for piece in weights.pieces(spec.name):
            sha256.update(piece)
    return Digest(f"sha256:{sha256.hexdigest()}")


def _open_any(
    path: Path,
    format: WeightsFormat,  # noqa: A002 - as above
) -> AbstractContextManager[WeightsFile | ShardedFile]:
    if path.name.endswith(INDEX_SUFFIX):
        return open_sharded(path, partial(open_weights, format=format))
    return open_weights(path, format)


def open_weights(path: Path, format: WeightsFormat) -> AbstractContextManager[WeightsFile]:  # noqa: A002 - as above
    """One file of any format. Raises BadCheckpoint, and Pickled for what only running it would give."""
    if format is WeightsFormat.SAFETENSORS:
        return open_safetensors(path)
    if format is WeightsFormat.PT2:
        return open_pt2(path)
    if format is WeightsFormat.TORCH:
        return open_torch(path)
    raise Pickled(f"{path}: pickles are never run", mend=CONVERSION)


def _finite(parts: Iterable[memoryview], tensors: Sequence[TensorSpec], origin: str) -> Iterator[memoryview]:
    """Pass the parts on. Raises NotFinite at the end, when all offending tensors are known."""
    from stockpot.soup.arithmetic import holds_finite

    ends = list(accumulate(map(byte_length, tensors)))
    offenders: dict[str, None] = {}  # in the order of the file
    begin = 0
    for part in parts:
        for tensor, piece in _by_tensor(part, begin, tensors, ends):
            if tensor.dtype in FLOATS and not holds_finite(piece, tensor.dtype):
                offenders[tensor.name] = None
        yield part
        begin += len(part)
    if offenders:
        raise NotFinite(
            f"{origin}: NaN or infinity in {len(offenders)} of {counted(len(tensors), 'tensor')}",
            faults=tuple(offenders),
            mend="leave it out: training diverged, or a value is too large for the dtype",
        )


def _by_tensor(
    part: memoryview, begin: int, tensors: Sequence[TensorSpec], ends: Sequence[int]
) -> Iterator[tuple[TensorSpec, memoryview]]:
    """Cut a part, which starts at this byte of the data, where one tensor ends and the next begins."""
    at, end, index = begin, begin + len(part), bisect_right(ends, begin)
    while at < end:
        stop = min(ends[index], end)
        if stop > at:
            yield tensors[index], part[at - begin : stop - begin]
        at, index = stop, index + 1
