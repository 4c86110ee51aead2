"""`stockpot doctor` looks at everything, tells what mends it, and changes nothing."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tests.contracts.signing_keys import write_pair

from stockpot.cli import main
from stockpot.errors import NotPermitted
from stockpot.store import head, upgrade

ASSETS = Path(__file__).parents[1] / "store" / "assets"
TINY = "stockpot.testing.tiny:TinyTask"


def _doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, what was found, and all that was printed, as JSON and in words."""
    printed = []
    for form in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *arguments, *form])
        captured = capsys.readouterr()
        printed.append(captured.out + captured.err)
    return int(ended.value.code or 0), json.loads(printed[1]), "".join(printed)


def _of(found: Sequence[dict[str, Any]], part: str) -> dict[str, Any]:
    return next(one for one in found if one["part"] == part)


@pytest.fixture(autouse=True)
def _no_prefect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


def test_where_all_is_well_the_code_is_zero_and_nothing_was_made(
    mlflow_uri: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, found, _ = _doctor(capsys, "--task", TINY)
    assert code == 0
    assert {one["health"] for one in found} == {"ok"}
    before_prefect = ["program", "MLflow", "store", "policies", "webhooks"]
    parts = [*before_prefect, "Prefect", "cache", "outputs", "device", "task"]
    assert [one["part"] for one in found] == parts
    assert "none yet, no alias is guarded" in _of(found, "policies")["told"]
    assert _of(found, "webhooks")["told"] == "none: what moves is found by the scheduled looks"
    assert mlflow_uri in _of(found, "MLflow")["told"]
    assert "none yet" in _of(found, "store")["told"]
    assert sorted(tmp_path.rglob("*")) == before
    upgrade(f"sqlite:///{_made(home)}")
    _, found, _ = _doctor(capsys)
    assert f"at schema {head()}" in _of(found, "store")["told"]


def test_a_key_that_signs_is_named_and_one_that_cannot_is_a_fault(
    mlflow_uri: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert mlflow_uri
    assert not home.exists()
    key, public = write_pair(tmp_path / "keys")
    monkeypatch.setenv("STOCKPOT_SIGNING_KEY", str(key))
    code, found, _ = _doctor(capsys)
    assert (code, _of(found, "signing")["health"]) == (0, "ok")
    monkeypatch.setenv("STOCKPOT_SIGNING_KEY", str(public))
    code, found, _ = _doctor(capsys)
    assert code == 3
    assert "public.pem, from STOCKPOT_SIGNING_KEY, holds no private key" in _of(found, "signing")["told"]


def _made(home: Path) -> Path:
    home.mkdir()
    return home / "stockpot.db"


def test_no_fault_hides_another_and_the_first_ones_code_is_the_commands(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    variables = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/none.db",
        "STOCKPOT_STORE_URL": "mysql://here/stockpot",
        "STOCKPOT_CACHE": str(tmp_path / "file" / "cache"),
        "STOCKPOT_OUTPUTS": "s4://bucket",
        "STOCKPOT_DEVICE": "abacus",
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, found, _ = _doctor(capsys, "--task", "gone.tasks:Gone")
    faults = [one for one in found if one["health"] == "fault"]
    assert [one["part"] for one in faults] == [
        *("MLflow", "store", "Prefect", "cache", "outputs", "device", "task"),
    ]
    assert all(one["mend"] for one in faults)
    assert code == faults[0]["exit_code"] == 8
    assert [one["exit_code"] for one in faults[1:]] == [7, 10, 7, 3, 3, 3]
    assert not (tmp_path / "none.db").exists()


def test_an_address_whose_secret_was_not_put_in_says_how(
    mlflow_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOCKPOT_STORE_URL", "postgresql://stockpot:{database}@postgres/stockpot")
    code, found, _ = _doctor(capsys)
    assert code == 3
    assert "with-secrets" in _of(found, "settings")["told"]


def test_without_a_place_for_outputs_requests_go_on(
    mlflow_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOCKPOT_OUTPUTS", "/proc/outputs")
    code, found, _ = _doctor(capsys)
    assert code == 0
    outputs = _of(found, "outputs")
    assert outputs["health"] == "warning"
    assert "STOCKPOT_OUTPUTS" in outputs["mend"]


def test_settings_that_cannot_be_read_keep_nobody_from_looking_at_the_rest(
    mlflow_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOCKPOT_CACHE_LIMIT", "much")
    code, found, _ = _doctor(capsys)
    assert code == 3
    assert _of(found, "settings")["mend"] == "export STOCKPOT_CACHE_LIMIT=..., or unset it"
    assert _of(found, "MLflow")["health"] == "ok"


def test_a_variable_that_nobody_reads_is_told_with_the_one_that_may_be_meant(
    mlflow_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("STOCKPOT_STORE", "STOCKPOT_TRACEBACK", "stockpot_cache_limit"):
        monkeypatch.setenv(name, "10GB")
    code, found, _ = _doctor(capsys)
    assert code == 0
    told = [(one["health"], one["told"], one["mend"]) for one in found if one["part"] == "settings"]
    nobody = "nobody reads STOCKPOT_STORE: did you mean STOCKPOT_STORE_URL?"
    assert told == [("warning", nobody, "unset STOCKPOT_STORE")]


@pytest.mark.parametrize(("revision", "mend"), [("0003", "stockpot db upgrade"), ("9999", "pip install")])
def test_another_schema_is_told_with_what_mends_it_and_left_as_it_is(
    mlflow_uri: str, home: Path, capsys: pytest.CaptureFixture[str], revision: str, mend: str
) -> None:
    path = _made(home)
    with closing(sqlite3.connect(path)) as database:
        database.executescript((ASSETS / "revision_0003.sql").read_text())
        database.execute("UPDATE stockpot_alembic_version SET version_num = ?", (revision,))
        database.commit()
    before = path.read_bytes()
    code, found, _ = _doctor(capsys)
    assert code == 7
    assert mend in _of(found, "store")["mend"]
    assert path.read_bytes() == before


def test_no_password_is_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:hunter2@127.0.0.1:9")
    monkeypatch.setenv("STOCKPOT_STORE_URL", "postgresql://anna:swordfish@127.0.0.1:9/stockpot")
    monkeypatch.setenv("PREFECT_API_URL", "http://anna:xyzzy@127.0.0.1:9/api")
    code, found, printed = _doctor(capsys)
    assert code == 8
    assert [one["part"] for one in found if one["health"] == "fault"] == ["MLflow", "store", "Prefect"]
    assert not {word for word in ("hunter2", "swordfish", "xyzzy") if word in printed}


def test_what_a_tasks_source_leaves_open_is_a_warning(
    mlflow_uri: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "doubtful_birds.py").write_text(
        "import importlib, os\n"
        "from stockpot.testing.tiny import TinyTask\n"
        "class Birds(TinyTask):\n"
        "    found = importlib.import_module(os.environ.get('WHICH', 'json'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code, found, _ = _doctor(capsys, "--task", "doubtful_birds:Birds")
    assert code == 0
    warnings = [one for one in found if one["health"] == "warning"]
    assert {one["part"] for one in warnings} == {"task"}
    assert "doubtful_birds" in warnings[0]["told"]


def test_a_disk_that_is_almost_full_is_a_warning(
    mlflow_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOCKPOT_CACHE_LIMIT", str(2 * shutil.disk_usage("/").total))
    _, found, _ = _doctor(capsys)
    warning = _of(found, "cache")
    assert warning["health"] == "warning"
    assert "STOCKPOT_CACHE_LIMIT" in warning["mend"]


def test_each_policy_is_looked_at_its_model_aliases_and_task(
    mlflow_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _made(home).with_name("policies.toml")
    file.write_text(
        f'[model.birds]\ntask = "{TINY}"\n[model.brids]\ntask = "{TINY}"\n[model.fish]\ntask = "gone:Gone"\n'
    )
    client = MlflowClient(mlflow_uri)
    for name in ("birds", "fish"):
        client.create_registered_model(name)
    client.create_model_version("birds", source=home.as_uri())
    client.set_registered_model_alias("birds", "champion", "1")
    code, found, _ = _doctor(capsys)
    assert code == 3
    policies = [(one["health"], one["told"]) for one in found if one["part"] == "policies"]
    assert policies[:4] == [
        ("ok", f"{file}: 3 policies"),
        ("ok", f"birds: its task {TINY} loads; champion is version 1, nobody has candidate yet"),
        ("warning", "brids: MLflow has no registered model of that name: did you mean birds?"),
        ("ok", f"brids: its task {TINY} loads; nobody has champion yet, nobody has candidate yet"),
    ]
    (fault,) = policies[4:]
    assert fault[0] == "fault"
    assert "gone" in fault[1]
    file.write_text("[model.birds]\ntaks = 1\n")
    code, found, _ = _doctor(capsys)
    assert (code, _of(found, "policies")["health"]) == (3, "fault")
    assert "taks is unknown" in _of(found, "policies")["told"]
    monkeypatch.setenv("STOCKPOT_POLICIES", str(home / "gone.toml"))
    code, found, _ = _doctor(capsys)
    assert (code, _of(found, "policies")["health"]) == (3, "fault")
    file.unlink()
    monkeypatch.setenv("STOCKPOT_POLICIES", "")
    code, found, _ = _doctor(capsys)
    assert (code, _of(found, "policies")["health"]) == (0, "ok"), "as where it is not set"


def test_a_key_that_a_policy_asks_for_and_that_cannot_be_used_is_a_fault(
    mlflow_uri: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, public = write_pair(tmp_path / "keys")
    policy = f'[model.birds]\ntask = "{TINY}"\nsigned_by = "{public}"\n'
    _made(home).with_name("policies.toml").write_text(policy)
    assert _doctor(capsys)[0] == 0
    first, *_, last = public.read_text().splitlines()
    public.write_text(f"{first}\nAAAA\n{last}\n")
    code, found, _ = _doctor(capsys)
    (fault,) = [one for one in found if one["health"] == "fault"]
    assert (code, fault["part"]) == (3, "policies")
    assert str(public) in fault["told"]


def test_webhooks_that_only_an_admin_may_list_are_no_fault(
    mlflow_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(client: MlflowClient) -> tuple[()]:
        raise NotPermitted("listing the webhooks: Permission denied", mend="check your rights")

    monkeypatch.setattr("stockpot.tracking.mlflow_webhooks.subscriptions", refused)
    code, found, _ = _doctor(capsys)
    assert code == 0
    assert _of(found, "webhooks")["health"] == "warning"
    assert "Permission denied" in _of(found, "webhooks")["told"]


@pytest.mark.slow
def test_deployments_pools_and_workers_are_looked_at(
    mlflow_uri: str,
    home: Path,
    prefect: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))

    def told() -> list[tuple[str, str]]:
        code, found, _ = _doctor(capsys)
        assert code == 0
        return [(one["health"], one["told"]) for one in found if one["part"] == "Prefect"]

    server, *none = told()
    assert server[0] == "ok"
    assert [health for health, _ in none] == ["warning"] * 5
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="doctors", type="process"))
        flow = client.create_flow_from_name("soup-sweep")
        made = client.create_deployment(flow, "soup", work_pool_name="doctors")
        try:
            assert told()[1:] == [
                ("ok", "deployment soup-sweep/soup, in pool doctors"),
                *none[1:],
                ("warning", "pool doctors, of type process: 0 workers online"),
            ]
            client.send_worker_heartbeat("doctors", "one")
            assert told()[-1] == ("ok", "pool doctors, of type process: 1 worker online")
            client.pause_deployment(made)
            assert told()[1:] == [("warning", "deployment soup-sweep/soup is paused"), *none[1:]]
        finally:
            client.delete_deployment(made)
            client.delete_work_pool("doctors")
