"""`stockpot lineage` and `stockpot recall` over a real MLflow, from a soup to the one in its place."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stockpot import calls
from stockpot.cli import main
from stockpot.entities import ExclusionReason, Recall, RecallKind, SoupRequest, SoupState, digest_of_bytes
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.slow
Run = Callable[..., Any]


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_it(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json"])
        told = capsys.readouterr()
        assert int(ended.value.code or 0) == code, told
        return json.loads(told.out)

    return run_it


@pytest.fixture
def sixteen(client: "MlflowClient", experiment: str, tiny_sweep: SoupRequest) -> SoupRequest:
    """A sweep of sixteen runs that are all as good as each other."""
    runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(16)}
    sweep = plant_sweep(client, f"{experiment} of sixteen", runs)
    return replace(tiny_sweep, sweep=sweep, shifts=(), margin=-100.0, register="all")  # type: ignore[arg-type]  # its text


def test_an_ingredient_of_sixteen_is_recalled_and_what_is_remembered_is_not_evaluated_again(
    sixteen: SoupRequest, client: "MlflowClient", run: Run, home: Path
) -> None:
    first = calls.soup(replace(sixteen, methods=("uniform", "greedy")), flow=False)
    old = next(soup for soup in first.soups if "uniform" in soup.methods)
    version = client.get_model_version("tiny", old.uri.rpartition("/")[2])
    assert version.tags["stockpot.ingredients"] == "16"
    greedy = next(row for row in first.report.rows if "greedy" in row.methods).recipe
    by_checkpoint = {one.checkpoint: one.run_id for one in first.report.candidates}
    recalled = by_checkpoint[greedy.checkpoints[-1]]
    client.set_registered_model_alias("tiny", "champion", version.version)

    told = run("lineage", recalled)
    assert {one["soup"] for one in told["down"]} == {soup.checkpoint for soup in first.soups}
    plan = run("recall", "--run", recalled, "--reason", "mislabelled", code=2)
    assert not plan["done"]
    assert {one["uri"] for one in plan["versions"]} == {soup.uri for soup in first.soups}
    assert "stockpot.recalled" not in client.get_model_version("tiny", version.version).tags

    done = run("recall", "--run", recalled, "--reason", "mislabelled", "--by", "ann", "--yes")
    (search,) = done["replacements"]
    assert search["fault"] == ""
    assert 0 < search["passes"] <= 0.25 * first.passes
    assert client.get_model_version("tiny", version.version).tags["stockpot.recalled"] == "mislabelled"
    assert client.get_model_version_by_alias("tiny", "champion").version == version.version
    replaced = [client.get_model_version("tiny", uri.rpartition("/")[2]) for uri in search["found"]]
    fifteen = next(one for one in replaced if one.tags["stockpot.ingredients"] == "15")
    assert json.loads(fifteen.tags["stockpot.replaces"]) == [old.uri]

    again = calls.soup(replace(sixteen, methods=("uniform", "greedy")), flow=False)
    assert again.evaluations == 0
    assert recalled not in {one.run_id for one in again.report.candidates}
    (excluded,) = again.report.exclusions
    assert (excluded.run_id, excluded.reason) == (recalled, ExclusionReason.RECALLED)
    assert "mislabelled" in excluded.detail
    assert f"stockpot recall --run {recalled} --withdraw" in excluded.mend
    (model_trail,) = [one for one in run("audit", "tiny")[-1]["entries"] if one["kind"] == "recall"]
    assert (model_trail["by"], model_trail["reason"]) == ("ann", "mislabelled")
    assert model_trail["fact"]["recalled"] == f"run {recalled}"
    assert {*model_trail["fact"]["versions"]} == {soup.uri for soup in first.soups}

    run("recall", "--run", recalled, "--reason", "it was right", "--withdraw", "--yes")
    back = calls.soup(replace(sixteen, methods=("uniform", "greedy")), flow=False)
    assert {soup.uri for soup in back.soups} == {soup.uri for soup in first.soups}
    assert [one["withdrawn"] for one in run("recall", "--list")] == [False, True]


class Recalling(Silent):
    """Somebody recalls this run when soups begin to be registered."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def start(self, stage: str, total: int) -> None:
        super().start(stage, total)
        if stage == "register":
            with Workplace() as place:
                place.store.append_recall(Recall(RecallKind.RUN, self.run_id, "mislabelled", "ann"))


