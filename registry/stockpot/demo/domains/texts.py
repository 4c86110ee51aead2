"""Text that every machine with Python has, by kind: found, told apart, split by document, in one ``.npz``.

What is found differs from machine to machine, and with what is installed: so does every figure of the demo,
and `digest_of` names what they were measured on.
"""

import hashlib
import os
import re
import sysconfig
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from stockpot.errors import BadTask
from stockpot.prose import counted

SPLITS = ("validation", "test")
"""``validation`` selects, ``test`` reports. Both hold all domains, in documents that no run has seen."""
UNSEEN = "unseen"
"""A shifted split, of a domain that no run was trained on."""
LONGEST = 16_384
"""Bytes of a document that are used: no single one should be a domain."""


@dataclass(frozen=True)
class Source:
    """A document that can be read."""

    name: str
    """The same on every machine that has it."""
    read: Callable[[], bytes]


@dataclass(frozen=True)
class TextsConfig:
    """How much is taken of each domain."""

    validation: int = 40
    """Documents that select."""
    test: int = 48
    """Documents that report: 30 or more, or a domain has no verdict. As many of the unseen domain."""
    train: int = 150
    """Documents to train on, at most."""
    windows: int = 3
    """Examples of a document, spread over it; they form a group."""


def find_python() -> Iterator[Source]:
    """The standard library's sources, without its tests and without what is another kind below."""
    library = Path(sysconfig.get_path("stdlib"))
    others = {"site-packages", "dist-packages", "test", "tests", "idlelib", "pydoc_data", "lib2to3"}
    return _files([library], ".py", others)


def find_stubs() -> Iterator[Source]:
    """Type stubs of all packages that are installed."""
    return _files(_packages(), ".pyi", set())


def find_headers() -> Iterator[Source]:
    """The C++ headers that torch ships, without those that a template made, one per operator."""
    return _files([folder / "torch" / "include" for folder in _packages()], ".h", {"ops"})


def find_prose() -> Iterator[Source]:
    """What packages say of themselves to people: the long descriptions in their metadata."""
    for package in distributions():
        name = package.name
        if name and name != "stockpot":  # ours changes with each commit
            yield Source(name, lambda package=package: _description(package.read_text("METADATA") or ""))  # type: ignore[misc]


def find_reference() -> Iterator[Source]:
    """Python's own reference, topic by topic, as ``help()`` shows it."""
    from pydoc_data.topics import topics

    for name, text in topics.items():
        yield Source(name, text.encode)


KINDS: Mapping[str, Callable[[], Iterable[Source]]] = MappingProxyType(
    {"python": find_python, "stubs": find_stubs, "headers": find_headers, "prose": find_prose}
)
"""The domains that runs are trained on."""
DOMAINS = tuple(KINDS)
HELD_OUT = ("reference", find_reference)
"""The domain that none is."""


class Different:
    """Takes documents one by one, and tells whether one resembles an earlier one by half or more.

    Of each the smallest hashes of its shingles, which are five words in a row, are kept; from these the share
    of shingles that two have in common is estimated (Broder, On the resemblance and containment of documents,
    1997). No hash depends on the process.
    """

    shingle, kept, alike = 5, 64, 0.5

    def __init__(self) -> None:
        self._sketches: list[frozenset[int]] = []
        self._holders: dict[int, list[int]] = defaultdict(list)

    def take(self, text: bytes) -> bool:
        """Whether it is new; if so, it is remembered."""
        sketch = self._sketch(text)
        shared = Counter(number for value in sketch for number in self._holders[value])
        if any(self._resemblance(sketch, self._sketches[number]) >= self.alike for number in shared):
            return False
        for value in sketch:
            self._holders[value].append(len(self._sketches))
        self._sketches.append(sketch)
        return True

    def _sketch(self, text: bytes) -> frozenset[int]:
        words = re.findall(rb"\w+|[^\w\s]", text)
        row = [
            b" ".join(words[at : at + self.shingle]) for at in range(max(1, len(words) - self.shingle + 1))
        ]
        return frozenset(sorted(set(map(zlib.crc32, row)))[: self.kept])

    def _resemblance(self, one: frozenset[int], other: frozenset[int]) -> float:
        least = sorted(one | other)[: self.kept]
        return sum(value in one and value in other for value in least) / len(least)


def chosen(sources: Iterable[Source], most: int, least_bytes: int, different: Different) -> list[bytes]:
    """At most so many documents, none like an earlier one: UTF-8 text of so many bytes or more, cut at
    `LONGEST`. Names alone decide their order, and no package's files stand together in it.
    """
    documents: list[bytes] = []
    ordered = sorted(sources, key=lambda source: (hashlib.sha256(source.name.encode()).digest(), source.name))
    for source in ordered:
        if len(documents) == most:
            break
        text = _clean(source)
        if len(text) >= least_bytes and different.take(text):
            documents.append(text)
    return documents


Arrays = dict[str, np.ndarray[Any, Any]]
Find = Callable[[], Iterable[Source]]


