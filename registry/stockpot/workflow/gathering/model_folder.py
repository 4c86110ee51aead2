"""A model's configuration and tokenizer in a folder, as a sweep's runs logged them: some tasks need it."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from stockpot.entities import (
    Digest,
    Run,
    SoupRequest,
    WeightsSource,
    digest_of_bytes,
    digest_of_document,
    model_files,
)
from stockpot.errors import BadCheckpoint, BadRequest
from stockpot.workflow.gathering.checkpoint_choice import choose_checkpoint
from stockpot.workflow.gathering.exclusion_rules import Gathering

if TYPE_CHECKING:
    from stockpot.ports import Tracker

LOOKED_AT = 20
"""Runs, in the sweep's order: where so many logged no such folder, the others did not either."""


def fetch_model_folder(request: SoupRequest, tracker: "Tracker", into: Path) -> Path:
    """Download the data files beside the first finished run's weights that has some.

    Returns the folder, named by what it holds. Raises BadRequest where no run logged one, and what listing
    the sweep raises.
    """
    looked = 0
    for run in tracker.runs(request.selector):
        if run.status == "FINISHED":
            folder = _folder_of(run, request, tracker, into)
            if folder is not None:
                return folder
            looked += 1
        if looked == LOOKED_AT:
            break
    raise BadRequest(
        f"{request.task} needs a model's configuration, and no run of the sweep logged a config.json beside "
        "its weights",
        mend="name a folder as save_pretrained writes it: --task-arg model=FOLDER",
    )


def _folder_of(run: Run, request: SoupRequest, tracker: "Tracker", into: Path) -> Path | None:
    choose = partial(choose_checkpoint, request=request, tracker=tracker)
    try:
        source = Gathering().choose_weights(run, tracker.weights(run), request.pattern, choose)
        files = {} if source is None else model_files(source, tracker.companions(source))
        return _fetched(files, tracker, into) if files else None
    except BadCheckpoint:  # told where the sweep is gathered
        return None


def _fetched(files: Mapping[str, WeightsSource], tracker: "Tracker", into: Path) -> Path:
    """The files in a folder of their own, which appears whole or not at all."""
    with TemporaryDirectory(dir=into) as folder:
        here = Path(folder, "model")
        here.mkdir()
        for file in files.values():
            tracker.fetch(file, here)
        named = _named(here)
        made = into / digest_of_document(named).removeprefix("sha256:")[:32]
        with suppress(OSError):  # it is there: no folder replaces one that holds files
            here.rename(made)
        if _named(made) != named:  # somebody took a file away, or changed one
            shutil.rmtree(made)
            shutil.copytree(here, made)
    return made


def _named(folder: Path) -> list[tuple[str, Digest]]:
    """The files by name, and what they hold."""
    return sorted((file.name, digest_of_bytes(file.read_bytes())) for file in folder.iterdir())
