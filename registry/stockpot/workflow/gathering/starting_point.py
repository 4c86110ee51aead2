"""Where a sweep started: the base that a request names, read as a candidate's weights are, and never one."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import (
    Candidate,
    ExclusionReason,
    ModelVersion,
    Run,
    SoupRequest,
    SweepSelector,
    TensorSpec,
    WeightsSource,
    tags,
)
from stockpot.entities.weights_names import INDEX_SUFFIX, SHARD, sources_among
from stockpot.errors import BadCheckpoint, BadRequest, Incompatible, UnknownSweep
from stockpot.soup import CODES, differences
from stockpot.workflow.gathering.alike import WHOLE, another_architecture
from stockpot.workflow.gathering.exclusion_rules import MENDS
from stockpot.workflow.gathering.only_weights import only_weights
from stockpot.workflow.gathering.places import LOCAL, path_of
from stockpot.workflow.gathering.recalled import told as told_recall
from stockpot.workflow.gathering.recalled import way_back

if TYPE_CHECKING:
    from stockpot.ports import Tracker
    from stockpot.workflow.gathering.arrivals import Prospects
    from stockpot.workflow.gathering.supply import Supply

FORMS = "--base models:/NAME/VERSION, models:/NAME@ALIAS, a run's id, or a file or folder of weights"
MOST_FILES = 10_000
"""In a folder that is named as the base, with all folders in it."""
_MODEL, _RUN = "models:/", re.compile("[0-9a-f]{32}")


def pinned(request: SoupRequest, tracker: "Tracker") -> SoupRequest:
    """The request with the version that an alias points at now in the alias's place: it may be moved."""
    if request.base is None or not request.base.startswith(_MODEL):
        return request
    return replace(request, base=_version(request.base, tracker).uri)


def base_as_listed(request: SoupRequest, tracker: "Tracker") -> tuple[Run, ...]:
    """What tells the base's state: the run that is named, or what the version that is named was made of. Both
    may be deleted and made again. Raises BadRequest where it is not there.
    """
    if request.base is not None and request.base.startswith(_MODEL):
        version = _version(request.base, tracker)
        run = _of_nobody(version.uri)
        return (replace(run, run_id=version.run_id or "", tags={"model": version.model_id or ""}),)
    return _run(request, tracker)


def _version(uri: str, tracker: "Tracker") -> ModelVersion:
    try:
        return tracker.version(uri)
    except BadRequest as error:
        raise BadRequest(f"the base cannot be found: {error.what}", mend=f"name one: {FORMS}") from error


def _run(request: SoupRequest, tracker: "Tracker") -> tuple[Run, ...]:
    """The run that is named as the base, if one is."""
    if request.base is None or not _RUN.fullmatch(request.base):
        return ()
    try:
        run = tracker.parent(SweepSelector(parent_run_id=request.base))
    except UnknownSweep as error:
        raise BadRequest(f"the base {request.base} is no run", mend=f"name one: {FORMS}") from error
    return () if run is None else (run,)


def local_base(request: SoupRequest) -> Path | None:
    """The file or folder that is named as the base, if one is."""
    base = request.base
    if base is None or base.startswith(_MODEL) or _RUN.fullmatch(base):
        return None
    return Path(os.path.expanduser(base)).absolute()  # noqa: PTH111 - Path's raises for an unknown user


def base_source(request: SoupRequest, tracker: "Tracker") -> tuple[Run, WeightsSource] | None:
    """Where the base's weights lie; None where the request names none. Nothing is read.

    A version and a local file come from no run that is known: theirs has no id. Raises BadRequest for what is
    not there, BadCheckpoint where that is not one file.
    """
    if request.base is None:
        return None
    name, mend = f"the base {request.base}", f"name the file: {FORMS}"
    if request.base.startswith(_MODEL):
        version = _version(request.base, tracker)
        return _of_nobody(version.uri), only_weights(tracker.version_weights(version), name, mend)
    if runs := _run(request, tracker):
        (run,) = runs
        if run.tags.get(tags.ROLE) == "soup":
            mend = "a soup's weights lie in its version: --base models:/NAME/VERSION"
        source = only_weights(tracker.weights(run), name, mend)
        return run, replace(source, run_ended=run.ended)
    path = local_base(request) or Path(request.base)
    if not os.path.exists(path):  # noqa: PTH110 - Path's raises for a name that is too long
        raise BadRequest(f"{name} is not there: no such file or folder", mend=f"name one: {FORMS}")
    return _of_nobody(path.name), local_source(path, name, mend)


