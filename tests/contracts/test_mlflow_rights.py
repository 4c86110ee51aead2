"""Who may do what, told by MLflow's own app for users and their rights."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import ViewType

from stockpot.entities import ModelVersion, Register, SoupRequest, SoupState
from stockpot.errors import NotPermitted
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights
from stockpot.testing.tracker_backend import fresh
from stockpot.tracking import MlflowTracker
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.walk import in_turn, walk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PASSWORD = "a password of some length"  # noqa: S105 - of a server that lives for these tests
LINE = "stockpot-permission-check.txt"
SETTINGS = """[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/users.db
admin_username = admin
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 3600
"""
"""The last line: else a password is hashed at every request, which takes most of these tests' time."""


@dataclass(frozen=True)
class Office:
    """A server, with an experiment and a registered model on which each user has the rights of its name."""

    uri: str
    folder: Path
    experiment_id: str
    model: str

    def traces(self) -> list[str]:
        """All runs, tags, artifacts and registered models."""
        with user("admin"):
            client = MlflowClient(self.uri)
            experiment = client.get_experiment(self.experiment_id)
            runs = client.search_runs([self.experiment_id], run_view_type=ViewType.ALL)
            models = [model.name for model in client.search_registered_models()]
        artifacts = [path.name for path in (self.folder / "a").rglob("*") if path.is_file()]
        return [*(run.info.run_id for run in runs), *experiment.tags, *artifacts, *models]


@contextmanager
def user(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_USERNAME", name)
        environment.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        yield


@pytest.fixture(scope="module")
def office(
    start_mlflow: Callable[..., AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    settings = folder / "auth.ini"
    settings.write_text(SETTINGS.format(folder=folder, password=PASSWORD))
    variables = {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret"}
    with start_mlflow(folder, "--app-name=basic-auth", **variables) as uri:
        with user("admin"):
            client = MlflowClient(uri)
            experiment_id, model = client.create_experiment("sweep"), "theirs"
            client.create_registered_model(model)
        for right in ("READ", "EDIT", "MANAGE"):
            name = {"username": right, "password": PASSWORD}
            ask(uri, "2.0/mlflow/users/create", name)
            grant(uri, right, "experiment", experiment_id, right)
            grant(uri, right, "registered_model", model, right)
        yield Office(uri, folder, experiment_id, model)


def grant(uri: str, username: str, kind: str, resource: str, right: str) -> None:
    body = {"username": username, "resource_type": kind, "resource_id": resource, "permission": right}
    ask(uri, "3.0/mlflow/users/permissions/grant", body)


def ask(uri: str, endpoint: str, body: dict[str, str]) -> None:
    answer = requests.post(f"{uri}/api/{endpoint}", json=body, auth=("admin", PASSWORD), timeout=60)
    answer.raise_for_status()


@pytest.mark.parametrize(("right", "left"), [("EDIT", [LINE]), ("MANAGE", [])])
def test_whoever_may_edit_passes_the_proof_and_leaves_one_line_that_only_managers_may_delete(
    office: Office, right: str, left: list[str]
) -> None:
    before = [trace for trace in office.traces() if trace != LINE]
    with user(right):
        for model in (fresh("new"), fresh("new"), office.model):
            MlflowTracker(office.uri).prove_writable(model, office.experiment_id)
    assert sorted(office.traces()) == sorted([*before, *left])


def test_whoever_may_edit_the_experiment_has_a_soup_registered_there(
    office: Office, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, office.uri)
    with user("EDIT"):
        runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(3)}
        request = SoupRequest(
            model="ours",
            sweep=plant_sweep(MlflowClient(office.uri), "sweep", runs),
            task="stockpot.testing.tiny:TinyTask",
            task_args={"kind": "dense", "n": "40"},
            methods=("uniform",),
            register=Register.ALL,
        )
        for state in (SoupState.REGISTERED, SoupState.ADOPTED):
            (soup,) = walk(request, Workplace(), in_turn, Silent()).soups
            assert (soup.state, soup.uri) == (state, "models:/ours/1")


def test_whoever_may_only_read_the_experiment_is_refused(office: Office) -> None:
    before = office.traces()
    with user("READ"), pytest.raises(NotPermitted, match="writing to experiment"):
        MlflowTracker(office.uri).prove_writable(fresh("new"), office.experiment_id)
    assert office.traces() == before


def test_whoever_may_only_read_the_registered_model_is_refused(office: Office) -> None:
    before = office.traces()
    with user("READ"), pytest.raises(NotPermitted, match="registered model 'theirs'"):
        MlflowTracker(office.uri).prove_writable(office.model, office.experiment_id)
    assert office.traces() == before


def test_a_logged_model_that_was_deleted_is_not_there_although_it_seems_forbidden(office: Office) -> None:
    with user("EDIT"):
        tracker, client = MlflowTracker(office.uri), MlflowClient(office.uri)
        run_id = client.create_run(office.experiment_id).info.run_id
        model_id = client.create_logged_model(office.experiment_id, source_run_id=run_id).model_id
        version = ModelVersion(office.model, "1", run_id, model_id, {})
        assert tracker.has_model(version)
    with user("admin"):
        client.delete_logged_model(model_id)
    with user("EDIT"):
        assert not tracker.has_model(version)


def test_a_logged_model_of_a_run_that_we_may_not_see_counts_as_there(office: Office) -> None:
    with user("admin"):
        client = MlflowClient(office.uri)
        experiment_id = client.create_experiment("secret")
        grant(office.uri, "EDIT", "experiment", experiment_id, "DENY")
        run_id = client.create_run(experiment_id).info.run_id
        model_id = client.create_logged_model(experiment_id, source_run_id=run_id).model_id
    with user("EDIT"):
        assert MlflowTracker(office.uri).has_model(ModelVersion(office.model, "1", run_id, model_id, {}))
