"""What a soup asks to be installed: torch, MLflow, and the distributions that its model really comes from.

Nothing else may stand there, whatever an ingredient's own requirements say: pip follows options, files and
addresses in a requirement, wherever the soup is served.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    packages_distributions,
    version,
)

_NAME = r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:\[[A-Za-z0-9,._ -]*\])?"
PLAIN = re.compile(rf"{_NAME}==[A-Za-z0-9.!+_-]+")
"""``name[extras]==version``."""
RANGE = re.compile(rf"{_NAME}(?: *[<>=!~]=? *[A-Za-z0-9.*!+_,<>=~]+)?")
"""``name[extras]``, with versions or without."""
ALWAYS = ("torch", "mlflow")


def distribution_of(line: str, *, of_any_version: bool = False) -> str | None:
    """The distribution that a plain requirement names, as PEP 503 writes it; None for any other line.

    `of_any_version`: also where it names a range of versions, or none.
    """
    found = (RANGE if of_any_version else PLAIN).fullmatch(line.strip())
    return None if found is None else re.sub(r"[-_.]+", "-", found[1]).lower()


def requirements(modules: Iterable[str], *others: str) -> list[str]:
    """Plain lines, of the versions that are installed here: what was tried here is what is asked for.

    `modules`: names of Python modules that the model is made of. Those that no distribution of an index
    holds, a user's own for example, are left out. `others`: distributions besides.
    """
    names = dict.fromkeys((*ALWAYS, *others, *_distributions(modules)))
    # A local version (+cpu) is on no index.
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def _distributions(modules: Iterable[str]) -> Iterator[str]:
    for top in sorted({module.partition(".")[0] for module in modules} - sys.stdlib_module_names):
        for name in _owners().get(top, ()):
            if _is_on_an_index(name):
                yield re.sub(r"[-_.]+", "-", name).lower()


@cache
def _owners() -> Mapping[str, list[str]]:
    """The distributions of each module: to read them all takes a second or two."""
    return packages_distributions()


def _is_on_an_index(name: str) -> bool:
    """What was installed from a folder or an address (PEP 610) may be nowhere else."""
    try:
        found: Distribution = distribution(name)
    except PackageNotFoundError:
        return False
    return found.read_text("direct_url.json") is None