def test_what_is_recalled_while_its_soup_is_made_is_not_registered_in_it(
    tiny_sweep: SoupRequest, client: "MlflowClient"
) -> None:
    request = replace(tiny_sweep, methods=("uniform",), shifts=(), margin=-100.0, register="all")  # type: ignore[arg-type]  # its text
    experiment = client.get_run(request.sweep or "").info.experiment_id
    first, *_ = client.search_runs([experiment], "attributes.run_name = 'tune-0'")
    (soup,) = calls.soup(request, flow=False, watch=Recalling(first.info.run_id)).soups
    assert (soup.state, soup.uri) == (SoupState.LEFT_OUT, "")
    assert f"run {first.info.run_id} was recalled by ann: mislabelled" in soup.why
    (again,) = calls.soup(request, flow=False).soups
    assert client.get_model_version("tiny", "1").tags["stockpot.ingredients"] == "4"
    assert again.uri == "models:/tiny/1"


def test_what_is_recalled_while_its_soup_is_uploaded_is_marked_and_gets_no_alias(
    tiny_sweep: SoupRequest, client: "MlflowClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(tiny_sweep, methods=("greedy",), margin=-100.0)
    experiment = client.get_run(request.sweep or "").info.experiment_id
    word = Recall(RecallKind.RUN, "", "mislabelled", "ann")
    place = Workplace()
    upload = place.tracker.upload

    def recalled_meanwhile(model_id: str, folder: Path) -> None:
        upload(model_id, folder)
        for run in client.search_runs([experiment], "attributes.run_name LIKE 'tune-%'"):
            place.store.append_recall(replace(word, name=run.info.run_id))

    monkeypatch.setattr(place.tracker, "upload", recalled_meanwhile)
    (soup,) = walk(request, place, in_turn, Silent()).soups
    assert "was recalled by ann: mislabelled" in soup.why
    version = client.get_model_version("tiny", soup.uri.rpartition("/")[2])
    assert version.tags["stockpot.recalled"] == "mislabelled"
    assert client.get_registered_model("tiny").aliases == {}


def test_tags_that_were_copied_by_hand_onto_other_content_are_not_believed(
    tiny_sweep: SoupRequest, client: "MlflowClient", run: Run
) -> None:
    request = replace(tiny_sweep, methods=("uniform",), shifts=(), margin=-100.0, register="all")  # type: ignore[arg-type]  # its text
    (soup,) = calls.soup(request, flow=False).soups
    version = client.get_model_version("tiny", "1")
    client.copy_model_version("models:/tiny/1", "promoted")
    experiment = client.get_run(version.run_id or "").info.experiment_id
    other = client.create_logged_model(experiment, name="other", source_run_id=version.run_id)
    client.log_model_artifacts(other.model_id, str(Path(__file__).parent))
    client.finalize_logged_model(other.model_id, "READY")
    client.create_registered_model("forged")
    client.create_model_version(
        "forged", f"models:/{other.model_id}", version.run_id, tags=version.tags, model_id=other.model_id
    )
    told = run("lineage", soup.uri)
    assert told["nodes"][0]["checkpoint"] == soup.checkpoint
    standings = {one["uri"]: (one["standing"], one.get("copy_of")) for one in told["nodes"][0]["versions"]}
    assert standings == {
        soup.uri: ("there", None),
        "models:/promoted/1": ("there", soup.uri),
        "models:/forged/1": ("unproven", None),
    }
    rebuilt = {one["uri"]: one for one in run("lineage", "--rebuild", code=8)}
    assert rebuilt["models:/forged/1"]["told"] == "refused"
    assert "does not hold that soup" in rebuilt["models:/forged/1"]["fault"]
    run("recall", "--checkpoint", soup.checkpoint or "", "--reason", "why", "--no-search", "--yes")
    marked = [
        one.name for one in client.search_model_versions() if one.tags.get("stockpot.recalled") == "why"
    ]
    assert sorted(marked) == ["promoted", "tiny"]


def test_what_is_no_thing_or_two_is_told(
    tiny_sweep: SoupRequest, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    del tiny_sweep  # its MLflow and home alone
    for arguments in ([], ["--run", "a", "--checkpoint", digest_of_bytes(b"a")]):
        with pytest.raises(SystemExit, match="3"):
            main(["recall", "--reason", "why", *arguments])
        assert "one of --run, --checkpoint, --dataset and --domain" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="3"):
        main(["recall", "--run", "a"])
    assert "a recall needs its reason" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="3"):
        main(["lineage"])
    assert run("recall", "--list") == []
