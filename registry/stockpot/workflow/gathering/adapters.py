"""Low-rank adapters (LoRA, by PEFT) among a sweep's weights, and the base that each is merged into.

The base is what the request names, else the model of the name that the adapter's configuration tells in the
local cache of Hugging Face, which is never asked to download one. A path in that configuration is told, not
followed: what a run logged chooses no file of this machine, which a soup would publish.
"""

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from stockpot.entities import CONFIG, ExclusionReason, SoupRequest, TensorSpec, WeightsSource
from stockpot.entities.weights_names import ADAPTER_CONFIG, weights_format
from stockpot.errors import BadCheckpoint, BadRequest, NoBase
from stockpot.prose import one_line
from stockpot.soup import canonical_tensors, merged_tensors
from stockpot.soup.adapter_config import CONFIG_LIMIT, AdapterConfig, parse_config
from stockpot.workflow.gathering.headers import layout_of, tensors_of
from stockpot.workflow.gathering.places import Files, Places, is_local, path_of, read_small
from stockpot.workflow.gathering.shortlist import ANY_BASE
from stockpot.workflow.gathering.starting_point import base_source, local_source
from stockpot.workflow.gathering.ties import ties

if TYPE_CHECKING:
    from stockpot.ports import Tracker, Watcher
    from stockpot.workflow.gathering.arrivals import Prospect
    from stockpot.workflow.gathering.exclusion_rules import Gathering
    from stockpot.workflow.gathering.supply import Supply

Layout = tuple[TensorSpec, ...]

NAME_IT = "name the base, a folder as save_pretrained writes it or a file of weights: --base FOLDER"
_HUB_NAME = re.compile(r"[\w-][\w.-]{,95}(/[\w-][\w.-]{,95})?", re.ASCII)
_REVISION = re.compile(r"[\w-][\w.-]{,95}", re.ASCII)


@dataclass(frozen=True)
class Adapter:
    """A run's adapter, and the base that it belongs to."""

    source: WeightsSource
    """With its base."""
    config: AdapterConfig


class Adapters:
    """The adapters of one sweep. May be used from several threads."""

    def __init__(self, request: SoupRequest, tracker: "Tracker") -> None:
        self._request = request
        self._tracker = tracker
        self._files = Places(tracker)
        self._lock = Lock()
        self._bases: dict[tuple[str, str], WeightsSource | NoBase] = {}
        self._paths: Counter[str] = Counter()
        self._layouts: dict[str, Layout | None] = {}

    def found(self, source: WeightsSource) -> Adapter:
        """An adapter with its configuration read and its base found; nothing of either is downloaded but
        that configuration. Raises BadCheckpoint, NoBase where the base is not here, and what is raised for a
        base that the request names and that is not there.
        """
        part = next((part for part in source.parts if part.name == ADAPTER_CONFIG), None)
        if part is None:
            raise BadCheckpoint(
                f"{ADAPTER_CONFIG} is missing beside it",
                mend="log the whole folder, as PEFT's save_pretrained writes it",
            )
        content = read_small(source.beside(part), self._files, CONFIG_LIMIT) or b""
        config = parse_config(content)
        return Adapter(replace(source, base=self._base(config)), config)

    def layout(self, adapter: Adapter, supply: "Supply") -> Layout | None:
        """The tensors after merging, from headers alone; None where those cannot be had. Raises Incompatible
        where the adapter cannot be merged exactly.
        """
        source, config = adapter.source, adapter.config
        known = supply.layout(source)
        own = None if known else tensors_of(weights_alone(source), self._files)
        base = source.base
        if known or own is None or base is None:
            return known
        with self._lock:
            if base.key not in self._layouts:
                self._layouts[base.key] = supply.layout(base) or layout_of(base, self._files)
            theirs = self._layouts[base.key]
        if theirs is None:
            return None
        tied = ties(base, self._files) if config.language_model is None else config.language_model
        return canonical_tensors([each.spec for each in merged_tensors(config, own, theirs, tied=tied)])

    @property
    def paths(self) -> tuple[str, ...]:
        """Where on this machine the bases of adapters without one are said to lie, the most usual first."""
        return tuple(path for path, _ in self._paths.most_common())

    def _base(self, config: AdapterConfig) -> WeightsSource:
        asked = ("", "") if self._request.base is not None else (config.base, config.revision)
        with self._lock:
            if asked not in self._bases:
                try:
                    self._bases[asked] = self._looked_up(*asked)
                except NoBase as error:
                    self._bases[asked] = error
            found = self._bases[asked]
            if isinstance(found, NoBase) and _is_model(config.base):
                self._paths[str(Path(config.base).absolute())] += 1
        if isinstance(found, NoBase):
            raise found
        name, file = config.base or self._request.base or "", found.path.rpartition("/")[2]
        return replace(found, path=f"{name.rstrip('/')}/{file}")

    def _looked_up(self, name: str, revision: str) -> WeightsSource:
        named = base_source(self._request, self._tracker)
        if named is not None:
            return named[1]
        place = _in_hubs_cache(name, revision)
        if place is None and _is_model(name):
            raise NoBase(
                f"its base is told by a path of this machine, {name}, and no run chooses a file here",
                mend=f"if it is that one: --base {shlex.quote(str(Path(name).absolute()))}",
            )
        if place is None:
            called = f"{name} at revision {revision}" if revision else name or "which is not named"
            raise NoBase(
                f"its base, {called}, is not in the local cache of Hugging Face",
                mend=NAME_IT,
            )
        try:
            return local_source(place, f"its base, {name},", NAME_IT, below=False)
        except (BadCheckpoint, BadRequest) as error:
            raise NoBase(error.what, mend=error.mend) from error