def write_texts(
    path: Path,
    config: TextsConfig,
    context: int,
    kinds: Mapping[str, Find] = KINDS,
    held_out: tuple[str, Find] = HELD_OUT,
) -> None:
    """Write all splits, atomically, for `stockpot.demo.domains.task.NextByte`: ``<split>_x`` (bytes, ``[n,
    context + 1]``), ``<split>_before`` (as many bytes that stand before it), ``<split>_domain``,
    ``<split>_group`` (the document); and ``train_<domain>``, bytes.

    Raises BadTask, with every kind of which this machine has too few documents.
    """
    documents = _gathered(config, (config.windows + 1) * (context + 1), kinds, held_out)
    arrays = _dealt(documents, config, context + 1, unseen=held_out[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(unfinished, allow_pickle=False, **arrays)
    unfinished.replace(path)


def _gathered(
    config: TextsConfig, least_bytes: int, kinds: Mapping[str, Find], held_out: tuple[str, Find]
) -> dict[str, list[bytes]]:
    """The documents of each kind, no two alike, each kind in an order by names."""
    different = Different()
    shown = config.validation + config.test
    found = {
        name: chosen(find(), shown + config.train, least_bytes, different) for name, find in kinds.items()
    }
    name, find = held_out
    found[name] = chosen(find(), config.test, least_bytes, different)
    needed = dict.fromkeys(kinds, shown + config.validation) | {name: config.test}
    faults = [
        f"{name}: {counted(len(documents), 'document')}, where {needed[name]} are needed"
        for name, documents in found.items()
        if len(documents) < needed[name]
    ]
    if faults:
        raise BadTask(
            "this machine has too little text for the demo across domains",
            faults=faults,
            mend="make demo-domains, which installs what brings it: torch's headers, mypy's stubs, packages",
        )
    return found


def _dealt(documents: Mapping[str, Sequence[bytes]], config: TextsConfig, length: int, unseen: str) -> Arrays:
    """Each document to one split, its number its group."""
    arrays: Arrays = {}
    splits: dict[str, list[tuple[str, int, bytes]]] = defaultdict(list)
    first = 0
    for name, texts in documents.items():
        numbered = [(name, number, text) for number, text in enumerate(texts, first)]
        first += len(texts)
        if name == unseen:
            splits[UNSEEN] = numbered
            continue
        splits["validation"] += numbered[: config.validation]
        splits["test"] += numbered[config.validation :][: config.test]
        rest = b"\n\n".join(texts[config.validation + config.test :])
        arrays[f"train_{name}"] = np.frombuffer(rest, np.uint8)
    for split, dealt in splits.items():
        cut = [(name, number, part) for name, number, text in dealt for part in windows(text, config, length)]
        both = np.stack([np.frombuffer(part, np.uint8) for _, _, part in cut])
        arrays[f"{split}_before"], arrays[f"{split}_x"] = both[:, :length], both[:, length:]
        arrays[f"{split}_domain"] = np.array([name for name, _, _ in cut])
        arrays[f"{split}_group"] = np.array([number for _, number, _ in cut])
    return arrays


def windows(text: bytes, config: TextsConfig, length: int) -> list[bytes]:
    """Parts of this length, spread evenly, each behind as much that stands before it; no parts overlap, since
    shorter documents are not taken. None is from where the document begins, often with the licence that
    others begin with.
    """
    starts = np.linspace(0, len(text) - length, config.windows + 1).astype(int)[1:]
    return [text[start - length : start + length] for start in starts]


def digest_of(path: Path) -> str:
    """Of all text in the file, whatever packed it."""
    content = hashlib.sha256()
    with np.load(path, allow_pickle=False) as arrays:
        for name in sorted(arrays.files):
            content.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
            content.update(np.ascontiguousarray(arrays[name]).tobytes())
    return f"sha256:{content.hexdigest()}"


def told(path: Path) -> str:
    """For people: how much text of each kind there is, and what names all of it."""
    with np.load(path, allow_pickle=False) as arrays:
        parts = [
            f"{name.removeprefix('train_')} {arrays[name].size / 1000:,.0f} kB"
            for name in arrays.files
            if name.startswith("train_")
        ]
        documents = sum(len(set(arrays[f"{split}_group"].tolist())) for split in (*SPLITS, UNSEEN))
    return (
        f"Text to train on: {', '.join(parts)}; {documents} other documents to select and report on.\n"
        f"Figures depend on what this machine has: {digest_of(path)}"
    )


def _packages() -> Sequence[Path]:
    """The folders that packages are installed in, each once."""
    found = [Path(sysconfig.get_path(key)) for key in ("purelib", "platlib")]
    torch = find_spec("torch")
    if torch is not None and torch.origin is not None:
        found.append(Path(torch.origin).parents[1])
    return list(dict.fromkeys(found))


def _files(folders: Iterable[Path], suffix: str, others: set[str]) -> Iterator[Source]:
    """Files below, by their paths from there; nothing below a folder of another name in `others`."""
    for top in folders:
        for folder, below, files in os.walk(top):
            below[:] = [name for name in below if name not in others]
            for name in files:
                if name.endswith(suffix):
                    path = Path(folder, name)
                    yield Source(path.relative_to(top).as_posix(), path.read_bytes)


def _description(metadata: str) -> bytes:
    return metadata.partition("\n\n")[2].encode()


def _clean(source: Source) -> bytes:
    """Its text; nothing where it is none, or has gone."""
    try:
        text = source.read().decode()
    except (OSError, UnicodeDecodeError):
        return b""
    return text.replace("\r\n", "\n").strip().encode()[:LONGEST]
