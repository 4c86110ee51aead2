"""A look at everything that a request needs. It changes nothing, and no fault ends it."""

import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

from stockpot import guards
from stockpot.diagnosis import Diagnosis, Health, looked
from stockpot.errors import StockpotError, StoreError
from stockpot.prose import counted, size
from stockpot.settings import Settings, reach_loopback_directly, read_settings, unread_variables

LITTLE = 10**9
"""Bytes on a disk, below which a warning is given: a small checkpoint and its soup."""
WITHOUT = "Requests go on without it, and ensembles cost passes"


def examine(task: str | None = None, task_args: Mapping[str, str] | None = None) -> Iterator[Diagnosis]:
    """Look at program, MLflow, store, policies, webhooks, Prefect, cache, outputs, device and the key that
    signs; and at a task if one is named. Yields one line or several for each part, as soon as it was
    looked at. Raises nothing.
    """
    reach_loopback_directly()
    yield from looked("program", _program)
    try:
        settings = read_settings()
    except StockpotError as error:
        yield Diagnosis.fault("settings", error)
        settings = None
    for name, meant in unread_variables():
        yield Diagnosis.warning("settings", f"nobody reads {name}{meant}", mend=f"unset {name}")
    yield from (mlflow := [*looked("MLflow", _mlflow)])
    answers = all(one.health is not Health.FAULT for one in mlflow)
    if settings is not None:
        yield from looked("store", partial(_store, settings.database))
        yield from looked(guards.POLICIES, partial(guards.policies, settings.policies_file, answers=answers))
    if answers:  # else there is nothing to ask, and MLflow makes a database that is not there
        yield from looked(guards.WEBHOOKS, guards.webhooks)
    yield from looked("Prefect", _prefect)
    if settings is not None:
        yield from looked("cache", partial(_cache, settings))
        yield from looked("outputs", partial(_outputs, settings))
        yield from looked("device", partial(_device, settings.device))
        yield from looked("signing", partial(_signing, settings))
    if task is not None:
        yield from looked("task", partial(_task, task, task_args or {}))


def _program() -> Iterator[Diagnosis]:
    parts = ", ".join(f"{name} {version(name)}" for name in ("stockpot", "torch", "mlflow", "prefect"))
    yield Diagnosis.ok("program", f"{parts}, Python {platform.python_version()}")


def _mlflow() -> Iterator[Diagnosis]:
    from stockpot.wiring import open_tracker

    for place in open_tracker().servers():
        yield Diagnosis.ok("MLflow", place)


def _store(url: str) -> Iterator[Diagnosis]:
    from stockpot.store import file_of, look, shown

    revision, file = look(url), file_of(url)
    if file is not None:
        _require_writable(file.parent, "STOCKPOT_HOME or STOCKPOT_STORE_URL")
    if revision is None:
        yield Diagnosis.ok("store", f"{shown(url)}: none yet, the first command that needs one makes it")
    else:
        yield Diagnosis.ok("store", f"{shown(url)}: at schema {revision}, which is this program's")


def _prefect() -> Iterator[Diagnosis]:
    from stockpot_flows.address import configured

    address = configured()
    if address is None:
        yield Diagnosis.ok("Prefect", "not configured: `stockpot soup` runs without it")
        return
    from stockpot_flows.doctoring import look

    yield from look(address)


def _cache(settings: Settings) -> Iterator[Diagnosis]:
    from stockpot.soup.checkpoint_cache import files_of

    folder = settings.cache_folder
    _require_writable(folder, "STOCKPOT_CACHE")
    number, held = files_of(folder).held()
    limit = settings.cache_limit
    bounded = f"at most {size(limit)}" if limit else "no limit"
    told = f"{folder}: {counted(number, 'checkpoint')}, {size(held)}, {bounded}"
    yield from _with_room("cache", folder, told, None if limit is None else limit - held)


