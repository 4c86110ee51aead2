"""JSON from strangers: one meaning, or none."""

import json
import re
from collections import Counter
from threading import Lock

LIMIT = 16 << 20
"""Bytes of a document: some 100,000 tensors. Readers refuse longer ones before they read them."""
MARKS = 1_500_000
"""Commas, colons and brackets of a document: what it makes in memory grows with them, to 70 bytes each."""

_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
_PARSING = Lock()
"""One document at a time: several threads together would need several times the memory."""


def require_small(content: bytes | bytearray, limit: int, marks: int) -> None:
    """Raise ValueError for a document of more bytes than `limit`, or of more commas, colons and brackets than
    `marks`.
    """
    if len(content) > limit or sum(map(content.count, (b",", b":", b"[", b"{"))) > marks:
        raise ValueError(f"it is too large: the limits are {limit} bytes and {marks} parts")


def parse(content: bytes | bytearray) -> dict[str, object]:
    """Read a JSON object from UTF-8 bytes.

    Raises ValueError for what the standard library lets pass (a key given twice, NaN, -0, half of a
    surrogate pair, white space before the document), for everything that it refuses, deep nesting included,
    and before it is parsed for a document that would take much memory.
    """
    if not content.startswith(b"{"):
        raise ValueError("it does not begin with {")
    require_small(content, LIMIT, MARKS)
    with _PARSING:
        return _parsed(content.decode("utf-8"))


def _parsed(text: str) -> dict[str, object]:
    if any(match[1] for match in _ESCAPE.finditer(text)):
        raise ValueError("it holds half of a surrogate pair, which is no character")
    try:
        document: dict[str, object] = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_integer
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return document


def _integer(digits: str) -> int:
    if digits == "-0":
        raise ValueError("-0 is no count")
    return int(digits)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:100]!a} is given twice")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
