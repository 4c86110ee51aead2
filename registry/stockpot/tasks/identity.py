"""Which code a task consists of: found by reading its modules, without importing them."""

import ast
import hashlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import entry_points

from stockpot.entities import SourceIdentity
from stockpot.errors import BadTask
from stockpot.tasks.module_places import Place, distributions, find_loaded, find_on_path, look_here_first

TASKS = "stockpot.tasks"
"""The group of entry points that names tasks."""
_PARTS_OF_TASKS = "stockpot.tasks.arrays", "stockpot.tasks.huggingface", "stockpot.demo", "stockpot.testing"
"""What of Stockpot may be part of a task: the rest is what evaluates it."""
_IMPORTING = frozenset({"import_module", "__import__"})
_OTHERWISE = frozenset(
    {
        *(
            "spec_from_file_location",
            "module_from_spec",
            "exec_module",
            "load_module",
            "run_path",
            "run_module",
        ),
        *("SourceFileLoader", "SourcelessFileLoader", "ExtensionFileLoader", "resolve_name", "entry_points"),
        *("pydoc", "CDLL", "PyDLL", "LoadLibrary", "load_library"),
    }
)
_TEXT = frozenset({"exec", "eval"})
_ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb"})
_FINDING = frozenset({"path", "meta_path", "path_hooks"})


def source_identity(reference: str, args: Mapping[str, str] | None = None) -> SourceIdentity:
    """The source of the task that ``module:Class``, or an entry point of ``stockpot.tasks``, stands for.

    The module itself, every module of the user's own code that it imports, directly or not, and the
    installed distributions that those import. A module that an argument names, as ``module:attribute``, is
    followed too. Nothing of it is imported, so that this takes a fraction of a second; `doubts` says what
    reading cannot tell. Raises nothing: what cannot be found is among `absent`.
    """
    look_here_first()
    importlib.invalidate_caches()
    starts = [module_of(reference), *named_modules(args or {})]
    return _Reading(find_on_path, starts).identity()


def loaded_identity(modules: Iterable[str]) -> SourceIdentity:
    """The source of these modules, which are imported already, and of what they import.

    What was found only because another module had changed ``sys.path`` is found here, too. Raises BadTask
    for a module that was not read from a file.
    """
    starts = list(modules)
    source = _Reading(find_loaded, starts).identity()
    if unread := sorted(set(starts) - dict(source.modules).keys()):
        raise BadTask(
            f"{', '.join(unread)}: not defined in a file",
            mend="move the task to a module: scores are remembered under a hash of its source",
        )
    return source


def named_modules(args: Mapping[str, str]) -> Iterator[str]:
    """The modules of those arguments of a task that read ``module:attribute``."""
    for value in args.values():
        module, colon, attribute = value.partition(":")
        if colon and all(name.isidentifier() for name in (*module.split("."), *attribute.split("."))):
            yield module


def installed(group: str) -> dict[str, str]:
    """The entry points of this group: what each name stands for, by name."""
    return {point.name: point.value for point in sorted(entry_points(group=group))}


def module_of(reference: str) -> str:
    """The module of ``module:Class``, or of what an entry point of ``stockpot.tasks`` stands for."""
    if ":" not in reference:
        reference = installed(TASKS).get(reference, reference)
    return reference.partition(":")[0]


