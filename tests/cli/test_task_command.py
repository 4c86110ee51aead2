"""`stockpot task`: a task to begin with, what is installed, and whether a task keeps its contract."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stockpot.cli import main
from stockpot.evaluation.task_contract import PROMISES


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield tmp_path
    for name in ("birds", "broken"):
        sys.modules.pop(name, None)


def run(*command: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["task", *command])
    return int(str(ended.value.code))


def test_a_new_task_keeps_its_contract_as_it_is_and_is_never_overwritten(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("new", "birds.py") == 0
    assert "stockpot task check birds:MyTask" in capsys.readouterr().out
    assert run("check", "birds:MyTask", "--task-arg", "n=30", "--split", "validation", "--split", "test") == 0
    told = capsys.readouterr().out
    assert "30 examples" in told
    assert told.count("kept") == 2 * len(PROMISES)
    (elsewhere / "birds.py").write_text("mine")
    assert run("new", "birds.py") == 3
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (elsewhere / "birds.py").read_text() == "mine"


@pytest.mark.parametrize("path", ["birds", "no-module.py", "nowhere/birds.py"])
def test_a_name_that_would_be_no_module_is_refused(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    assert run("new", path) == 3
    assert "To mend it" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []


def test_every_fault_of_a_task_is_told_with_its_mend(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("new", "broken.py") == 0
    file = elsewhere / "broken.py"
    file.write_text(
        file.read_text()
        .replace("    # Optional", "    def groups(self, split):\n        return [1]\n\n    # Optional")
        .replace(".double()\n", ".double() + 7\n")
    )
    capsys.readouterr()
    assert run("check", "broken:MyTask") == 6
    told = capsys.readouterr()
    assert told.out.count("broken") == 2
    assert "outside [0.0, 1.0]" in told.err
    assert "groups('validation') has length 1" in told.err
    assert told.err.count(". To mend it: ") == 2
    assert run("check", "broken:MyTask", "--json") == 6
    findings = json.loads(capsys.readouterr().out)
    assert sum(bool(found["fault"]) for found in findings) == 2


def test_a_split_that_is_not_there_is_told(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "stockpot.testing.tiny:TinyTask", "--split", "nowhere") == 6
    assert "there is no split 'nowhere'" in capsys.readouterr().err


def test_installed_tasks_are_named_by_the_list_and_by_the_help_of_soup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("list") == 0
    assert "arrays  stockpot.tasks.arrays:ArrayClassification" in capsys.readouterr().out
    assert run("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["arrays"] == "stockpot.tasks.arrays:ArrayClassification"
    with pytest.raises(SystemExit):
        main(["soup", "--help"])
    assert "name: arrays" in " ".join(capsys.readouterr().out.replace("│", " ").split())
