"""Scores do not survive an edit: the source of a task is found by reading, and without torch."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stockpot.tasks.arrays import ArrayClassification
from stockpot.tasks.identity import source_identity
from stockpot.tasks.loading import load_task, task_identity, task_source


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a task that keeps its scoring function elsewhere."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_package" / "deep").mkdir(parents=True)
    (tmp_path / "own_package" / "__init__.py").write_text("scale = 1\n")
    (tmp_path / "own_package" / "deep" / "__init__.py").write_text("from ..sibling import offset\n")
    (tmp_path / "own_package" / "sibling.py").write_text("offset = 0\n")
    (tmp_path / "own_scoring.py").write_text("def right(a, b): return a == b\n")
    (tmp_path / "own_task.py").write_text(_TASK)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


_TASK = """
import json

import numpy
from own_package import deep
from stockpot.ports import Task


class Own:
    version, bounds, batch_size = "1", (0.0, 1.0), 4
    def __init__(self, data: str = "x", model: str = ""): ...
    def model(self): ...
    def examples(self, split): ...
    def collate(self, examples): ...
    def predict(self, model, batch): ...
    def score(self, outputs, batch):
        from own_scoring import right
        return right(outputs, batch)
"""
OWN = {"own_task", "own_scoring", "own_package", "own_package.deep", "own_package.sibling"}


def names(reference: str = "own_task:Own", **args: str) -> set[str]:
    """Of the modules that a task consists of."""
    return set(dict(source_identity(reference, args).modules))


def loaded_version() -> str:
    """As a request finds it."""
    task = load_task("own_task:Own", {})
    return task_identity(task, task_source(task, "own_task:Own"))[1]


def test_every_own_module_that_a_task_imports_is_part_of_it(project: Path) -> None:
    identity = source_identity("own_task:Own")
    assert set(dict(identity.modules)) == OWN
    assert dict(identity.distributions).keys() == {"numpy"}
    assert (identity.absent, identity.doubts) == ((), ())


@pytest.mark.parametrize("name", ["own_task", "own_scoring", "own_package/__init__", "own_package/sibling"])
def test_no_score_survives_an_edit_of_what_the_task_imports(project: Path, name: str) -> None:
    static, loaded = source_identity("own_task:Own").digest, loaded_version()
    assert (source_identity("own_task:Own").digest, loaded_version()) == (static, loaded)
    with (project / f"{name}.py").open("a") as module:
        module.write("# the other way round\n")
    assert source_identity("own_task:Own").digest != static
    assert loaded_version() != loaded


def test_reading_a_task_and_importing_it_find_the_same(project: Path) -> None:
    static = source_identity("own_task:Own")
    assert task_source(load_task("own_task:Own", {}), "own_task:Own") == static


def test_reading_a_task_imports_nothing_of_it_and_no_torch(project: Path) -> None:
    (project / "own_scoring.py").write_text("import torch\nraise SystemExit('imported')\n")
    code = (
        "import sys; from stockpot.tasks.identity import source_identity as s; i = s('own_task:Own');"
        "print('torch' in dict(i.distributions), {'torch', 'numpy', 'own_package'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "True set()"


def test_a_module_that_an_argument_names_is_part_of_the_task(project: Path) -> None:
    (project / "own_models.py").write_text("import own_layers\n")
    (project / "own_layers.py").write_text("")
    found = names(model="own_models:small", data="C:/digits.npz")
    assert found == OWN | {"own_models", "own_layers"}


def test_a_partial_with_other_arguments_is_another_model(project: Path, tmp_path: Path) -> None:
    import numpy as np

    np.savez("data.npz", validation_x=np.zeros((2, 3), np.float32), validation_y=np.zeros(2, int))
    (project / "own_models.py").write_text("from functools import partial\nsmall = partial(dict, width=1)\n")
    one = ArrayClassification("data.npz", "own_models:small").version
    (project / "own_models.py").write_text("from functools import partial\nsmall = partial(dict, width=2)\n")
    assert ArrayClassification("data.npz", "own_models:small").version != one


def test_a_module_found_by_a_changed_path_is_found_once_it_was_imported(project: Path) -> None:
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "own_hidden.py").write_text("")
    (project / "own_scoring.py").write_text("import sys\nsys.path.append('elsewhere')\nimport own_hidden\n")
    static = source_identity("own_task:Own")
    assert static.absent == ("own_hidden",)
    assert "own_scoring uses sys.path" in static.doubts[0]
    task = load_task("own_task:Own", {})
    import own_scoring  # type: ignore[import-not-found]  # noqa: F401

    assert "own_hidden" in dict(task_source(task).modules)


def test_what_reading_cannot_tell_is_a_doubt(project: Path) -> None:
    (project / "own_scoring.py").write_text(
        "import importlib\nimportlib.import_module(chosen)\nimportlib.import_module('own_package.sibling')\n"
    )
    (project / "own_package" / "sibling.py").write_text("def (:\n")
    doubts = source_identity("own_task:Own").doubts
    assert doubts == (
        "own_scoring imports modules by names that it computes",
        "what own_package.sibling imports cannot be read: sibling.py is no Python source",
    )


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("os.environ['DATA']", True),
        ("os.environ.get('DATA', '')", True),
        ("os.getenv('DATA')", True),
        ("os.environ['TOKENIZERS_PARALLELISM'] = 'false'", False),
        ("os.environ.setdefault('OMP_NUM_THREADS', '1')", False),
    ],
)
def test_a_task_that_reads_the_environment_depends_on_it(project: Path, line: str, *, reads: bool) -> None:
    (project / "own_scoring.py").write_text(f"import os\n{line}\n")
    doubts = source_identity("own_task:Own").doubts
    assert doubts == (("own_scoring reads variables of the environment",) if reads else ())


@pytest.mark.parametrize(
    "way",
    [
        "from importlib import import_module as im\nim('own_helper')",
        "import importlib\nload = importlib.import_module\nload('own_helper')",
        "import importlib\nlist(map(importlib.import_module, ['own_helper']))",
        "import functools, importlib\nfunctools.partial(importlib.import_module, 'own_helper')()",
        "import importlib\ngetattr(importlib, 'import_module')('own_helper')",
        "import pydoc\npydoc.locate('own_helper')",
        "from pydoc import locate\nlocate('own_helper')",
        "import pkgutil\npkgutil.resolve_name('own_helper')",
        "import builtins\nbuiltins.exec('import own_helper')",
        "run = exec\nrun('import own_helper')",
    ],
)
def test_whichever_way_a_module_is_imported_its_edit_makes_another_task_and_it_is_told(
    project: Path, way: str
) -> None:
    (project / "own_helper.py").write_text("")
    (project / "own_scoring.py").write_text(way)
    (project / "own_task.py").write_text(f"import own_scoring\n{_TASK}")
    before = loaded_version()
    assert "own_helper" in dict(task_source(load_task("own_task:Own", {}), "own_task:Own").modules)
    (project / "own_helper.py").write_text("# edited")
    assert loaded_version() != before
    assert len(source_identity("own_task:Own").doubts) == 1


@pytest.mark.parametrize(
    "line",
    ["from os import environ as e", "x = os.environ", "print(os.environ)", "ctypes.CDLL('./score.so')"],
)
def test_what_is_only_referred_to_is_a_doubt_as_well(project: Path, line: str) -> None:
    (project / "own_scoring.py").write_text(f"import ctypes, os\n{line}\n")
    assert len(source_identity("own_task:Own").doubts) == 1


def test_methods_that_are_called_like_builtins_are_no_doubt(project: Path) -> None:
    (project / "own_scoring.py").write_text("model.eval()\nmodel.exec\nmode = 'eval'\nos.path.join\n")
    assert source_identity("own_task:Own").doubts == ()


def test_an_optional_module_that_appears_makes_another_task(project: Path) -> None:
    (project / "own_scoring.py").write_text("try: import own_fast\nexcept ImportError: pass\n")
    before = source_identity("own_task:Own")
    assert before.absent == ("own_fast",)
    (project / "own_fast.py").write_text("")
    assert "own_fast" in names()


def test_the_tasks_of_stockpot_name_no_module_that_only_evaluates_them() -> None:
    identity = source_identity("arrays")
    assert dict(identity.modules).keys() == {"stockpot.tasks.arrays"}
    assert {"torch", "numpy"} <= dict(identity.distributions).keys()
    assert identity.doubts == ()


def test_a_task_that_does_not_exist_is_an_absent_module_and_no_error(project: Path) -> None:
    assert source_identity("own_nothing.at.all:Task").absent == ("own_nothing",)
    assert source_identity("no such entry point").absent == ("no such entry point",)
