"""From a sweep in MLflow to a registered soup, by the real flow: what a user is promised, one by one."""

import hashlib
import json
import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stockpot.cli import main
from stockpot.documents import from_document, to_document
from stockpot.entities import MEAN_OF_SHIFTS, Accept, Recipe, SoupOutcome, SoupRequest
from stockpot.errors import BadRequest, StoreError
from stockpot.testing.listener import Listener
from stockpot.wiring import Workplace


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patched:
        yield patched


@pytest.fixture(scope="module")
def mlflow_uri(migrated_mlflow: Path, tmp_path_factory: pytest.TempPathFactory, patch: Any) -> str:
    """One sweep for the tests of this module, which only look."""
    folder = tmp_path_factory.mktemp("flow")
    (folder / "mlflow.db").write_bytes(migrated_mlflow.read_bytes())
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.setenv("MLFLOW_REGISTRY_URI", uri)
    patch.setenv("STOCKPOT_HOME", str(folder / "home"))
    return uri


@pytest.fixture(scope="module")
def request_(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> SoupRequest:
    from mlflow import MlflowClient

    from stockpot.testing.sweeps import plant_sweep
    from stockpot.testing.tiny import weights

    client = MlflowClient(mlflow_uri)
    client.create_experiment("sweeps", artifact_location=tmp_path_factory.mktemp("artifacts").as_uri())
    runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(5)}
    return SoupRequest(
        model="tiny",
        sweep=plant_sweep(client, "sweeps", runs),
        task="stockpot.testing.tiny:TinyTask",
        task_args={"kind": "dense", "n": "80"},
        shifts=("shifted",),
        margin=-100.0,
    )


@pytest.fixture(scope="module")
def outcome(prefect: None, request_: SoupRequest) -> SoupOutcome:
    import prefect as prefects

    from stockpot_flows.soup_sweep import soup_sweep

    with prefects.tags("mine"):
        return soup_sweep(request_)


@pytest.fixture
def client(mlflow_uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


def test_the_table_has_the_best_single_and_each_soup_on_every_split(outcome: SoupOutcome) -> None:
    rows = {row.label: row for row in outcome.report.rows}
    assert next(iter(rows)) == "best single"
    assert {method for row in rows.values() for method in row.methods} == {"greedy", "uniform"}
    for row in rows.values():
        assert list(row.scores) == ["validation", "test", "shifted", MEAN_OF_SHIFTS]
    for row in outcome.report.rows[1:]:
        assert list(row.versus_best) == ["test", "shifted", MEAN_OF_SHIFTS]
        assert row.versus_best["test"].n == 80
        assert row.versus_best["test"].low <= row.versus_best["test"].difference


def test_greedy_never_loses_to_the_best_single_on_the_held_out_split(outcome: SoupOutcome) -> None:
    best, *soups = outcome.report.rows
    greedy = next(row for row in soups if "greedy" in row.methods)
    assert greedy.scores["validation"] >= best.scores["validation"]
    assert greedy.recipe.is_soup, "the sweep was made so that averaging helps"


def test_one_version_per_soup_with_native_lineage(outcome: SoupOutcome, client: Any) -> None:
    versions = client.search_model_versions("name='tiny'")
    assert len(versions) == len(outcome.soups) > 0
    recipes = {row.recipe.digest: row.recipe for row in outcome.report.rows}
    for version in versions:
        recipe = recipes[version.tags["stockpot.recipe"]]
        run = client.get_run(version.run_id)
        models = [client.get_logged_model(entry.model_id) for entry in run.inputs.model_inputs]
        sources = {model.source_run_id for model in models}
        by_checkpoint = {point.checkpoint: point.run_id for point in outcome.report.candidates}
        assert sources == {by_checkpoint[checkpoint] for checkpoint in recipe.checkpoints}
        assert [entry.model_id for entry in run.outputs.model_outputs] == [version.source.rsplit("/", 1)[1]]


def test_metrics_are_linked_to_their_datasets(outcome: SoupOutcome, client: Any) -> None:
    for soup in outcome.soups:
        run = client.get_run(soup.run_id)
        assert len(run.inputs.dataset_inputs) == 3
        model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
        linked = {metric.key: metric for metric in model.metrics}
        row = next(row for row in outcome.report.rows if row.recipe.digest == soup.recipe)
        assert linked["score.test"].value == row.scores["test"]
        assert linked["score.test"].dataset_digest is not None


def test_the_description_opens_with_the_verdict_and_shows_the_figure(
    outcome: SoupOutcome, client: Any
) -> None:
    for soup in outcome.soups:
        text = client.get_model_version("tiny", soup.uri.rsplit("/", 1)[1]).description
        assert text.startswith(f"**{' and '.join(soup.methods)} soup: ")
        assert f"run_uuid={soup.run_id}" in text
        figure = text.split("get-artifact?path=")[1].split("&")[0]
        assert figure in {file.path for file in client.list_artifacts(soup.run_id)}
        assert "[tune-" in text


def test_the_registered_model_holds_the_soups_very_tensors(outcome: SoupOutcome, client: Any) -> None:
    import mlflow.pytorch
    import torch
    from safetensors.torch import load_file

    version = client.get_model_version_by_alias("tiny", "challenger")
    greedy = next(soup for soup in outcome.soups if "greedy" in soup.methods)
    assert str(version.version) == greedy.uri.rsplit("/", 1)[1]
    model = mlflow.pytorch.load_model("models:/tiny@challenger")
    place = Workplace()
    assert greedy.checkpoint
    built = load_file(place.cache.path(greedy.checkpoint))
    state = model.state_dict()
    assert built.keys() <= state.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in built.items())
    logged = place.tracker.read_file(version.source.rsplit("/", 1)[1], "model.safetensors")
    assert f"sha256:{hashlib.sha256(logged).hexdigest()}" == greedy.checkpoint


