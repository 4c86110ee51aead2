"""Splits of a data set that lie in files: parquet, or JSON lines, one object a line."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from stockpot.errors import BadTask
from stockpot.prose import counted

SUFFIXES = (".parquet", ".jsonl")
SPLIT_COLUMN = "split"
"""In a data set of one file: the split that each row belongs to."""
DOMAIN_COLUMN = "domain"
SHOWN = 20
"""Faults, or names, that a message lists."""
_SHARD = re.compile(r"-\d+-of-\d+$")


class Splits:
    """The splits of a folder, each a file or a subfolder of that name, or those of one file.

    - A folder holds ``validation.parquet``, ``test.jsonl``, ``test-00000-of-00002.parquet`` and so on, or
      subfolders ``validation/`` with such files of any name, which are read in the order of their names.
    - In a split's folder, subfolders with such files hold a domain each: ``validation/python/``.
    - Of one file, the column ``split`` tells which split a row belongs to; without it, the file is the split
      that it is named after.

    Raises BadTask where nothing of that kind is there.
    """

    def __init__(self, data: str) -> None:
        self.path = Path(data).expanduser().absolute()
        self._table: Table | None = None
        self._places: dict[str, list[Path]] = {}
        if self.path.is_dir():
            for place in sorted(self.path.iterdir()):
                if place.suffix in SUFFIXES and place.is_file():
                    self._places.setdefault(_SHARD.sub("", place.stem), []).append(place)
                elif place.is_dir() and not place.name.startswith("."):
                    self._places.setdefault(place.name, []).append(place)
        elif self.path.is_file() and self.path.suffix in SUFFIXES:
            table = Table.read([self.path])
            if SPLIT_COLUMN in table.names:
                self._table = table
                found = dict.fromkeys(table.column(SPLIT_COLUMN))
                self._places = {str(name): [self.path] for name in found if name is not None}
            else:
                self._places = {_SHARD.sub("", self.path.stem): [self.path]}
        if not self._places:
            raise BadTask(
                f"data: {self.path} holds no split",
                mend="give a folder with a file or subfolder for each split, such as validation.parquet or "
                "test.jsonl, or one such file with a column named split",
            )

    def place(self, split: str) -> list[Path]:
        """The split's files, or its folder. Raises ValueError for a split that is not there."""
        if split not in self._places:
            raise ValueError(f"{self.path} has no split {split!r}; it has {shown(sorted(self._places))}")
        return self._places[split]

    def table(self, split: str) -> "Table":
        """The split's rows. Raises ValueError for a split that is not there, BadTask with every fault."""
        places = self.place(split)
        if self._table is not None:
            return self._table.rows_where(SPLIT_COLUMN, split)
        if len(places) > 1 and any(place.is_dir() or not _SHARD.search(place.stem) for place in places):
            raise BadTask(
                f"split {split!r} lies in several places of {self.path}",
                faults=[place.name for place in places],
                mend="keep one of them",
            )
        files = [
            file
            for place in places
            for file in (_files_in(place) if place.is_dir() else [place])
            if file.suffix in SUFFIXES and file.is_file()
        ]
        if not files:
            raise BadTask(
                f"split {split!r} of {self.path} has no {' or '.join(SUFFIXES)} file",
                mend="write one into it, or give a task that reads what is there",
            )
        split_itself = {self.path, *places}
        return Table.read(files, ["" if f.parent in split_itself else f.parent.name for f in files])


def _files_in(folder: Path) -> Iterator[Path]:
    """Those of the folder, then those of each subfolder, by name; none that is hidden."""
    inside = _seen_in(folder)
    yield from (place for place in inside if place.is_file())
    for place in inside:
        if place.is_dir():
            yield from _seen_in(place)


def _seen_in(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if not place.name.startswith("."))


