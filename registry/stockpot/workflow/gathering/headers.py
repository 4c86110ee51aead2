"""The tensors of weights that were not downloaded, from their headers."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import TensorSpec, WeightsFormat, WeightsSource
from stockpot.soup import Head, canonical_tensors, require_archive, require_true
from stockpot.soup.torch_file import BEGINNING

if TYPE_CHECKING:
    from stockpot.workflow.gathering.places import Files

FIRST = 1 << 16
"""Bytes asked for at first: most headers are shorter."""
MOST = 1 << 24
"""A header that is longer is refused."""


def layout_of(source: WeightsSource, files: "Files") -> tuple[TensorSpec, ...] | None:
    """The tensors under canonical names, from the headers alone.

    None where those cannot be had. Raises BadCheckpoint for a file that its header or its size shows to be
    bad, and for an index that does not tell what its files hold: they are not downloaded.
    """
    found = _cut_tensors(source, files) if source.parts else tensors_of(source, files)
    return None if found is None else canonical_tensors(found)


def _cut_tensors(source: WeightsSource, files: "Files") -> tuple[TensorSpec, ...] | None:
    """Those of all files together, once the index was read."""
    parts = {part.name: source.beside(part) for part in source.parts}
    index = parts.pop(source.path.rpartition("/")[2], None)
    content = b"" if index is None else files.head(index, MOST)
    held = {name: tensors_of(part, files) for name, part in parts.items()}
    known = {name: tensors for name, tensors in held.items() if tensors is not None}
    if content is None or len(known) < len(held):
        return None
    require_true(Path(source.path), content, known)
    return tuple(tensor for tensors in known.values() for tensor in tensors)


def tensors_of(source: WeightsSource, files: "Files") -> tuple[TensorSpec, ...] | None:
    """Those of one file, under its own names, as `layout_of`."""
    if source.format is WeightsFormat.TORCH and (beginning := files.head(source, BEGINNING)) is not None:
        require_archive(Path(source.path), beginning)
    if source.format is not WeightsFormat.SAFETENSORS or source.size is None:
        return None
    head = _head(source, source.size, FIRST, files)
    if head is not None and FIRST < head.header_end <= min(MOST, source.size):
        head = _head(source, source.size, head.header_end, files)
    if head is None or len(head.content) < head.header_end <= source.size:
        return None
    return head.tensors()


def _head(source: WeightsSource, size: int, length: int, files: "Files") -> Head | None:
    content = files.head(replace(source, size=size), length)
    return None if content is None else Head(Path(source.path), size, content)