class _Reading:
    """Follows imports from module to module."""

    def __init__(self, find: Callable[[str], Place | None], starts: list[str]) -> None:
        self._find = find
        # The task's own package is the user's code also where it is installed: its version may stay the same.
        self._own = {start.partition(".")[0] for start in starts}
        self._modules: dict[str, str] = {}
        self._tops: dict[str, Place] = {}
        self._absent: set[str] = set()
        self._doubts: set[str] = set()
        self._places: dict[str, Place | None] = {}
        self._pending: list[tuple[str, Place]] = []
        self._passed: set[ast.AST] = set()
        """Nodes that are understood with the ones around them."""
        for start in starts:
            self._require(start, start=True)
        while self._pending:
            self._read(*self._pending.pop())

    def identity(self) -> SourceIdentity:
        """All that was found."""
        found = distributions(self._tops)
        unknown = {
            f"nothing tells which version of {top} is installed" for top, known in found.items() if not known
        }
        return SourceIdentity(
            tuple(sorted(self._modules.items())),
            tuple(sorted(set().union(*found.values()))),
            tuple(sorted(self._absent)),
            tuple(sorted(self._doubts | unknown)),
        )

    def _require(self, name: str, *, start: bool = False) -> None:
        """Follow an import of this module: its packages' modules are run, too."""
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            last = depth == len(parts)
            if not self._follow(".".join(parts[:depth]), start=start and last):
                return

    def _follow(self, name: str, *, start: bool = False, sure: bool = True) -> bool:
        """Whether there may be own modules below it."""
        if name in self._places:
            place = self._places[name]
            return place is not None and place.folders is not None
        top = name.partition(".")[0]
        if top == "stockpot" and not start and not name.startswith(_PARTS_OF_TASKS):
            return any(part.startswith(f"{name}.") for part in _PARTS_OF_TASKS)
        place = self._find(name)
        if place is None:
            if sure:
                self._absent.add(name)
        elif place.standard:
            return False
        elif place.installed and top not in self._own:
            self._tops.setdefault(top, place)
            return False
        else:
            self._pending.append((name, place))
        self._places[name] = place
        return place is not None and place.folders is not None

    def _read(self, name: str, place: Place) -> None:
        if place.file is None:  # a package without a module of its own
            return
        content = place.file.read_bytes()
        self._modules[name] = hashlib.sha256(content).hexdigest()[:12]
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError, RecursionError):
            self._doubts.add(f"what {name} imports cannot be read: {place.file.name} is no Python source")
            return
        package = name if place.folders is not None else name.rpartition(".")[0]
        for node in ast.walk(tree):
            self._node(node, name, package)

    def _node(self, node: ast.AST, name: str, package: str) -> None:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    self._require(alias.name)
                    self._doubt(name, alias.name)
            case ast.ImportFrom(module=module, names=names, level=level):
                self._import_from(_absolute(module, level, package), names)
                self._doubt(name, module or "", "?")
                for alias in names:
                    if alias.asname is not None or alias.name not in _IMPORTING | _ENVIRONMENT:
                        self._doubt(name, alias.name, module or "")
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=args) if (
                called in _IMPORTING
            ):
                self._passed.add(node.func)
                self._import_called(name, args)
            case (
                ast.Subscript(value=settings, ctx=ast.Store() | ast.Del())
                | ast.Attribute(value=settings, attr="setdefault" | "update")
            ):
                self._passed.add(settings)
            case _ if node not in self._passed:
                self._reference(node, name)

    def _reference(self, node: ast.AST, name: str) -> None:
        """A name is enough: it may be called by another one, or by somebody else."""
        match node:
            case ast.Name(id=used, ctx=ast.Load()):
                self._doubt(name, used)
            case ast.Attribute(value=ast.Name(id=owner), attr=used):
                self._doubt(name, used, owner)
            case ast.Attribute(attr=used):
                self._doubt(name, used, "?")
            case ast.Constant(value=str(text)) if text in _IMPORTING:
                self._doubt(name, text)

    def _doubt(self, name: str, used: str, owner: str = "builtins") -> None:
        """Whether this name, of that owner, lets code or settings in that reading cannot follow."""
        if used in _IMPORTING:
            self._doubts.add(f"{name} imports modules by names that it computes")
        elif used in _OTHERWISE:
            self._doubts.add(f"{name} runs code that it finds by itself ({used})")
        elif used in _TEXT and owner == "builtins":  # and no module's eval()
            self._doubts.add(f"{name} runs text ({used})")
        elif used in _ENVIRONMENT:
            self._doubts.add(f"{name} reads variables of the environment")
        elif used in _FINDING and owner == "sys":
            self._doubts.add(f"{name} uses sys.{used}: modules may be found elsewhere")

    def _import_from(self, base: str, names: list[ast.alias]) -> None:
        if not base:
            return
        self._require(base)
        place = self._places.get(base)
        if place is not None and place.folders is not None:
            for alias in names:
                self._follow(f"{base}.{alias.name}", sure=False)  # a module, or a name in one

    def _import_called(self, name: str, args: list[ast.expr]) -> None:
        match args:
            case [ast.Constant(value=str(module))] if not module.startswith("."):
                self._require(module)
            case _:
                self._doubts.add(f"{name} imports modules by names that it computes")


def _absolute(module: str | None, level: int, package: str) -> str:
    """The full name of what ``from ..module import`` names; empty where that leads out of every package."""
    if level == 0:
        return module or ""
    parents = package.split(".")[: len(package.split(".")) - (level - 1)]
    return ".".join([*parents, *([module] if module else [])]) if package else ""
