"""A model's configuration and tokenizer in a folder, as a sweep's runs logged them: some tasks need it."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import (
    CONFIG,
    Digest,
    SoupRequest,
    WeightsSource,
    digest_of_bytes,
    digest_of_document,
)
from stockpot.errors import BadCheckpoint, BadRequest
from stockpot.workflow.gathering.adapted_heads import count_outputs, own_outputs
from stockpot.workflow.gathering.expected import expected_sweep
from stockpot.workflow.gathering.gather import find_prospects
from stockpot.workflow.gathering.odd_numberings import LOOKED_AT
from stockpot.workflow.gathering.places import Places, fetch_all, files_beside
from stockpot.workflow.gathering.workrooms import PART, workroom

if TYPE_CHECKING:
    from stockpot.ports import Tracker, Watcher
    from stockpot.workflow.gathering.supply import Supply


def fetch_model_folder(
    request: SoupRequest, tracker: "Tracker", supply: "Supply", watch: "Watcher", into: Path
) -> Path:
    """Download the data files beside the weights of the first run that has some, of those that would be
    averaged as far as headers tell.

    Returns the folder, named by what it holds. Raises BadRequest where no run logged one, and what gathering
    the sweep raises.
    """
    places = Places(tracker)
    prospects = find_prospects(request, tracker, supply, lambda _: (), watch)
    for candidate in expected_sweep(prospects, supply).candidates[:LOOKED_AT]:
        with suppress(BadCheckpoint):  # it says something about weights, but is none
            if files := files_beside(candidate.source, places):
                return _fetched(files, own_outputs(candidate.source, places), places, into)
    raise BadRequest(
        f"{request.task} needs a model's configuration, and no run of the sweep logged a config.json beside "
        "its weights",
        mend="name a folder as save_pretrained writes it: --task-arg model=FOLDER",
    )


def _fetched(files: Mapping[str, WeightsSource], outputs: int | None, places: Places, into: Path) -> Path:
    """The files in a folder of their own, which appears whole or not at all. `outputs`: the model's, where
    an adapter tells them.
    """
    with workroom(into, PART) as folder:
        here = folder / "model"
        here.mkdir()
        fetch_all(files, places, here)
        if outputs is not None:
            count_outputs(here / CONFIG, outputs)
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
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sorted((f.relative_to(folder).as_posix(), digest_of_bytes(f.read_bytes())) for f in files)