@dataclass(frozen=True)
class Table:
    """Rows of one split, by column. A column is read when it is asked for."""

    files: "Sequence[_File]"
    kept: Sequence[int] | None = None
    """Which rows of the files, if not all."""

    folders: Sequence[str] = ()
    """Of each file, the domain's folder that it lies in; empty for one in the split's own."""

    @staticmethod
    def read(paths: Sequence[Path], folders: Sequence[str] = ()) -> "Table":
        """The rows of these files, one file after the other. Raises BadTask with every fault."""
        faults: list[str] = []
        files = [_opened(path, faults) for path in paths]
        names = dict.fromkeys(name for file in files for name in file.names)
        for path, file in zip(paths, files, strict=True):
            lacking = [name for name in names if name not in file.names]
            if lacking and path.suffix == ".parquet":  # a line without one has no value there
                faults.append(f"{file.name}: has no column {shown(lacking)}, which other files have")
        if faults:
            refuse(f"the data in {paths[0].parent} cannot be read", faults, "write these files again")
        return Table(files, folders=folders)

    def domains(self) -> Sequence[str] | None:
        """The domain of each row: the column ``domain`` where it holds texts, else the folder of its file;
        None where there is neither. Empty for a row without one among others.
        """
        column = self.column(DOMAIN_COLUMN) if DOMAIN_COLUMN in self.names else ()
        if any(isinstance(value, str) for value in column):
            return [value if isinstance(value, str) else "" for value in column]
        if not any(self.folders):
            return None
        pairs = zip(self.folders, self.files, strict=True)
        return [folder for folder, file in pairs for _ in range(file.rows)]

    @property
    def names(self) -> Sequence[str]:
        """Of the columns."""
        return list(dict.fromkeys(name for file in self.files for name in file.names))

    def __len__(self) -> int:
        """Rows."""
        return sum(file.rows for file in self.files) if self.kept is None else len(self.kept)

    def column(self, name: str) -> Sequence[Any]:
        """Its values; None where a row has none. Raises BadTask where there is no column of that name."""
        if name not in self.names:
            raise BadTask(
                f"{self.files[0].name} has no column {name!r}",
                mend=f"name one that is there: {shown(self.names)}",
            )
        values = [value for file in self.files for value in file.column(name)]
        return values if self.kept is None else [values[row] for row in self.kept]

    def places(self) -> Iterator[str]:
        """Where each row stands: for messages."""
        every = (f"{file.name}, row {row + 1}" for file in self.files for row in range(file.rows))
        kept = None if self.kept is None else frozenset(self.kept)
        return (place for row, place in enumerate(every) if kept is None or row in kept)

    def rows_where(self, name: str, value: str) -> "Table":
        """Those rows where the column holds this value."""
        return Table(self.files, [row for row, found in enumerate(self.column(name)) if str(found) == value])

    def chosen(self, argument: str, given: str, usual: Sequence[str]) -> str:
        """The column that the task's `argument` names; where it names none, the only `usual` one there is.

        Raises BadTask where that leaves a doubt.
        """
        if given:
            _ = self.column(given)
            return given
        there = [name for name in usual if name in self.names]
        if len(there) == 1:
            return there[0]
        which = f"several columns may be the {argument}" if there else f"no column is named {shown(usual)}"
        raise BadTask(
            f"{which}: {shown(there or self.names)}",
            mend=f"say which one it is: --task-arg {argument}=NAME",
        )


def refuse(what: str, faults: Sequence[str], mend: str) -> NoReturn:
    """Raises BadTask with these faults, the first of them by name."""
    more = [f"and {counted(len(faults) - SHOWN, 'more fault')}"] if len(faults) > SHOWN else []
    raise BadTask(what, faults=[*faults[:SHOWN], *more], mend=mend)


def shown(names: Iterable[str]) -> str:
    """Names in a row, no more than a message may hold."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN:,} more" if len(listed) > SHOWN else ""
    return (", ".join(listed[:SHOWN]) or "none") + more


@dataclass(frozen=True)
class _File:
    name: str
    names: Sequence[str]
    rows: int
    column: Callable[[str], Sequence[Any]]


def _opened(path: Path, faults: list[str]) -> _File:
    return (_parquet if path.suffix == ".parquet" else _lines)(path, faults)


def _parquet(path: Path, faults: list[str]) -> _File:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    def column(name: str) -> Sequence[Any]:
        try:
            with ParquetFile(path) as file:
                values: list[Any] = file.read([name]).column(name).to_pylist()
        except (OSError, ArrowException) as error:
            raise BadTask(
                f"{path}: column {name!r} cannot be read: {error}", mend="write it again"
            ) from error
        return values

    try:
        with ParquetFile(path) as file:
            return _File(path.name, file.schema_arrow.names, file.metadata.num_rows, column)
    except (OSError, ArrowException) as error:
        faults.append(f"{path.name}: cannot be read as parquet: {error}")
        return _File(path.name, [], 0, column)


def _lines(path: Path, faults: list[str]) -> _File:
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").rstrip().split("\n")  # splitlines() would cut texts in two
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path.name}: cannot be read as text: {error}")
        lines = [""]
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"{path.name}, row {number}: no JSON: {error}")
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            faults.append(f"{path.name}, row {number}: a {type(row).__name__}, not an object with columns")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _File(path.name, names, len(rows), lambda name: [row.get(name) for row in rows])
