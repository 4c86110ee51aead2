"""What whole walks need of the process that they run in."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def modules_of_other_tests_are_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Those were written while this process ran already, which no answer may rest on."""
    base = tmp_path_factory.getbasetemp()
    for name, module in tuple(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(base):
            monkeypatch.delitem(sys.modules, name)
