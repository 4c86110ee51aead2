"""Checkpoints on the local disk, each in canonical form under the name of its digest."""

import hashlib
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import IO
from uuid import uuid4

from registry.entities import Checkpoint, Digest, TensorSpec, WeightsFormat
from registry.errors import BadCheckpoint, NotFinite, StockpotError
from registry.soup.canonical import FLOATS, byte_length, canonical_names, header_of, in_layout_order
from registry.soup.pt2_file import HOW_TO_LOG, open_pt2
from registry.soup.safetensors_file import open_safetensors
from registry.soup.weights_file import WeightsFile

_DIGEST = re.compile("sha256:([0-9a-f]{64})")


class CheckpointCache:
    """A folder of canonical checkpoint files, ``<64 hexadecimal digits>.safetensors``.

    Any number of processes may share it: a file appears whole or not at all, and all writers of one
    name write the same bytes.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def has(self, digest: Digest) -> bool:
        """Whether the checkpoint is here."""
        return self._path(digest).is_file()

    def path(self, digest: Digest) -> Path:
        """The checkpoint's file. Raises BadCheckpoint if it is not here."""
        path = self._path(digest)
        if not path.is_file():
            raise BadCheckpoint(
                f"checkpoint {digest} is not in the cache {self.folder}",
                mend="run the request again: it downloads what is missing",
            )
        return path

    def open(self, digest: Digest) -> AbstractContextManager[WeightsFile]:
        """The checkpoint's file, its header checked. Raises BadCheckpoint if it is not here."""
        return open_safetensors(self.path(digest))

    def checkpoint(self, digest: Digest) -> Checkpoint:
        """Describe a checkpoint that is here: reads its header and its integer tensors."""
        with self.open(digest) as weights:
            return Checkpoint(digest, weights.file.size, weights.tensors, exact_digest(weights))

    def ingest(self, file: Path, format: WeightsFormat) -> tuple[Checkpoint, str]:  # noqa: A002 - the field's name
        """Bring a weights file into the cache, in canonical form and in bounded memory.

        Returns the checkpoint, and the SHA-256 of the file as it was in hexadecimal digits. Raises
        NotFinite naming every tensor with NaN or infinity, BadCheckpoint for any other fault of the
        file, StockpotError where the disk fails. Then nothing is left behind.
        """
        with _open_weights(file, format) as weights, ThreadPoolExecutor(1) as beside:
            original = beside.submit(weights.file.sha256)
            names = canonical_names(weights.places)
            sources = {canonical: name for name, canonical in names.items()}
            tensors = in_layout_order(replace(spec, name=names[spec.name]) for spec in weights.tensors)
            parts = (piece for spec in tensors for piece in weights.pieces(sources[spec.name]))
            return self.write(tensors, parts, origin=str(file)), original.result()

    def write(self, tensors: Sequence[TensorSpec], parts: Iterable[memoryview], *, origin: str) -> Checkpoint:
        """Write a checkpoint from its data, cut anywhere between two elements.

        `tensors` and `parts` come in layout order; each part is done with before the next is asked
        for. `origin` names the data in errors. Raises NotFinite and StockpotError, as `ingest` does.
        """
        header = header_of(tensors)
        sha256 = hashlib.sha256(header)
        try:
            with self._temporary() as (stream, temporary), ThreadPoolExecutor(1) as beside:
                stream.write(header)
                for part in _finite(parts, tensors, origin):
                    hashed = beside.submit(sha256.update, part)
                    stream.write(part)
                    hashed.result()
                stream.flush()
                os.fsync(stream.fileno())
                digest = Digest(f"sha256:{sha256.hexdigest()}")
                temporary.replace(self._path(digest))
        except OSError as error:
            raise StockpotError(
                f"{self.folder}: cannot write a checkpoint: {error}",
                mend="free some space on this disk, or choose another folder for the cache",
            ) from error
        return self.checkpoint(digest)

    @contextmanager
    def _temporary(self) -> Iterator[tuple[IO[bytes], Path]]:
        # In the same folder, so that the move at the end is one atomic step.
        path = self.folder / f".writing-{uuid4().hex}"
        try:
            with path.open("xb") as stream:
                yield stream, path
        finally:
            path.unlink(missing_ok=True)

    def _path(self, digest: Digest) -> Path:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise BadCheckpoint(
                f"{digest[:100]!a} is no digest", mend="give sha256: and 64 hexadecimal digits"
            )
        return self.folder / f"{match.group(1)}.safetensors"


def exact_digest(weights: WeightsFile) -> Digest:
    """Name what must agree in all ingredients: layout and bytes of the integer and boolean tensors."""
    tensors = [spec for spec in weights.tensors if spec.dtype not in FLOATS]
    layout = json.dumps([[spec.name, spec.dtype, spec.shape] for spec in tensors])
    sha256 = hashlib.sha256(layout.encode())
    for spec in tensors:
        for piece in weights.pieces(spec.name):
            sha256.update(piece)
    return Digest(f"sha256:{sha256.hexdigest()}")


def _open_weights(path: Path, format: WeightsFormat) -> AbstractContextManager[WeightsFile]:  # noqa: A002 - as above
    if format is WeightsFormat.SAFETENSORS:
        return open_safetensors(path)
    if format is WeightsFormat.PT2:
        return open_pt2(path)
    raise BadCheckpoint(f"{path}: pickles are never opened", mend=f"log the model with {HOW_TO_LOG}")


def _finite(parts: Iterable[memoryview], tensors: Sequence[TensorSpec], origin: str) -> Iterator[memoryview]:
    """Pass the parts on. Raises NotFinite at the end, when all offending tensors are known."""
    from registry.soup.arithmetic import holds_finite

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
            f"{origin}: NaN or infinity in {len(offenders)} of {len(tensors)} tensors",
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
