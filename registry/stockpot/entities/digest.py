"""Digests: the names of checkpoints, recipes, protocols and datasets."""

import hashlib
import json
from pathlib import Path
from typing import NewType

Digest = NewType("Digest", str)
"""``sha256:`` followed by 64 lower-case hexadecimal digits."""


def digest_of_bytes(content: bytes) -> Digest:
    """Name some bytes by their SHA-256."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def digest_of_file(path: Path) -> Digest:
    """Name a file by the SHA-256 of its content. Raises OSError."""
    with path.open("rb") as file:
        return Digest(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")


def digest_of_document(document: object) -> Digest:
    """Name a JSON document by the SHA-256 of its canonical form.

    Canonical: sorted keys, no white space, ASCII. A float is written in its shortest exact
    form. NaN and infinities have no canonical form and raise ValueError.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return digest_of_bytes(text.encode("ascii"))


def short(digest: Digest) -> str:
    """The first 12 hexadecimal digits: for people, never for look-ups."""
    return digest.removeprefix("sha256:")[:12]
