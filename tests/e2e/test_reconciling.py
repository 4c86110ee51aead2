"""`stockpot reconcile` over a real MLflow: what is adopted was made again, and no alias is lost."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from stockpot.cli import main
from stockpot.entities import PublishedSoup, SoupRequest, SoupState
from stockpot.testing.crashes import Crash, CrashingTracker
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow import reconciling
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from stockpot.ports import Tracker

pytestmark = pytest.mark.slow
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def request_(tiny_sweep: SoupRequest) -> SoupRequest:
    return replace(tiny_sweep, methods=("greedy",), shifts=(), margin=-100.0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_it(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main(["reconcile", "--json", *arguments])
        assert int(ended.value.code or 0) == code
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    return run_it


def _soup(request: SoupRequest) -> PublishedSoup:
    with Workplace() as place:
        (soup,) = walk(request, place, in_turn, Silent()).soups
    return soup


def test_versions_that_a_store_does_not_know_are_made_again_and_adopted(
    request_: SoupRequest, home: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    soup = _soup(request_)
    assert run() == []
    shutil.rmtree(home)
    (found,) = run()
    assert (found["kind"], found["what"], found["done"]) == ("version without row", soup.uri, False)
    with pytest.raises(SystemExit):
        main(["reconcile"])
    told = capsys.readouterr().out
    assert f"version without row: {soup.uri}" in told
    assert "1 discrepancy. 1 thing can be settled: --yes does it." in told
    (settled,) = run("--yes")
    assert settled == {**found, "done": True}
    with Workplace() as place:
        (row,) = place.store.registrations()
    assert (row.recipe, row.checkpoint, row.run_id) == (soup.recipe, soup.checkpoint, soup.run_id)
    assert run("--yes") == []
    assert _soup(request_) == replace(soup, state=SoupState.ADOPTED)


def test_copied_tags_on_other_weights_get_no_row(
    request_: SoupRequest, client: "MlflowClient", home: Path, tmp_path: Path, run: Run
) -> None:
    _soup(request_)
    version = client.get_model_version("tiny", "1")
    location = client.get_model_version_download_uri("tiny", "1").removeprefix("file://")
    Path(location, "model.safetensors").write_bytes(b"others")
    shutil.rmtree(home)
    (found,) = run("--yes", code=8)
    assert "does not hold that soup" in found["fault"]
    assert not found["done"]
    assert version.tags["stockpot.recipe"] in json.dumps(found) or found["what"] == "models:/tiny/1"
    with Workplace() as place:
        assert place.store.registrations() == ()


def test_a_late_duplicate_loses_our_alias_to_the_lowest_and_keeps_a_persons(
    request_: SoupRequest, client: "MlflowClient", home: Path, run: Run
) -> None:
    soup = _soup(request_)
    assert soup.aliases == ("challenger",)
    version = client.get_model_version("tiny", "1")
    assert version.source
    late = client.create_model_version("tiny", version.source, version.run_id, tags=version.tags).version
    client.set_registered_model_alias("tiny", "challenger", late)
    client.set_registered_model_alias("tiny", "production", late)
    (found,) = run("--yes")
    assert (found["kind"], found["done"]) == ("late duplicate", True)
    assert "production" in found["told"]
    assert str(client.get_model_version_by_alias("tiny", "challenger").version) == "1"
    assert str(client.get_model_version_by_alias("tiny", "production").version) == str(late)
    assert client.get_model_version("tiny", late).tags["stockpot.duplicate_of"] == "1"


def test_what_a_killed_registration_left_is_settled_and_the_next_request_registers(
    request_: SoupRequest,
    client: "MlflowClient",
    home: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Workplace() as place:
        watched = CrashingTracker(place.tracker, "upload", "before")
        place.tracker = cast("Tracker", watched)
        with pytest.raises(Crash):
            walk(request_, place, in_turn, Silent())
    young = {one["kind"]: one for one in run("--yes")}
    assert {*young} == {"unfinished registration", "orphaned run", "orphaned model"}
    assert not any(one["done"] for one in young.values())
    monkeypatch.setattr(reconciling, "DAY", -1.0)
    settled = {one["kind"]: one for one in run("--yes")}
    orphan = settled["orphaned run"]["what"]
    assert client.get_run(orphan).info.status == "FAILED"
    assert (settled["orphaned run"]["done"], settled["orphaned model"]["done"]) == (True, True)
    assert [one["kind"] for one in run("--yes")] == ["unfinished registration"]
    soup = _soup(request_)
    assert (soup.state, soup.run_id) == (SoupState.REGISTERED, orphan)
    assert run("--yes") == []
