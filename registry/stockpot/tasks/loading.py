"""Tasks and selection methods by name: Stockpot's own go the way of everybody else's."""

import difflib
import importlib
import inspect
import math
import sys
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from types import FunctionType
from typing import Any, cast

from stockpot.entities import SourceIdentity
from stockpot.errors import BadRequest, BadTask, StockpotError, UnknownPlugin
from stockpot.ports import MakeMethod, Task
from stockpot.tasks.identity import TASKS, installed, loaded_identity, module_of, named_modules
from stockpot.tasks.module_places import look_here_first, own_modules

METHODS = "stockpot.selection_methods"
_brought: dict[str, set[str]] = {}
"""The user's own modules that came with each task, by its reference."""
REQUIRED_METHODS = tuple(
    name for name, value in vars(Task).items() if inspect.isfunction(value) and name[0] != "_"
)


def load_task(reference: str, args: Mapping[str, str]) -> Task:
    """Find a task's class, construct it and hold it to the contract of `stockpot.ports.Task`.

    `reference` is ``module:Class``, the name of an entry point of ``stockpot.tasks``, or ``module:function``
    of a function that scores a split (`stockpot.tasks.functions`).

    Raises UnknownPlugin when the class cannot be found or imported; BadTask when it does not take
    these arguments, or when it breaks its contract, with every fault.
    """
    before = set(sys.modules)
    kind = load_plugin(TASKS, reference)
    if isinstance(kind, FunctionType):
        from stockpot.tasks.functions import task_of

        kind = task_of(kind)
    task = _construct(kind, reference, args)
    _brought.setdefault(reference, set()).update(own_modules(sys.modules.keys() - before))
    faults = _contract_faults(task)
    if faults:
        raise BadTask(
            f"{reference} is no task",
            faults=faults,
            mend=f"change {_file_of(type(task))}; stockpot.ports.Task says what each member does",
        )
    return cast("Task", task)


def lacks_model_folder(reference: str, args: Mapping[str, str]) -> bool:
    """Whether the task is made with a model's folder, ``model=FOLDER``, which these arguments do not name.
    Its class says so by ``takes_model_folder``. Raises UnknownPlugin.
    """
    return "model" not in args and takes_model_folder(reference)


def takes_model_folder(reference: str) -> bool:
    """Whether the task is made with a model's folder, and may be told its ``dtype``. Raises UnknownPlugin."""
    return getattr(load_plugin(TASKS, reference), "takes_model_folder", False) is True


def load_method(name: str) -> MakeMethod:
    """Find a selection method: an entry point of ``stockpot.selection_methods``, or ``module:Class``.

    Raises UnknownPlugin when it cannot be found or imported, or fits coefficients: a `Learner` is to come.
    """
    method = load_plugin(METHODS, name)
    if not callable(method):
        raise UnknownPlugin(f"{name} is a {type(method).__name__}, no selection method", mend="name a class")
    if hasattr(method, "fit"):
        raise UnknownPlugin(
            f"{name} fits coefficients, which this stockpot cannot carry out", mend="use a newer stockpot"
        )
    return cast("MakeMethod", method)


def load_plugin(group: str, reference: str) -> Any:
    """Import what an entry point of this group, or ``module:attribute``, stands for.

    Nothing is imported but the one plugin. Raises UnknownPlugin.
    """
    if ":" in reference:
        return load_object(reference)
    known = installed(group)
    if reference not in known:
        raise UnknownPlugin(
            f"no entry point of {group} is called {reference!r}; installed: {', '.join(known)}",
            mend=_did_you_mean(reference, known) or "name an installed one, or give module:Class",
        )
    return load_object(known[reference])


