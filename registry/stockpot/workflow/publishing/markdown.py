"""Text that strangers have a hand in, on pages that show Markdown: names of runs, splits and files, errors.

Everything that is put into a description or an artifact goes through here. What comes out is shown as it was
written, in one line: it makes no link, image, heading, emphasis, table cell or HTML, whatever it holds.
"""

import re
import unicodedata

MOST = 80
"""Characters that are shown of a name."""
_NUMBERED = "|".join(rf"(?<=^\d{{{digits}}})" for digits in range(1, 10))  # what CommonMark makes a list of
_MARKS = re.compile(
    r"[\\`*_{}\[\]#|~$]"  # emphasis, code, links, images, headings, cells, formulas
    r"|:(?=//)|(?<=www)\.|@(?=\w)"  # bare addresses, which many dialects make links of
    rf"|^[-+=](?=[\s=-]|$)|(?:{_NUMBERED})[.)](?=\s|$)"  # lists, and underlines of a heading
)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def shown(text: str, most: int = MOST) -> str:
    """The text for a page, at most so many of its characters."""
    return "".join(_ENTITIES.get(mark, mark) for mark in _MARKS.sub(r"\\\g<0>", folded(text, most)))


def folded(text: str, most: int = MOST) -> str:
    """In one line: white space is one space, what cannot be seen is left out, what is too long is cut."""
    # What cannot be seen goes first: a space behind it would open the line, and what follows could be a list.
    line = " ".join("".join(c for c in text if c.isspace() or _can_be_seen(c)).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _can_be_seen(character: str) -> bool:
    """Neither a control nor a mark that turns the line round (Unicode's categories C...)."""
    return unicodedata.category(character)[0] != "C"