def test_averaged_tensors_are_those_of_a_plain_mean(outcome: SoupOutcome) -> None:
    import torch
    from safetensors.torch import load_file

    cache = Workplace().cache
    for soup in outcome.soups:
        recipe = next(row.recipe for row in outcome.report.rows if row.recipe.digest == soup.recipe)
        parts = [load_file(cache.path(checkpoint)) for checkpoint in recipe.checkpoints]
        assert soup.checkpoint
        for name, tensor in load_file(cache.path(soup.checkpoint)).items():
            mean = torch.stack([part[name].double() for part in parts]).mean(0)
            torch.testing.assert_close(tensor.double(), mean, rtol=1e-6, atol=1e-7)


def test_the_same_request_again_adopts_and_evaluates_nothing(
    outcome: SoupOutcome, request_: SoupRequest, client: Any
) -> None:
    from stockpot_flows.soup_sweep import soup_sweep

    again = soup_sweep(request_)
    assert again.evaluations == 0
    assert [(soup.uri, soup.adopted) for soup in again.soups] == [(s.uri, True) for s in outcome.soups]
    assert len(client.search_model_versions("name='tiny'")) == len(outcome.soups)
    assert again.report == outcome.report


def test_an_alias_that_somebody_moved_or_deleted_stays_so(
    outcome: SoupOutcome, request_: SoupRequest, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stockpot.watching import Silent
    from stockpot.workflow.walk import in_turn, walk

    greedy, other = outcome.soups
    client.set_registered_model_alias("tiny", "challenger", other.uri.rsplit("/", 1)[1])
    again = walk(request_, Workplace(), in_turn, Silent())
    assert [soup.aliases for soup in again.soups] == [(), ("challenger",)]
    with monkeypatch.context() as colleague:
        colleague.setenv("STOCKPOT_HOME", str(tmp_path / "colleague"))
        again = walk(request_, Workplace(), in_turn, Silent())
    assert [soup.aliases for soup in again.soups] == [(), ("challenger",)]
    client.delete_registered_model_alias("tiny", "challenger")
    again = walk(request_, Workplace(), in_turn, Silent())
    assert [(soup.uri, soup.aliases) for soup in again.soups] == [(greedy.uri, ()), (other.uri, ())]
    client.set_registered_model_alias("tiny", "challenger", greedy.uri.rsplit("/", 1)[1])  # as it was


def test_stockpots_own_runs_never_become_candidates(outcome: SoupOutcome, request_: SoupRequest) -> None:
    listed = list(Workplace().tracker.runs(request_.selector))
    assert sorted(run.name for run in listed) == [f"tune-{seed}" for seed in range(5)]


def test_rebuild_gives_the_same_bytes_from_the_runs_artifacts(
    outcome: SoupOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_HOME", str(tmp_path / "another-home"))
    for soup in outcome.soups:
        out = tmp_path / "soup.safetensors"
        with pytest.raises(SystemExit, match="0"):
            main(["rebuild", soup.uri, "--out", str(out)])
        assert f"sha256:{hashlib.sha256(out.read_bytes()).hexdigest()}" == soup.checkpoint


def test_show_tells_recipe_steps_and_ingredients(
    outcome: SoupOutcome, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["show", "models:/tiny@challenger"])
    told = capsys.readouterr().out
    assert "better than the best single candidate" in told
    assert all(heading in told for heading in ("Scores", "Ingredients", "Steps of greedy, accept=not_worse"))
    with pytest.raises(SystemExit, match="0"):
        main(["show", "models:/tiny@challenger", "--json"])
    document = json.loads(capsys.readouterr().out)
    greedy = next(soup for soup in outcome.soups if "greedy" in soup.methods)
    assert from_document(Recipe, document["recipe"]).digest == greedy.recipe
    assert to_document(outcome.report) == document["report"]


def _without(*path: str) -> Callable[[str], str]:
    """The record with nothing in this list."""

    def damage(content: str) -> str:
        document = part = json.loads(content)
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = []
        return json.dumps(document)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "{",
        lambda _: '{"recipe": 1}',
        lambda _: "[" * 100_000,
        _without("ingredients"),
        _without("report", "rows"),
    ],
    ids=["torn", "another document", "deep", "no ingredients", "no rows"],
)
def test_a_damaged_record_of_a_soup_is_told_as_such(
    outcome: SoupOutcome, client: Any, capsys: pytest.CaptureFixture[str], damage: Callable[[str], str]
) -> None:
    version = client.get_model_version("tiny", outcome.soups[0].uri.rsplit("/", 1)[1])
    location = client.get_logged_model(version.tags["stockpot.logged_model"]).artifact_location
    file = Path(location.removeprefix("file://")) / "stockpot.json"
    content = file.read_text()
    file.write_text(damage(content))
    try:
        with pytest.raises(SystemExit, match="8"):
            main(["show", outcome.soups[0].uri])
    finally:
        file.write_text(content)
    told = capsys.readouterr().err
    assert f"stockpot.json of {outcome.soups[0].uri} is damaged" in told
    assert "To mend it" in told


