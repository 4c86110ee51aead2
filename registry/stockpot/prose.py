"""Words for people, on terminals and in logs."""

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches

_CONTROLS = (
    *range(0x20),
    *range(0x7F, 0xA0),
    *(0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)),  # ends of lines, and directions
    *range(0xD800, 0xE000),  # half characters, which no terminal can be sent
)
_ESCAPES = {number: ascii(chr(number))[1:-1] for number in _CONTROLS}


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun: 1 run, 2 runs, 3,000 passes."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def listed(names: Sequence[str], most: int = 8, *, between: str = ", ") -> str:
    """Names with commas between them: of very many, the first few and the number of the others."""
    rest = len(names) - most
    more = f"{between.rstrip(', ')} and {rest:,} more" if rest > 0 else ""
    return between.join(names[:most]) + more


def near(name: str, known: Collection[str]) -> str:
    """Behind a name that nobody knows: which one may be meant; empty where none is near."""
    close = get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]}?" if close else ""


def minute(seconds: float) -> str:
    """A moment, in seconds since the epoch, for people: in UTC, wherever they are."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def size(number: int) -> str:
    """A number of bytes: 12 bytes, 3.4 kB, 5.6 GB."""
    for place, unit in enumerate(("TB", "GB", "MB", "kB")):
        if number >= 1000 ** (4 - place):
            return f"{number / 1000 ** (4 - place):,.1f} {unit}"
    return counted(number, "byte")


def can_be_kept(text: str) -> bool:
    """Whether a database takes it: none takes half a character, and PostgreSQL no NUL."""
    return re.search("[\0\ud800-\udfff]", text) is None


def one_line(text: str) -> str:
    """Text that strangers have a hand in, such as the names of runs, for a terminal or a log.

    Characters that would end the line, turn it round, move the cursor or change colours are shown by their
    escapes.
    """
    return text.translate(_ESCAPES)


def visible(text: str) -> str:
    """The same for text that may have several lines, such as an error's, and lines that tabs indent."""
    return "\n".join(map(one_line, text.replace("\t", "  ").split("\n")))
