"""Where modules lie, and which distribution brought them: found without importing anything."""

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))


@dataclass(frozen=True)
class Place:
    """Where a module lies."""

    file: Path | None
    folders: tuple[str, ...] | None = None
    """Of its submodules, where it is a package."""

    @property
    def standard(self) -> bool:
        """Whether it comes with Python."""
        if self.file is None:
            return self.folders is None
        return not self.installed and any(self.file.resolve().is_relative_to(f) for f in _STANDARD)

    @property
    def installed(self) -> bool:
        """Whether a distribution brought it."""
        return any(not _INSTALLED.isdisjoint(path.parts) for path in self._paths)

    @property
    def site(self) -> Path | None:
        """The folder of installed distributions that it lies in."""
        parents = (parent for path in self._paths for parent in path.parents)
        return next((parent for parent in parents if parent.name in _INSTALLED), None)

    @property
    def _paths(self) -> list[Path]:
        return [self.file] if self.file is not None else [Path(folder) for folder in self.folders or ()]


def distributions(tops: Mapping[str, Place]) -> dict[str, set[tuple[str, str]]]:
    """Name and version of each distribution that brought files of these top-level modules.

    Told by the distributions' lists of files: `importlib.metadata` takes most of a second to read them all.
    Empty where nothing tells.
    """
    found: dict[str, set[tuple[str, str]]] = {top: set() for top in tops}
    for site in {place.site for place in tops.values() if place.site is not None}:
        for record in sorted(site.glob("*.dist-info/RECORD")):
            content = b"\n" + record.read_bytes()
            name, _, number = record.parent.name.removesuffix(".dist-info").rpartition("-")
            for top in tops:
                if f"\n{top}/".encode() in content or f"\n{top}.".encode() in content:
                    found[top].add((name, number))
    for top in (top for top, known in found.items() if not known):
        with suppress(PackageNotFoundError):
            found[top].add((top, version(top)))
    return found


def look_here_first() -> None:
    """Let imports look in the working directory first, as uvicorn and prefect do."""
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)


def find_on_path(name: str) -> Place | None:
    """Where an import would find it now; None where nothing would. Imports nothing, not even its package."""
    package, _, _ = name.rpartition(".")
    folders = None
    if package:
        parent = find_on_path(package)
        if parent is None or parent.folders is None:
            return None
        folders = parent.folders
    return _of_spec(_spec(name, folders))


def find_loaded(name: str) -> Place | None:
    """Where it was found when it was imported; where it has not been, where an import would find it."""
    module = sys.modules.get(name)
    if module is None:
        return find_on_path(name)
    place = _of_spec(getattr(module, "__spec__", None))
    file = getattr(module, "__file__", None)
    if place is None or (place.file is None and file):
        return Place(Path(file) if file else None, place.folders if place is not None else None)
    return place


def own_modules(names: Iterable[str]) -> Iterator[str]:
    """Those of these imported modules that are files of the user's own: not Python's, installed or ours."""
    for name in names:
        place = find_loaded(name)
        own = place is not None and place.file is not None and not (place.standard or place.installed)
        if own and name.partition(".")[0] != "stockpot":
            yield name


def _spec(name: str, folders: tuple[str, ...] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        with suppress(ImportError, AttributeError, ValueError):  # a stranger's finder
            spec = finder.find_spec(name, folders)
            if spec is not None:
                return spec
    return None


def _of_spec(spec: ModuleSpec | None) -> Place | None:
    if spec is None:
        return None
    file = Path(spec.origin).absolute() if spec.origin and spec.has_location else None
    folders = spec.submodule_search_locations
    return Place(file, None if folders is None else tuple(folders))
