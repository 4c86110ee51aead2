"""Real servers and databases for all tests, each started once."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from stockpot import secrets
from stockpot.entities import SoupRequest

START_SECONDS = 120

# A landing must not depend on luck, nor on how busy a machine is; at home, new examples are drawn each time.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("home", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "home")


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test told as its password, such as "secret", would be hidden from the next one's messages."""
    monkeypatch.setattr(secrets, "_told", set())


@pytest.fixture
def press_control_c() -> Iterator[Callable[[], None]]:
    """Control-C, to be pressed by any thread; also where a shell that runs the tests beside it ignores it."""
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.pthread_kill(main, signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def migrated_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with all its migrations done, which takes seconds: to be copied."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def start_mlflow() -> Callable[..., AbstractContextManager[str]]:
    """Starts a real MLflow server that proxies artifacts; all that it keeps is in the folder.

    Called with the folder, options of ``mlflow server`` and variables. Gives the server's address.
    """
    return running_mlflow


@contextmanager
def running_mlflow(folder: Path, *options: str, **variables: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port]
    stores = [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/a"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *stores, "--workers=1", *options],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def wait_until_healthy(uri: str, process: "subprocess.Popen[bytes]") -> None:
    import requests

    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            requests.get(f"{uri}/health", timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"MLflow's server did not come up: exit code {process.poll()}")


@pytest.fixture
def mlflow_uri(migrated_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh MLflow in a database of its own, set as MLflow's own variables say. Tools set the server and
    the experiment for their whole process: neither stays.
    """
    shutil.copyfile(migrated_mlflow, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    yield uri
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    if "mlflow.tracking.fluent" in sys.modules:
        mlflow, fluent = sys.modules["mlflow"], sys.modules["mlflow.tracking.fluent"]
        mlflow.set_tracking_uri(None)
        fluent._active_experiment_id = None  # type: ignore[attr-defined]


@pytest.fixture
def experiment(mlflow_uri: str, tmp_path: Path) -> str:
    """An experiment whose artifacts lie in the test's own folder; its name."""
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    client.create_experiment("sweeps", artifact_location=(tmp_path / "artifacts").as_uri())
    return "sweeps"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home for Stockpot's own things."""
    folder = tmp_path / "home"
    monkeypatch.setenv("STOCKPOT_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def planted(migrated_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Five tiny models that were really logged, which takes half a second: to be copied; their parent run."""
    from mlflow import MlflowClient

    from stockpot.testing.sweeps import plant_sweep
    from stockpot.testing.tiny import weights

    folder = tmp_path_factory.mktemp("planted")
    shutil.copyfile(migrated_mlflow, folder / "mlflow.db")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("sweeps", artifact_location=(folder / "artifacts").as_uri())
    runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(5)}
    return folder, plant_sweep(client, "sweeps", runs)


@pytest.fixture
def tiny_sweep(planted: tuple[Path, str], experiment: str, tmp_path: Path, home: Path) -> SoupRequest:
    """A request for a sweep of five tiny models that were really logged; its home is fresh."""
    from mlflow.tracking._tracking_service import utils

    assert experiment == "sweeps"
    assert not home.exists()
    folder, parent = planted
    utils._artifact_repos_cache.clear()  # where the runs' files are, by run: there, or in the test before
    shutil.copytree(folder / "artifacts", tmp_path / "artifacts")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("ATTACH ? AS planted", [str(folder / "mlflow.db")])
        for table in ("runs", "params", "tags"):
            database.execute(f"INSERT INTO {table} SELECT * FROM planted.{table}")  # noqa: S608 - of those three
        moved = [folder.as_uri(), tmp_path.as_uri()]
        database.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)", moved)
    return SoupRequest(
        model="tiny",
        sweep=parent,
        task="stockpot.testing.tiny:TinyTask",
        task_args={"kind": "dense", "n": "80"},
        shifts=("shifted",),
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For small tensors: a second thread only waits, on a busy machine for long."""
    with threads(1):
        yield


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Another number than the one that a pool's threads take, whatever the machine's is."""
    with threads(2):
        yield


@contextmanager
def threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A real Prefect API, started once for all tests of flows."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def prefect(prefect_api: None) -> Iterator[None]:
    """A real Prefect API, to which this process is connected for the module's tests only.

    Its socket for events draws from `random` whenever it says that it is alive, and Hypothesis, in other
    modules, takes that for a strategy that does.
    """
    del prefect_api
    from prefect.events.worker import EventsWorker

    yield
    EventsWorker.drain_all()
