"""Four process workers, with Prefect's server, MLflow's and the store on PostgreSQL."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlalchemy import create_engine, make_url, text
from tests.flows.prefect_site import SECONDS, Site, awaited, free_port, prefect_site
from tests.flows.sweeping import (
    alone,
    answered,
    asked,
    last_words,
    request_for,
    require_alike,
    submitting,
)
from tests.store.conftest import own_server

from stockpot import SoupRequest
from stockpot.documents import to_document
from stockpot.store import upgrade
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import job_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EACH = 8
LOSING = Path(__file__).with_name("losing_process.py")
ON_FILE = '''
from stockpot.testing.tiny import TinyTask

class OnFile(TinyTask):
    """It names its data: else nobody knows what an answer depends on, and each request walks again."""

    def __init__(self, data):
        super().__init__()
'''


def as_in_flow_runs(tasks: Path) -> str:
    """The path of modules that Prefect's worker gives a flow run in this folder: who has another one does not
    believe what was answered. That of a fresh process, since tests before this one have added to ours.
    """
    interpreters = (sys.prefix, sys.base_prefix)
    asked = [sys.executable, "-c", "import sys; print(*sys.path, sep='\\n')"]
    known = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\n")
    own = [place for place in known if place and not place.startswith(interpreters)]
    return os.pathsep.join([str(tasks), *own])


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
            path = as_in_flow_runs(tasks)
            with prefect_site(
                folder / "prefect", PREFECT_SERVER_DATABASE_CONNECTION_URL=prefect, PYTHONPATH=path
            ) as found:
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


def test_forty_undebounced_triggers_are_one_job_and_one_version(
    site: Site, sweep: str, tasks: Path, one_thread: None
) -> None:
    """Eight wait for the four workers; four processes, begun as those begin theirs, run EACH of them. At 23
    they are a hundred, which takes five minutes on two cores, most of them in Prefect.
    """
    (tasks / "often.py").write_text(ON_FILE)
    (tasks / "data.txt").write_text("the same")
    data = {"data": str(tasks / "data.txt")}
    request = SoupRequest(model="often", sweep=sweep, task="often:OnFile", task_args=data)
    told = to_document(request)
    found = asked(site, "deployments/filter", deployments={"name": {"any_": ["soup"]}})
    for _ in range(8):
        asked(site, f"deployments/{found[0]['id']}/create_flow_run", parameters={"request": told})
    command = (sys.executable, str(LOSING), json.dumps(told), str(EACH), str(tasks))
    losing = [site.start(f"losing-{number}", *command) for number in range(4)]
    codes = [each.wait(3 * SECONDS) for each in losing]
    printed = [(site.folder / f"losing-{number}.log").read_text() for number in range(4)]
    assert codes == [0] * 4, printed

    def ended() -> list[str] | None:
        """A run has this name once it has begun."""
        runs = asked(site, "flow_runs/filter", flow_runs={"name": {"any_": ["soup-often"]}})
        states = [run["state_name"] for run in runs]
        under_way = len(states) < 8 + 4 * EACH or {*states} & {"Late", "Scheduled", "Pending", "Running"}
        return None if under_way else states

    assert awaited(ended, "the end of all flow runs", 2 * SECONDS) == ["Completed"] * (8 + 4 * EACH)
    uris = [soup.uri for soup in answered(request).soups]
    versions = MlflowClient().search_model_versions("name='often'")
    assert len({version.run_id for version in versions}) == len(versions) == len(uris) > 0
    with Workplace() as place:
        records = place.store.job_records(sweeps=[sweep])
        jobs = [each.name for each in records if each.request and each.request.model == "often"]
        assert jobs == [job_of(request, place.tracker).name]
    answers = [
        [json.loads(line) for line in text.splitlines() if line.startswith('{"ver')] for text in printed
    ]
    assert [[each["versions"] for each in some] for some in answers] == [[uris] * EACH] * 4
    walked = [text for text, some in zip(printed, answers, strict=True) if some[-1]["torch"]]
    assert len(walked) <= 1, "whoever waits, or comes later, imports no torch\n" + "\n---\n".join(walked)