def task_of(source: WeightsSource, files: Files) -> str:
    """What PEFT calls the task of an adapter's model; empty where nothing tells."""
    part = next((part for part in source.parts if part.name == ADAPTER_CONFIG), None)
    try:
        content = read_small(source.beside(part), files, CONFIG_LIMIT) if part else None
        return parse_config(content).task if content else ""
    except BadCheckpoint:  # told where the sweep is gathered
        return ""


def weights_alone(source: WeightsSource) -> WeightsSource:
    """An adapter without its configuration."""
    name = source.path.rpartition("/")[2]
    (part,) = (part for part in source.parts if part.name == name)
    return source.beside(part)


def _in_hubs_cache(name: str, revision: str) -> Path | None:
    """The model's snapshot in the local cache of Hugging Face.

    It is laid out as ``models--ORGANISATION--NAME/snapshots/COMMIT``, and ``refs/main`` names the commit
    (``huggingface_hub``, "Understand caching").
    """
    revision = revision or "main"
    if not _HUB_NAME.fullmatch(name) or not _REVISION.fullmatch(revision):
        return None
    folder = _hub() / f"models--{name.replace('/', '--')}"
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except (OSError, ValueError):
        commit = revision
    snapshot = folder / "snapshots" / commit
    return snapshot if _REVISION.fullmatch(commit) and snapshot.exists() else None


def _is_model(name: str) -> bool:
    """Whether a path of this machine looks like a base: of others nobody is told that they are there."""
    try:
        return Path(name, CONFIG).is_file() or (weights_format(name) is not None and Path(name).is_file())
    except (OSError, ValueError):  # longer than names of files can be; with a zero byte
        return False


def _hub() -> Path:
    """As Hugging Face's own library looks for it."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if place := os.environ.get(variable):
            return Path(place).expanduser()
    home = os.environ.get("HF_HOME")
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home or f"{caches}/huggingface").expanduser() / "hub"


def of_one_base(
    found: Sequence["Prospect"], request: SoupRequest, supply: "Supply", gathering: "Gathering"
) -> list["Prospect"]:
    """The prospects without the adapters of another base than most have, which are excluded.

    Where the request names the base, its name in their configurations counts; else what is found under that.
    """
    bases = {p.run.run_id: _identity(p, request) for p in found if p.source.base is not None}
    if request.any_base or len(set(bases.values())) < 2:
        return list(found)
    if request.base is None:  # two places may hold the same weights
        same = {p.source.base.key: supply.base(p.source.base) for p in found if p.source.base is not None}
        bases = {run: same[name] for run, name in bases.items()}
    usual = Counter(bases.values()).most_common(1)[0][0]
    names = {bases[p.run.run_id]: p.base or "not named" for p in found if p.run.run_id in bases}
    for prospect in found:
        if bases.get(prospect.run.run_id, usual) != usual:
            gathering.exclude(
                prospect.run,
                ExclusionReason.DIFFERENT_BASE,
                f"{prospect.source.path}: its base is {prospect.base or 'not named'}, "
                f"most adapters' is {names[usual]}",
                ANY_BASE,
            )
    return [p for p in found if bases.get(p.run.run_id, usual) == usual]


def _identity(prospect: "Prospect", request: SoupRequest) -> str:
    base = prospect.source.base
    return prospect.base if request.base is not None or base is None else base.key


def told_bases(found: Sequence["Prospect"], supply: "Supply", watch: "Watcher") -> tuple[str, ...]:
    """Which bases adapters are merged into: people are told, and of what is local of them the supply."""
    for base in {p.source.base.key: p.source.base for p in found if p.source.base is not None}.values():
        supply.depend_on(base)
    counts = Counter((p.base, _place(p.source.base)) for p in found if p.source.base is not None)
    notes = tuple(
        f"{count} {'run holds a LoRA adapter' if count == 1 else 'runs hold LoRA adapters'} of the base "
        f"{one_line(name) or place}: each is merged into {place}"
        for (name, place), count in counts.items()
    )
    for note in notes:
        watch.say(note)
    return notes


def _place(base: WeightsSource) -> str:
    return str(path_of(base)) if is_local(base) else base.uri