def load_object(reference: str) -> Any:
    """Import ``module:attribute``, looking in the working directory first, as uvicorn and prefect do.

    Raises UnknownPlugin with the underlying error, and where was looked.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise UnknownPlugin(
            f"{reference!r} is not of the form module:attribute", mend="write package.module:Name"
        )
    look_here_first()
    found = module = _import(module_name, reference)
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise UnknownPlugin(
                f"{reference}: {getattr(module, '__file__', None) or module_name} defines no {name!r}",
                mend=_did_you_mean(name, dir(found))
                or f"define it there, or name what {module_name} does define",
            )
        found = getattr(found, name)
    return found


def write_skeleton(path: Path) -> str:
    """Write a task to begin with to a file that is not there yet. Returns its reference, ``module:Class``.

    Raises BadRequest where a file is there, or cannot be written, or would be no module.
    """
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise BadRequest(f"{path} is no name of a module", mend="stockpot task new birds.py")
    try:
        with path.open("x") as file:
            file.write(resources.files("stockpot.tasks").joinpath("skeleton.py").read_text())
    except FileExistsError:
        raise BadRequest(
            f"{path} is there already, and nothing is overwritten", mend="name another"
        ) from None
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be written: {error.strerror}", mend="name a folder that is there"
        ) from error
    return f"{path.stem}:MyTask"


def task_source(
    task: Task, reference: str | None = None, args: Mapping[str, str] | None = None
) -> SourceIdentity:
    """The code that a loaded task's scores depend on.

    From the module that defines its class, that of the `reference` which it was loaded by, those that its
    arguments name, and those that came with it when it was first loaded, by whatever means. Raises BadTask
    where its class was not defined in a file.
    """
    starts = [
        type(task).__module__,
        *([module_of(reference)] if reference else []),
        *named_modules(args or {}),
        *sorted(_brought.get(reference or "", ())),
    ]
    return loaded_identity(dict.fromkeys(name for name in starts if name in sys.modules))


def task_identity(task: Task, source: SourceIdentity) -> tuple[str, str]:
    """The task's name, ``module:Class``, and its version: ``<task.version>+<hash of the source>``.

    So an edited task is another task even where its author forgot to change ``version``.
    """
    kind = type(task)
    return f"{kind.__module__}:{kind.__qualname__}", f"{task.version}+{source.hash}"


def _import(module_name: str, reference: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # whatever a foreign module does when it is imported
        raise UnknownPlugin(
            f"{reference}: importing {module_name} failed with {type(error).__name__}: {error}",
            faults=[f"looked in {place}" for place in sys.path if isinstance(error, ModuleNotFoundError)],
            mend=f"try: python -c 'import {module_name}'",
        ) from error


def _construct(kind: Any, reference: str, args: Mapping[str, str]) -> Any:
    """Call the class with the arguments, all strings."""
    if not inspect.isclass(kind):
        raise BadTask(
            f"{reference} is a {type(kind).__name__}, not a class",
            mend="name the task's class, or a function",
        )
    signature = inspect.signature(kind)
    try:
        signature.bind(**args)
    except TypeError as error:
        raise BadTask(
            f"{reference} does not take these arguments: {error}",
            faults=[f"accepted: {parameter}" for parameter in signature.parameters.values()],
            mend=f"give each as --task-arg {next(iter(signature.parameters), 'name')}=value",
        ) from error
    try:
        return kind(**args)
    except StockpotError:
        raise
    except Exception as error:  # whatever a foreign constructor does
        raise BadTask(
            f"{reference} cannot be constructed: {type(error).__name__}: {error}",
            faults=[f"{name}={value!r}" for name, value in args.items()],
            mend="mend the --task-arg values; all of them arrive as strings",
        ) from error


def _contract_faults(task: Any) -> list[str]:
    faults = [
        f"method {name}() is missing" for name in REQUIRED_METHODS if not callable(getattr(task, name, None))
    ]
    version = getattr(task, "version", None)
    if not isinstance(version, str) or not version:
        faults.append(f"version must be a string that is not empty, got {version!r}")
    bounds = getattr(task, "bounds", "nothing")
    if bounds is not None and not _are_bounds(bounds):
        faults.append(f"bounds must be (least, greatest), two finite numbers, or None, got {bounds!r}")
    return faults


def _are_bounds(bounds: Any) -> bool:
    try:
        low, high = bounds
        return bool(-math.inf < low < high < math.inf)
    except (TypeError, ValueError):
        return False


def _file_of(definition: Any) -> str | None:
    return getattr(sys.modules.get(definition.__module__), "__file__", None)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""
