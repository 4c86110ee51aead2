"""Whether runs number their tokens and classes alike: rows of an embedding or a head that mean other things
have no average, whatever their shapes.

Told from the small files beside the weights, each of which is read once.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from stockpot.entities import (
    CONFIG,
    MOST_BYTES,
    Digest,
    WeightsSource,
    digest_of_bytes,
    digest_of_document,
)
from stockpot.errors import BadCheckpoint
from stockpot.prose import listed
from stockpot.soup import strict_json
from stockpot.workflow.gathering.places import Places, files_beside, read_small

if TYPE_CHECKING:
    from stockpot.ports import Tracker

NAMED = 3
"""Tokens, or classes, that a message names."""
MOST_KEPT = 16
"""Different tables that are kept whole, for messages: of others, only that they differ is known."""
MARKS = 3_000_000
"""Parts of a JSON file, as `strict_json` counts them, and lines of another: 256,000 words and 500,000 merges
have two million.
"""
_PARSING = Lock()
"""One file at a time. Most runs logged the same one: whoever waited finds it parsed."""
_BINARY = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model")
_ADDED = "added_tokens.json"
_Parse = Callable[..., Mapping[str, Any]]
"""Takes the name of the first file, and the content of each."""
_UNLIKE = (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError)
"""Raised of a file that is not what its name says: it tells nothing."""
_UNNAMED = "LABEL_"
"""What transformers calls a class that nobody named."""


@dataclass(frozen=True)
class Numbering:
    """What has which number, of one kind of thing."""

    digest: Digest
    numbers: Mapping[str, int | str]
    """Empty where too many others are kept."""

    def differences(self, other: "Numbering", kind: str, mine: str, others: str) -> str:
        """Some of what has other numbers, for people. `mine`, `others`: names of the runs."""
        if not self.numbers or not other.numbers:
            return f"another set of {kind}s"
        told = []
        for name in sorted(self.numbers.keys() | other.numbers.keys()):
            one, two = (of.numbers.get(name) for of in (self, other))
            if one != two:
                shown = name if kind == "class" else repr(name[:100])
                told.append(
                    f"{kind} {shown} is {_shown(one)} in run {mine} and {_shown(two)} in run {others}"
                )
        return listed(told, NAMED, between="; ")


class Numberings:
    """What runs logged of their tokens and classes: read once for each run, kept once for each content."""

    def __init__(self, tracker: "Tracker") -> None:
        self._files = Places(tracker)
        self._parsed: dict[tuple[str, ...], Mapping[str, Numbering]] = {}
        self._found: dict[tuple[str, int | None], Mapping[str, Numbering]] = {}

    def of(self, source: WeightsSource) -> Mapping[str, Numbering]:
        """By kind: ``token``, ``merge``, ``class`` and ``file``. Empty where nothing readable tells."""
        key = source.key, source.run_ended
        if key not in self._found:
            self._found[key] = dict(self._read(source))
        return self._found[key]

    def _read(self, source: WeightsSource) -> Iterator[tuple[str, Numbering]]:
        try:
            files = files_beside(source, self._files)
            for names, parse in _readers(files):
                texts = [read_small(files[name], self._files, MOST_BYTES) for name in names]
                read = [text for text in texts if text is not None]
                if len(read) == len(names):
                    yield from self._numbered(names[0], read, parse).items()
        except BadCheckpoint:  # of files beside the weights, which say nothing then
            return

    def _numbered(self, name: str, texts: Sequence[bytes], parse: _Parse) -> Mapping[str, Numbering]:
        key = name, *map(digest_of_bytes, texts)
        with _PARSING:
            if key not in self._parsed:
                self._parsed[key] = self._tables(name, texts, parse)
            return self._parsed[key]

    def _tables(self, name: str, texts: Sequence[bytes], parse: _Parse) -> Mapping[str, Numbering]:
        try:
            found = parse(name, *texts)
        except _UNLIKE:
            return {}
        full = len(self._parsed) >= MOST_KEPT
        return {
            kind: Numbering(digest_of_document(sorted(table.items())), {} if full else table)
            for kind, table in found.items()
            if table
        }


def _shown(number: int | str | None) -> str:
    return "missing" if number is None else repr(number)[:100]


def _readers(files: Mapping[str, WeightsSource]) -> Iterator[tuple[tuple[str, ...], _Parse]]:
    """The files that tell something, together where one adds to the other, each with what makes tables of
    them, by kind.
    """
    if CONFIG in files:
        yield (CONFIG,), _classes
    if "tokenizer.json" in files:
        yield ("tokenizer.json",), _whole_tokenizer
        return
    added = (_ADDED,) if _ADDED in files else ()
    tables: dict[tuple[str, ...], _Parse] = {("vocab.txt", *added): _lines, ("vocab.json", *added): _words}
    tables |= {("merges.txt",): _merges} | {(name,): _bytes for name in _BINARY}
    yield from ((names, parse) for names, parse in tables.items() if names[0] in files)


def _document(text: bytes) -> Any:
    """As the libraries read it, which take Infinity and a key given twice."""
    strict_json.require_small(text, MOST_BYTES, MARKS)
    return json.loads(text)


def _lines_of(text: bytes) -> list[str]:
    if text.count(b"\n") > MARKS:
        raise ValueError(f"it has more than {MARKS} lines")
    return [line.rstrip("\r") for line in text.decode(errors="replace").rstrip("\n").split("\n")]


def _classes(_: str, text: bytes) -> Mapping[str, Any]:
    labels = {str(int(number)): str(label) for number, label in _document(text).get("id2label", {}).items()}
    return {} if all(label.startswith(_UNNAMED) for label in labels.values()) else {"class": labels}


def _whole_tokenizer(_: str, text: bytes) -> Mapping[str, Any]:
    document = _document(text)
    model = document["model"]
    words = model.get("vocab") or {}
    if isinstance(words, list):  # of Unigram: each with its score, numbered in order
        words = {str(word): number for number, (word, _) in enumerate(words)}
    tokens = {str(word): int(number) for word, number in words.items()}
    tokens |= {str(added["content"]): int(added["id"]) for added in document.get("added_tokens") or ()}
    merges = [m if isinstance(m, str) else " ".join(map(str, m)) for m in model.get("merges") or ()]
    return {"token": tokens, "merge": {merge: place for place, merge in enumerate(merges)}}


def _words(_: str, text: bytes, added: bytes = b"{}") -> Mapping[str, Any]:
    return {"token": _numbers(text) | _numbers(added)}


def _lines(_: str, text: bytes, added: bytes = b"{}") -> Mapping[str, Any]:
    return {"token": {line: number for number, line in enumerate(_lines_of(text))} | _numbers(added)}


def _numbers(text: bytes) -> dict[str, int]:
    return {str(word): int(number) for word, number in _document(text).items()}


def _merges(_: str, text: bytes) -> Mapping[str, Any]:
    merges = [line for line in _lines_of(text) if not line.startswith("#version")]
    return {"merge": {merge: place for place, merge in enumerate(merges)}}


def _bytes(name: str, text: bytes) -> Mapping[str, Any]:
    return {"file": {name: digest_of_bytes(text)}}
