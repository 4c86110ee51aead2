"""JSON from strangers: one meaning, or none."""

import json
from collections import Counter


def parse(content: bytes | bytearray) -> dict[str, object]:
    """Read a JSON object from UTF-8 bytes.

    Raises ValueError for what the standard library lets pass (a key given twice, NaN, white space
    before the document) and for everything that it refuses, deep nesting included.
    """
    if not content.startswith(b"{"):
        raise ValueError("it does not begin with {")
    try:
        document: dict[str, object] = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return document


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:100]!a} is given twice")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
