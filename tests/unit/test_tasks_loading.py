import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from stockpot.entities import Contender, Recipe
from stockpot.errors import BadTask, UnknownPlugin
from stockpot.ports import Bench
from stockpot.tasks.identity import TASKS
from stockpot.tasks.loading import (
    METHODS,
    load_method,
    load_object,
    load_plugin,
    load_task,
    task_identity,
    task_source,
)

WHOLE = """
class {name}:
    version = "3"
    bounds = (0, 1)
    def __init__(self, path: str = "x", depth: str = "1") -> None:
        self.path, self.depth = path, int(depth)
    def model(self): ...
    def examples(self, split): ...
    def collate(self, examples): ...
    def predict(self, model, batch): ...
    def score(self, outputs, batch): ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A fresh module in the working directory, which is not on sys.path; its name, unique per test."""
    name = f"plugin_{abs(hash(request.node.nodeid))}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    Path(f"{name}.py").write_text(WHOLE.format(name="Whole"))
    return name


def test_a_task_is_found_in_the_working_directory_and_given_its_arguments(module: str) -> None:
    task = load_task(f"{module}:Whole", {"path": "data", "depth": "4"})
    assert vars(task) == {"path": "data", "depth": 4}


def test_built_in_tasks_and_methods_are_found_by_their_entry_points() -> None:
    assert load_plugin(TASKS, "arrays") is load_object("stockpot.tasks.arrays:ArrayClassification")
    assert load_method("greedy") is load_object("stockpot.selection.greedy:Greedy")


class Fitting:
    """A Learner."""

    name = "fitting"

    def fit(self, contenders: Sequence[Contender], bench: Bench) -> Recipe:
        raise NotImplementedError


def test_a_method_that_fits_coefficients_is_refused_before_anything_is_measured() -> None:
    assert isinstance(Fitting().name, str)
    with pytest.raises(UnknownPlugin, match="fits coefficients, which this stockpot cannot carry out"):
        load_method(f"{__name__}:Fitting")


@pytest.mark.parametrize(
    ("group", "typed", "meant"), [(TASKS, "array", "arrays"), (METHODS, "gredy", "greedy")]
)
def test_an_unknown_name_is_answered_with_the_closest_one(group: str, typed: str, meant: str) -> None:
    with pytest.raises(UnknownPlugin, match=f"did you mean '{meant}'"):
        load_plugin(group, typed)


def test_an_unknown_class_is_answered_with_the_closest_one(module: str) -> None:
    with pytest.raises(UnknownPlugin, match=rf"{module}\.py defines no 'Whol'\n.*did you mean 'Whole'"):
        load_task(f"{module}:Whol", {})


def test_a_missing_module_is_reported_with_the_places_that_were_searched(module: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownPlugin, match=f"No module named '{module}_x'") as error:
        load_task(f"{module}_x:Whole", {})
    assert f"looked in {tmp_path}" in error.value.faults


def test_a_module_that_fails_to_import_shows_its_own_error(module: str) -> None:
    Path(f"{module}.py").write_text("raise ZeroDivisionError('by design')")
    with pytest.raises(UnknownPlugin, match="ZeroDivisionError: by design") as error:
        load_task(f"{module}:Whole", {})
    assert isinstance(error.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("reference", [":Whole", "module:", "greedy:"])
def test_a_reference_of_another_form_is_refused(reference: str) -> None:
    with pytest.raises(UnknownPlugin, match="module:attribute"):
        load_object(reference)


def test_every_broken_promise_of_a_task_is_reported_at_once(module: str) -> None:
    Path(f"{module}.py").write_text(
        "class Bare:\n    bounds = (1, 0)\n    def model(self): ...\n    score = 3\n"
    )
    with pytest.raises(BadTask) as error:
        load_task(f"{module}:Bare", {})
    assert error.value.faults == (
        "method examples() is missing",
        "method collate() is missing",
        "method predict() is missing",
        "method score() is missing",
        "version must be a string that is not empty, got None",
        "bounds must be (least, greatest), two finite numbers, or None, got (1, 0)",
    )


@pytest.mark.parametrize(
    "bounds", ["(0, float('inf'))", "(1, 1)", "(0, 1, 2)", "'01'", "0.5", "(0, float('nan'))"]
)
def test_bounds_that_bound_nothing_are_refused(module: str, bounds: str) -> None:
    Path(f"{module}.py").write_text(WHOLE.format(name="Whole").replace("(0, 1)", bounds))
    with pytest.raises(BadTask, match="bounds must be"):
        load_task(f"{module}:Whole", {})


def test_absent_bounds_are_a_fault_but_none_is_not(module: str) -> None:
    source = WHOLE.format(name="Whole")
    Path(f"{module}.py").write_text(
        source.replace("(0, 1)", "None") + source.replace("bounds = (0, 1)", "").replace("Whole", "Unbound")
    )
    assert load_task(f"{module}:Whole", {}).bounds is None
    with pytest.raises(BadTask, match="bounds must be"):
        load_task(f"{module}:Unbound", {})


def test_wrong_arguments_are_answered_with_the_accepted_ones(module: str) -> None:
    with pytest.raises(BadTask, match="unexpected keyword argument 'depht'") as error:
        load_task(f"{module}:Whole", {"depht": "4"})
    assert error.value.faults == ("accepted: path: str = 'x'", "accepted: depth: str = '1'")
    assert "--task-arg" in error.value.mend


def test_a_constructor_that_fails_is_reported_with_the_arguments(module: str) -> None:
    with pytest.raises(BadTask, match="ValueError") as error:
        load_task(f"{module}:Whole", {"depth": "deep"})
    assert error.value.faults == ("depth='deep'",)


def test_what_is_neither_a_class_nor_a_function_is_no_task(module: str) -> None:
    Path(f"{module}.py").write_text("whole = 7")
    with pytest.raises(BadTask, match="is a int, not a class"):
        load_task(f"{module}:whole", {})


def test_an_edited_module_is_another_version_of_its_task(module: str) -> None:
    task = load_task(f"{module}:Whole", {})
    name, version = task_identity(task, task_source(task))
    assert name == f"{module}:Whole"
    assert task_identity(task, task_source(task)) == (name, version)
    with Path(f"{module}.py").open("a") as source:
        source.write("# another way to score\n")
    edited = task_identity(task, task_source(task))[1]
    assert edited != version
    assert {edited[:2], version[:2]} == {"3+"}


def test_a_task_that_lies_in_no_file_is_refused(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task(f"{module}:Whole", {})
    monkeypatch.delattr(sys.modules[module], "__file__")
    monkeypatch.setattr(sys.modules[module], "__spec__", None)
    with pytest.raises(BadTask, match="not defined in a file"):
        task_source(task)
