"""What whole walks need of the process that they run in."""

import sys
from collections.abc import Iterator
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


@pytest.fixture
def sweep(mlflow_uri: str, experiment: str, home: Path) -> Iterator[str]:
    """The experiment's name, which is MLflow's active one meanwhile."""
    import mlflow

    assert not home.exists()
    mlflow.set_tracking_uri(mlflow_uri)
    mlflow.set_experiment(experiment)
    yield experiment
    mlflow.end_run()
