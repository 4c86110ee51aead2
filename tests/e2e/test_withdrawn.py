"""What a person took out of the registry stays out, until a request asks for it on purpose.

That holds whichever store a request is made with.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from stockpot.cli.printing import show_outcome
from stockpot.entities import PublishedSoup, SoupOutcome, SoupRequest, SoupState
from stockpot.testing.crashes import Crash, CrashingTracker
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from stockpot.ports import Tracker


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def request_(tiny_sweep: SoupRequest) -> SoupRequest:
    return replace(tiny_sweep, methods=("greedy",), shifts=(), margin=-100.0)


def _walk(request: SoupRequest) -> SoupOutcome:
    return walk(request, Workplace(), in_turn, Silent())


def _soup(request: SoupRequest) -> PublishedSoup:
    (soup,) = _walk(request).soups
    return soup


def _versions(client: "MlflowClient") -> list[str]:
    return [str(version.version) for version in client.search_model_versions("name='tiny'")]


@pytest.mark.slow
def test_a_version_that_a_person_deleted_stays_deleted_until_a_request_says_again(
    request_: SoupRequest, client: "MlflowClient", capsys: pytest.CaptureFixture[str]
) -> None:
    assert _soup(request_).state is SoupState.REGISTERED
    client.delete_model_version("tiny", "1")
    for _ in range(2):
        outcome = _walk(request_)
        (soup,) = outcome.soups
        assert (soup.state, soup.uri, outcome.registered) == (SoupState.WITHDRAWN, "", ())
        assert "models:/tiny/1" in soup.why
        assert "--again" in soup.why
        assert _versions(client) == []
    show_outcome(outcome, as_json=False)
    assert f"greedy soup is withdrawn: {soup.why}" in capsys.readouterr().out
    again = replace(request_, again=True)
    assert (_soup(again).state, _versions(client)) == (SoupState.REGISTERED, ["2"])
    assert str(client.get_model_version_by_alias("tiny", "challenger").version) == "2"
    assert _soup(again).adopted, "--again registers what is missing, not what is there"
    client.delete_model_version("tiny", "2")
    assert (_soup(request_).state, _versions(client)) == (SoupState.WITHDRAWN, [])


def _delete_model(client: "MlflowClient", soup: PublishedSoup) -> None:
    del soup
    client.delete_registered_model("tiny")


def _rename_model(client: "MlflowClient", soup: PublishedSoup) -> None:
    del soup
    client.rename_registered_model("tiny", "old tiny")


def _delete_run_and_version(client: "MlflowClient", soup: PublishedSoup) -> None:
    client.delete_run(soup.run_id)
    client.delete_model_version("tiny", "1")


def _delete_logged_model_and_version(client: "MlflowClient", soup: PublishedSoup) -> None:
    version = client.get_model_version("tiny", "1")
    client.delete_logged_model(version.tags["stockpot.logged_model"])
    client.delete_model_version("tiny", soup.uri.rsplit("/", 1)[1])


def _delete_version(client: "MlflowClient", soup: PublishedSoup) -> None:
    del soup
    client.delete_model_version("tiny", "1")


def _keep(home: Path) -> None:
    del home


def _forget(home: Path) -> None:
    """As on another machine: a fresh store."""
    shutil.rmtree(home)


@pytest.mark.slow
@pytest.mark.parametrize("store", [_keep, _forget])
@pytest.mark.parametrize(
    "take_away",
    [
        _delete_version,
        _delete_model,
        _rename_model,
        _delete_run_and_version,
        _delete_logged_model_and_version,
    ],
)
def test_what_goes_with_its_model_run_or_logged_model_stays_away_too_in_every_store(
    request_: SoupRequest,
    client: "MlflowClient",
    home: Path,
    take_away: Callable[["MlflowClient", PublishedSoup], None],
    store: Callable[[Path], None],
) -> None:
    take_away(client, _soup(request_))
    store(home)
    assert (_soup(request_).state, _versions(client)) == (SoupState.WITHDRAWN, [])
    assert _soup(replace(request_, again=True)).state is SoupState.REGISTERED
    assert len(_versions(client)) == 1


@pytest.mark.slow
def test_a_version_whose_run_was_deleted_is_adopted_and_no_other_run_is_made(
    request_: SoupRequest, client: "MlflowClient"
) -> None:
    soup = _soup(request_)
    client.delete_run(soup.run_id)
    assert _soup(request_).adopted
    experiment = client.get_run(soup.run_id).info.experiment_id
    assert client.search_runs([experiment], "tags.`stockpot.role` = 'soup'") == []


@pytest.mark.slow
@pytest.mark.parametrize("store", [_keep, _forget])
def test_a_version_whose_logged_model_was_deleted_is_withdrawn_and_says_so(
    request_: SoupRequest, client: "MlflowClient", home: Path, store: Callable[[Path], None]
) -> None:
    _soup(request_)
    store(home)
    model_id = client.get_model_version("tiny", "1").tags["stockpot.logged_model"]
    client.delete_logged_model(model_id)
    for request in (request_, replace(request_, again=True)):
        soup = _soup(request)
        assert (soup.state, _versions(client)) == (SoupState.WITHDRAWN, ["1"])
        assert model_id in soup.why
        assert "delete that version, then --again" in soup.why


@pytest.mark.slow
@pytest.mark.parametrize("store", [_keep, _forget])
def test_a_snapshot_that_cannot_be_read_withdraws_nothing(
    request_: SoupRequest, client: "MlflowClient", home: Path, store: Callable[[Path], None]
) -> None:
    soup = _soup(request_)
    location = client.get_model_version_download_uri("tiny", "1")
    Path(location.removeprefix("file://"), "stockpot.json").unlink()
    store(home)
    assert _soup(request_) == replace(soup, state=SoupState.ADOPTED)


@pytest.mark.slow
def test_what_was_registered_again_on_purpose_and_deleted_again_stays_away_in_a_fresh_store(
    request_: SoupRequest, client: "MlflowClient", home: Path
) -> None:
    _soup(request_)
    client.delete_model_version("tiny", "1")
    assert _soup(replace(request_, again=True)).uri == "models:/tiny/2"
    _forget(home)
    assert _soup(request_).adopted
    client.delete_model_version("tiny", "2")
    _forget(home)
    soup = _soup(request_)
    assert soup.state is SoupState.WITHDRAWN
    assert "models:/tiny/2" in soup.why


@pytest.mark.slow
def test_a_promoted_copy_that_a_person_deleted_stays_away_from_its_model_alone(
    request_: SoupRequest, client: "MlflowClient", home: Path
) -> None:
    _soup(request_)
    client.copy_model_version("models:/tiny/1", "production")
    production = replace(request_, model="production")
    assert _soup(production).adopted
    client.delete_model_version("production", "1")
    _forget(home)
    assert _soup(production).state is SoupState.WITHDRAWN
    assert _soup(request_).adopted


@pytest.mark.slow
def test_a_registration_that_stopped_before_its_note_is_noted_by_whoever_goes_on(
    request_: SoupRequest, client: "MlflowClient", home: Path
) -> None:
    place = Workplace()
    place.tracker = cast("Tracker", CrashingTracker(place.tracker, "note_version", "before"))
    with pytest.raises(Crash):
        walk(request_, place, in_turn, Silent())
    _forget(home)
    assert _soup(request_).uri == "models:/tiny/1"
    client.delete_model_version("tiny", "1")
    _forget(home)
    assert _soup(request_).state is SoupState.WITHDRAWN


@pytest.mark.slow
def test_a_newer_mlflow_is_given_the_soup_that_the_store_knows_from_another(
    request_: SoupRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    assert _soup(request_).state is SoupState.REGISTERED
    uri = f"sqlite:///{tmp_path / 'newer.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    client = MlflowClient(uri)
    client.create_experiment("sweeps", artifact_location=(tmp_path / "newer").as_uri())
    runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(5)}
    there = replace(request_, sweep=plant_sweep(client, "sweeps", runs))
    assert _soup(there).state is SoupState.REGISTERED
    assert _soup(there).adopted
    client.delete_model_version("tiny", "1")
    assert (_soup(there).state, _versions(client)) == (SoupState.WITHDRAWN, [])


@pytest.mark.slow
def test_a_run_that_was_deleted_before_anything_was_registered_withdraws_nothing(
    request_: SoupRequest, client: "MlflowClient", home: Path
) -> None:
    place = Workplace()
    place.tracker = cast("Tracker", CrashingTracker(place.tracker, "create_version", "before"))
    with pytest.raises(Crash):
        walk(request_, place, in_turn, Silent())
    (experiment,) = [
        found.experiment_id for found in client.search_experiments(filter_string="name = 'sweeps'")
    ]
    for run in client.search_runs([experiment], "tags.`stockpot.role` = 'soup'"):
        client.delete_run(run.info.run_id)
    _forget(home)
    assert _soup(request_).state is SoupState.REGISTERED
