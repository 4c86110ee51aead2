"""Four process workers, with Prefect's server, MLflow's and the store on PostgreSQL."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlalchemy import create_engine, make_url, text
from tests.flows.prefect_site import SECONDS, Site, free_port, prefect_site
from tests.flows.sweeping import alone, answered, last_words, request_for, require_alike, submitting
from tests.store.conftest import own_server

from stockpot.store import upgrade
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the workers' flow runs begin in."""
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def site(
    start_mlflow: Callable[..., AbstractContextManager[str]],
    tasks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("four")
    with own_server(free_port()) as (server, _), pytest.MonkeyPatch.context() as patch:
        urls = {name: make_url(server).set(database=name) for name in ("mlflow", "prefect", "stockpot")}
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for name in urls:
                connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        upgrade(str(urls["stockpot"]))
        patch.setenv("STOCKPOT_STORE_URL", str(urls["stockpot"]))
        patch.setenv("STOCKPOT_HOME", str(folder / "home"))
        prefect = str(urls["prefect"].set(drivername="postgresql+asyncpg"))
        with start_mlflow(folder, f"--backend-store-uri={urls['mlflow']}") as uri:
            for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
                patch.setenv(variable, uri)
            with prefect_site(folder / "prefect", PREFECT_SERVER_DATABASE_CONNECTION_URL=prefect) as found:
                found.deploy(tasks)
                for number in range(4):
                    found.start_worker(f"of-four-{number}")
                yield found


@pytest.fixture(scope="module")
def sweep(site: Site) -> str:
    client = MlflowClient()
    client.create_experiment("sweeps")
    return plant_sweep(client, "sweeps", {f"tune-{seed}": weights("dense", seed=seed) for seed in range(6)})


def test_four_workers_share_a_sweep_and_its_answer_is_that_of_one(
    site: Site, sweep: str, tasks: Path, one_thread: None
) -> None:
    request = request_for("four", sweep, tasks)
    (tasks / "four.wanted").write_text("3")
    command = submitting(site, request, helpers=3)
    printed, told = command.communicate(timeout=3 * SECONDS)
    assert command.returncode == 0, told
    found, helped = answered(request), last_words(site, "four")
    assert [each["uri"] for each in json.loads(printed)["soups"]] == [each.uri for each in found.soups]
    assert len(MlflowClient().search_model_versions("name='four'")) == len(found.soups) > 0
    assert len(helped) == 3
    assert all(line.startswith("helped with ") and " 0 " not in line for line in helped), helped
    require_alike(found, alone(request))