def local_source(path: Path, name: str, mend: str, *, below: bool = True) -> WeightsSource:
    """The one weights file that is this, or in this folder, or `below`; `run_ended` is when it was last
    changed. The index of files that weights were cut into, or one of those, stands for all of them.

    Raises BadRequest for a folder of very many files, BadCheckpoint where that is not one file.
    """
    inside = path.rglob("*") if below else path.glob("*")
    cut = SHARD.fullmatch(path.name) or path.name.endswith(INDEX_SUFFIX)
    beside = path.parent.glob("*") if cut else iter([path])
    folder, files = (path, inside) if path.is_dir() else (path.parent, beside)
    found = list(islice(files, MOST_FILES + 1))
    if len(found) > MOST_FILES:
        raise BadRequest(f"{name} holds more than {MOST_FILES:,} files", mend="name the file of weights")
    sizes = [(str(file.relative_to(folder)), file.stat().st_size) for file in sorted(found) if file.is_file()]
    sources = [*sources_among("", f"{LOCAL}{folder}", sizes)]
    if cut:
        sources = [source for source in sources if path.name in {part.name for part in source.parts}]
    source = only_weights(sources, name, mend)
    place = path_of(source).parent
    parts = [place / part.name for part in source.parts] or [path_of(source)]
    return replace(source, run_ended=max(file.stat().st_mtime_ns for file in parts if file.exists()))


def find_base(
    prospects: "Prospects",
    tracker: "Tracker",
    supply: "Supply",
    fits: Callable[[Sequence[TensorSpec]], Sequence[str]],
    say: Callable[[str], object] = lambda _: None,
) -> Candidate | None:
    """The base with its weights, which the supply hands out from now on; None where the request names none.

    Adapters that bring what their base lacks, such as a head, have no starting point of their architecture:
    that is said, and None. Raises what `base_source` raises, and BadCheckpoint or Incompatible where the
    weights cannot be read, are not finite, or are those of another architecture than the task's model or the
    sweep.
    """
    found = base_source(prospects.request, tracker)
    if found is None:
        return None
    (run, source), name, dtype = found, f"the base {prospects.request.base}", prospects.request.dtype
    supply.depend_on(source)
    read_it = supply.read_once if run.run_id else supply.read  # no name tells that another is made again
    read = read_it(replace(source, cast=CODES[dtype]) if dtype else source)
    if read.checkpoint is None:
        reason = read.fault or ExclusionReason.UNREADABLE
        raise BadCheckpoint(f"{name} cannot be used: {source.path}: {read.detail}", mend=MENDS[reason])
    if (word := prospects.recalled.of(run.run_id, read.checkpoint.digest)) is not None:
        raise BadRequest(f"{name} cannot be used: {told_recall(word)}", mend=way_back(word))
    source = replace(source, cast=CODES[dtype]) if dtype and read.cast_from else source
    base = Candidate(run, source, read.sha256, read.checkpoint, read.cast_from)
    fault = _misfit(name, base.checkpoint.tensors, prospects, fits)
    if fault is None:
        supply.offer([base])
        return base
    if all(prospect.source.base is None for prospect in prospects.found):
        raise fault
    say(f"no row for the base, which adapters were merged into: {fault.what}: {'; '.join(fault.faults)}")
    return None


def _misfit(
    name: str,
    tensors: tuple[TensorSpec, ...],
    prospects: "Prospects",
    fits: Callable[[Sequence[TensorSpec]], Sequence[str]],
) -> Incompatible | None:
    """Why a base with these tensors is none of the sweep's, as far as layouts tell."""
    if faults := fits(tensors):
        return Incompatible(f"{name} does not fit the task's model", faults=faults, mend=WHOLE)
    layouts = Counter(prospect.layout for prospect in prospects.found)
    if None not in layouts and tensors not in layouts:
        return another_architecture(name, differences(layouts.most_common(1)[0][0] or (), tensors))
    return None


def _of_nobody(name: str) -> Run:
    return Run("", name, "", "FINISHED", 0, {}, {}, {})
