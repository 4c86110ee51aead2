"""Files with weights and those beside them, wherever they lie: with the runs, or on this machine."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from stockpot.entities import WeightsFormat, WeightsSource
from stockpot.entities.model_folder import data_files, model_files, tokenizer_files
from stockpot.entities.weights_names import weights_format
from stockpot.workflow.gathering.workrooms import scratch

LOCAL = "file://"
"""Begins the URI of weights that lie on this machine: a path follows, as it is."""
SMALL = 16 << 20
"""Bytes of a file beside the weights that is read."""


class Files(Protocol):
    """What hands out files: a `Tracker`, whose docstrings are the contract, or `Places`."""

    def head(self, source: WeightsSource, length: int) -> bytes | None:
        """The first bytes of a file."""
        ...

    def companions(self, source: WeightsSource) -> Sequence[WeightsSource]:
        """The files beside it."""
        ...

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        """The file on this machine."""
        ...


@dataclass(frozen=True)
class Places:
    """The files of a tracker, and those of this machine that a person named."""

    tracker: Files

    def head(self, source: WeightsSource, length: int) -> bytes | None:
        """The first `length` bytes of a file, all of a shorter one. None where they cannot be had."""
        if not is_local(source):
            return self.tracker.head(source, length)
        try:
            with path_of(source).open("rb") as file:
                return file.read(length)
        except OSError:  # told where the file is read whole
            return None

    def companions(self, source: WeightsSource) -> Sequence[WeightsSource]:
        """The other files of the folder; of weights that a run logged, what the tracker tells."""
        if not is_local(source):
            return self.tracker.companions(source)
        folder, own = path_of(source).parent, {part.name for part in source.parts}
        try:
            files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name not in own]
            return [_local(file, source) for file in files if file != path_of(source)]
        except OSError:
            return ()

    def fetch(self, source: WeightsSource, into: Path) -> Path:
        """The file on this machine: where it lies, if that is here. A link is followed, since a person named
        it; of files that belong together, each is given its name in the folder `into` then.
        """
        if not is_local(source):
            return self.tracker.fetch(source, into)
        file = path_of(source)
        beside = [file.parent / part.name for part in source.parts]
        if not beside:
            return file.resolve()
        if not any(each.is_symlink() for each in beside):
            return file
        for each in beside:
            try:
                os.link(each.resolve(), into / each.name)
            except OSError:
                shutil.copyfile(each, into / each.name)
        return into / file.name


def is_local(source: WeightsSource) -> bool:
    """Whether it lies on this machine."""
    return source.uri.startswith(LOCAL)


def path_of(source: WeightsSource) -> Path:
    """Where a local source lies."""
    return Path(source.uri.removeprefix(LOCAL))


def _local(file: Path, source: WeightsSource) -> WeightsSource:
    return replace(
        source,
        format=weights_format(file.name) or WeightsFormat.OTHER,
        path=file.name,
        uri=f"{LOCAL}{file}",
        size=file.stat().st_size,
        parts=(),
    )


def read_small(source: WeightsSource, files: Files, limit: int = SMALL) -> bytes | None:
    """The content of a small file; None for a longer one. Raises BadCheckpoint as `Tracker.fetch` does."""
    if source.size is None or source.size > limit:
        return None
    content = files.head(source, source.size)
    if content is None:  # the store gives no parts of files
        with scratch() as folder:
            content = files.fetch(source, folder).read_bytes()
    return content


def files_beside(source: WeightsSource, files: Places) -> Mapping[str, WeightsSource]:
    """The data files of a model's folder, by name, as `model_files` finds them. Of an adapter those beside
    its base; with its own tokenizer, where it has one.
    """
    if source.base is None:
        return model_files(source, files.companions(source))
    theirs = model_files(source.base, files.companions(source.base))
    own = tokenizer_files(data_files(source, files.companions(source)))
    if not own or not theirs:
        return theirs
    rest = {name: file for name, file in theirs.items() if name not in tokenizer_files(theirs)}
    return {**rest, **own}


def fetch_all(named: Mapping[str, WeightsSource], files: Places, into: Path) -> None:
    """Bring files into a folder by their names, which may have a folder of their own."""
    for name, file in named.items():
        at = into / name
        at.parent.mkdir(exist_ok=True)
        found = files.fetch(file, at.parent)
        if found.parent != at.parent:
            shutil.copyfile(found, at)
