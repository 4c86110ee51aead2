"""What cannot be registered is found early, and what was measured is never lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stockpot.entities import SoupRequest
from stockpot.errors import StockpotError, TrackingError
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.publishing.markdown import folded
from stockpot.workflow.publishing.page import markdown_table
from stockpot.workflow.publishing.verdict import columns
from stockpot.workflow.walk import in_turn, walk

pytestmark = pytest.mark.slow
UNEXPORTABLE = """
import pathlib
import torch
from stockpot.testing.tiny import TinyTask, dense

class Branching(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = dense()

    def forward(self, x):
        return self.body(x) if x.sum().item() > -1e9 else self.body(-x)

class OnceTask(TinyTask):
    "Reads its data once: a served model cannot make it again."

    def __init__(self, kind, n, folder):
        super().__init__(kind, n)
        self.folder = pathlib.Path(folder)
        (self.folder / "data").rename(self.folder / "used")

    def model(self):
        return Branching()

    def predict(self, model, batch):
        with (self.folder / "passes").open("a") as passes:
            passes.write("x")
        return super().predict(model, batch)
"""


class Listening(Silent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, message: str) -> None:
        self.heard.append(message)


@pytest.fixture
def request_(tiny_sweep: SoupRequest) -> SoupRequest:
    return replace(tiny_sweep, methods=("greedy",))


def test_a_model_that_cannot_be_registered_is_found_before_the_first_forward_pass(
    mlflow_uri: str, experiment: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from stockpot.testing.sweeps import plant_sweep
    from stockpot.testing.tiny import weights

    assert not home.exists()
    runs = {
        f"tune-{seed}": {f"body.{name}": tensor for name, tensor in weights("dense", seed=seed).items()}
        for seed in range(2)
    }
    (tmp_path / "once_task.py").write_text(UNEXPORTABLE)
    (tmp_path / "data").touch()
    monkeypatch.chdir(tmp_path)
    request = SoupRequest(
        model="tiny",
        sweep=plant_sweep(MlflowClient(mlflow_uri), experiment, runs),
        task="once_task:OnceTask",
        task_args={"kind": "dense", "n": "8", "folder": str(tmp_path)},
    )
    with pytest.raises(StockpotError, match="data"):
        walk(request, Workplace(), in_turn, Silent())
    assert not (tmp_path / "passes").exists()
    assert MlflowClient(mlflow_uri).search_model_versions("name='tiny'") == []


def test_a_candidate_that_cannot_be_packaged_leaves_the_rehearsal_to_the_next_one(
    request_: SoupRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stockpot.errors import Incompatible

    place = Workplace()
    package, tried = place.tracker.package, list[str]()

    def once(*args: Any, **kwargs: Any) -> Any:
        tried.append(kwargs["like"].run.name)
        if len(tried) == 1:
            raise Incompatible("a fault of this run")
        return package(*args, **kwargs)

    monkeypatch.setattr(place.tracker, "package", once)
    walk(request_, place, in_turn, Silent())
    assert tried[:2] == ["tune-0", "tune-1"]


@pytest.mark.parametrize("stopped", [TrackingError("the disk is full"), KeyError("x"), KeyboardInterrupt()])
def test_whatever_stops_the_registration_the_table_is_told_and_kept(
    request_: SoupRequest, monkeypatch: pytest.MonkeyPatch, stopped: BaseException
) -> None:
    place, watch = Workplace(), Listening()

    def failing(*_: object) -> None:
        raise stopped

    monkeypatch.setattr(place.tracker, "create_run", failing)
    with pytest.raises(type(stopped)):
        walk(request_, place, in_turn, watch)
    outcome = walk(request_, Workplace(), in_turn, Silent())
    assert outcome.evaluations == 0
    table = markdown_table(outcome.report, columns(request_), folded)
    assert "\n".join(filter(None, table.splitlines())) in "\n".join(watch.heard)
    (filed,) = place.store.reports(outcome.soups[0].recipe)
    assert filed.report == outcome.report


def test_a_repeated_request_rehearses_nothing(request_: SoupRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    walk(request_, Workplace(), in_turn, Silent())
    place = Workplace()
    never: Callable[..., Any] = pytest.fail
    monkeypatch.setattr(place.tracker, "package", never)
    walk(request_, place, in_turn, Silent())
