"""Commands, options and exit codes are told where people look."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from stockpot import errors
from stockpot.cli import app, main

README = (Path(__file__).parents[2] / "README.md").read_text()


def _commands() -> dict[str, Any]:
    found: dict[str, Any] = {}
    commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    for name, command in commands.items():
        below = getattr(command, "commands", {"": command})
        found |= {f"{name} {inner}".strip(): leaf for inner, leaf in below.items()}
    return found


@pytest.mark.parametrize("name", _commands())
def test_every_command_has_help_an_example_json_and_a_place_in_the_readme(name: str) -> None:
    command = _commands()[name]
    assert command.help
    assert command.epilog is not None
    assert command.epilog.startswith(f"Example: stockpot {name}")
    assert any("--json" in option.opts for option in command.params)
    assert f"stockpot {name}" in README


@pytest.mark.parametrize("name", _commands())
def test_every_option_says_what_it_is_for(name: str) -> None:
    for option in _commands()[name].params:
        assert getattr(option, "help", None), option.name


def test_the_readme_tells_every_exit_code() -> None:
    codes = {getattr(error, "exit_code", 1) for error in vars(errors).values()}
    told = README.split("Exit codes: ")[1].partition(".\n")[0].replace("\n", " ")
    assert codes <= {int(each.split()[0]) for each in told.split("; ")}


def test_every_option_of_soup_lies_in_a_panel() -> None:
    for option in _commands()["soup"].params:
        assert option.name == "as_json" or option.rich_help_panel, option.name


def test_the_program_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"stockpot {metadata.version('stockpot')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands_and_options(shell: str) -> None:
    asked = {"_STOCKPOT_COMPLETE": f"source_{shell}"}
    program = [
        sys.executable,
        "-c",
        "from stockpot.cli import main; import sys; sys.argv[0] = 'stockpot'; main()",
    ]
    script = subprocess.run(
        program, env=os.environ | asked, capture_output=True, text=True, check=True
    ).stdout
    assert "stockpot" in script
    assert "_STOCKPOT_COMPLETE" in script