def test_prefect_shows_the_verdict_the_candidates_and_the_progress(
    outcome: SoupOutcome, request_: SoupRequest, prefect: None
) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as api:
        keys = {artifact.key: artifact.type for artifact in api.read_artifacts()}
        tags = [set(run.tags) for run in api.read_flow_runs() if run.name == "soup-tiny"]
    assert keys["tiny-verdict"] == "markdown"
    assert keys["tiny-candidates"] == "table"
    assert keys["tiny-rank"] == "progress"
    ours = {"model: tiny", f"sweep: {request_.sweep}"}
    assert {"mine", *ours} in tags, "a person's own stay"
    assert all(ours <= told for told in tags)


def test_prefects_log_of_the_run_tells_each_stage_and_the_one_who_called_is_told_too(
    outcome: SoupOutcome, request_: SoupRequest, prefect: None
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.logging.handlers import APILogWorker

    from stockpot_flows.soup_sweep import run_watched

    listener = Listener()
    run_watched(replace(request_, model="watched"), listener)
    APILogWorker.drain_all(timeout=30)
    with get_client(sync_client=True) as api:
        latest, *_ = api.read_flow_runs(sort=FlowRunSort.START_TIME_DESC)
        of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[latest.id]))
        log = [line.message for line in api.read_logs(of_run)]
    assert listener.stages
    for stage in listener.stages:
        assert any(line.startswith(f"{stage}: ") for line in log), stage


def test_a_stage_that_fails_is_not_run_again_whatever_prefect_is_told_of_tasks(prefect: None) -> None:
    from prefect import flow
    from prefect.settings import PREFECT_TASK_DEFAULT_RETRIES, temporary_settings

    import stockpot_flows.soup_sweep

    ran = []

    def fail() -> None:
        ran.append("once")
        raise StoreError("full")

    with temporary_settings({PREFECT_TASK_DEFAULT_RETRIES: 2}):
        # Tasks read it when they are made.
        run_stage = runpy.run_path(stockpot_flows.soup_sweep.__file__)["run_stage"]

        @flow
        def walk() -> None:
            run_stage("register", fail)

        with pytest.raises(StoreError, match="full"):
            walk()
    assert ran == ["once"]


def test_the_flows_parameter_is_a_form_with_help(prefect: None) -> None:
    from stockpot_flows.soup_sweep import soup_sweep

    schema = soup_sweep.parameters.model_dump()["definitions"]["SoupRequest"]
    assert set(schema["required"]) == {"model", "task"}
    assert all(field.get("description") for field in schema["properties"].values())


def test_what_the_form_sends_becomes_a_request_or_is_refused(prefect: None) -> None:
    from prefect.exceptions import ParameterTypeError

    from stockpot_flows.soup_sweep import soup_sweep

    sent = {"model": "birds", "task": "arrays", "sweep": "1f0c", "accept": "better", "shifts": ["fog"]}
    wanted = SoupRequest(model="birds", task="arrays", sweep="1f0c", accept=Accept.BETTER, shifts=("fog",))
    assert soup_sweep.validate_parameters({"request": sent}) == {"request": wanted, "helpers": 0}
    for wrong in ({**sent, "colour": "red"}, {"model": "birds"}):
        with pytest.raises(ParameterTypeError):
            soup_sweep.validate_parameters({"request": wrong})
    with pytest.raises(ParameterTypeError):
        soup_sweep.validate_parameters({"request": sent, "helpers": -1})
    with pytest.raises(BadRequest, match="must be different splits"):
        soup_sweep.validate_parameters({"request": {**sent, "shifts": ["test"]}})


def test_a_stranger_can_verify_the_version_and_other_bytes_are_found_out(
    outcome: SoupOutcome, client: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    uri = outcome.soups[0].uri
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["verify", uri, "--out", str(tmp_path / "proof"), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["digest"] == outcome.soups[0].checkpoint
    assert {Path(file).name for file in told["written"]} == {
        each.name for each in (tmp_path / "proof").iterdir()
    }
    location = client.get_logged_model(
        client.get_model_version("tiny", uri.rsplit("/", 1)[1]).tags["stockpot.logged_model"]
    ).artifact_location
    file = Path(location.removeprefix("file://")) / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(SystemExit, match="8"):
            main(["verify", uri, "--out", str(tmp_path / "none")])
    finally:
        file.write_bytes(content)
    assert "tags were copied onto other content, or the content was replaced" in capsys.readouterr().err
    assert not list((tmp_path / "none").iterdir())