def _outputs(settings: Settings) -> Iterator[Diagnosis]:
    from stockpot.shelves import LIMIT, files_of, folder_at, shelf_at

    limit = LIMIT if settings.cache_limit is None else settings.cache_limit
    if (folder := folder_at(settings.outputs_place)) is not None:
        try:
            _require_writable(folder, "STOCKPOT_OUTPUTS")
        except StoreError as error:
            yield Diagnosis.warning("outputs", f"{error.what}. {WITHOUT}", mend=error.mend)
            return
        number, held = files_of(folder).held()
        told = f"{folder}: {counted(number, 'file')}, {size(held)}, at most {size(limit)}"
        yield from _with_room("outputs", folder, told, None)
        return
    shelf = shelf_at(settings.outputs_place, limit)
    try:
        shelf.read("0" * 64)
    except OSError as error:
        yield Diagnosis.warning(
            "outputs",
            f"{shelf.place} does not answer: {error}. {WITHOUT}",
            mend="correct STOCKPOT_OUTPUTS, or the credentials that its client reads",
        )
        return
    yield Diagnosis.ok("outputs", f"{shelf.place}: answers, at most {size(limit)}")


def _device(named: str) -> Iterator[Diagnosis]:
    import torch

    from stockpot.evaluation import choose_device, device_names
    from stockpot.evaluation.devices.device import device_model

    for name in device_names(named):
        device = choose_device(name or None)
        told = f"{device}: {device_model(device, torch.get_num_threads())}"
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            told += f", {size(free)} of {size(total)} free"
        yield Diagnosis.ok("device", told)
    built_for = torch.version.cuda or torch.version.hip
    if not named and built_for and not torch.cuda.is_available():
        yield Diagnosis.warning(
            "device",
            f"torch {torch.__version__} was built for {built_for} and finds no such device: models run on "
            "the CPU",
            mend="look at nvidia-smi and at the driver's version; or, to have it so: STOCKPOT_DEVICE=cpu",
        )


def _signing(settings: Settings) -> Iterator[Diagnosis]:
    """Nothing, where nobody wants to sign."""
    from stockpot.wiring import Workplace

    if (signer := Workplace(settings).signer) is not None:
        yield Diagnosis.ok("signing", f"{settings.signing_key}: soups are signed with the key {signer.name}")


def _task(reference: str, args: Mapping[str, str]) -> Iterator[Diagnosis]:
    from stockpot.evaluation import all_seeded
    from stockpot.tasks.loading import lacks_model_folder, load_task, task_source

    if lacks_model_folder(reference, args):
        yield Diagnosis.ok(
            "task", f"{reference} is there. It takes its model from a sweep: --task-arg model=FOLDER tries it"
        )
        return
    with all_seeded():
        task = load_task(reference, args)
    source = task_source(task, reference, args)
    told = f"{reference} loads: version {task.version}, {counted(len(source.modules), 'module')} of its own"
    yield Diagnosis.ok("task", told)
    for doubt in source.doubts:
        yield Diagnosis.warning(
            "task",
            f"scores are remembered by the task's source, but {doubt}",
            mend="see what is said; or raise the task's `version` whenever that changes",
        )


def _with_room(part: str, folder: Path, told: str, room: int | None) -> Iterator[Diagnosis]:
    """`room`: bytes that the folder may grow by."""
    free = shutil.disk_usage(_nearest(folder)).free
    told += f"; {size(free)} free on its disk"
    if free < LITTLE or (room is not None and free < room):
        mend = "free some space, or lower STOCKPOT_CACHE_LIMIT; `stockpot prune` tells what may go"
        yield Diagnosis.warning(part, told, mend=mend)
    else:
        yield Diagnosis.ok(part, told)


def _require_writable(folder: Path, variable: str) -> None:
    """Raises StoreError where nothing can be written there, or where the folder cannot be made."""
    nearest = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:  # it has no name, so nothing is left of it
            file.write(b"\0" * 4096)
    except OSError as error:
        what = folder if nearest == folder else f"{folder} cannot be made: {nearest}"
        raise StoreError(
            f"{what} cannot be written to: {error.strerror}",
            mend=f"set {variable} to a folder that you may write, or free some space there",
        ) from error


def _nearest(folder: Path) -> Path:
    """The folder, or what is there of the path that leads to it."""
    return next(path for path in (folder, *folder.parents) if path.exists())
