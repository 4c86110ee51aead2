"""A real MLflow server makes one webhook of ours, and delivers to `stockpot serve` what people do."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Barrier

import pytest
from cryptography.fernet import Fernet
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookEvent, WebhookEventStr
from mlflow.webhooks import delivery
from mlflow.webhooks.constants import (
    WEBHOOK_DELIVERY_ID_HEADER,
    WEBHOOK_SIGNATURE_HEADER,
    WEBHOOK_TIMESTAMP_HEADER,
)
from tests.cli.test_serve_command import Served, serving
from tests.unit.webhook_deliveries import NEW, OLD

from stockpot.cli import main
from stockpot.errors import BadRequest
from stockpot.guards import webhooks
from stockpot.tracking.mlflow_webhooks import subscribe
from stockpot.webhooks.changes import EVENTS
from stockpot.webhooks.signature import DELIVERY, SIGNATURE, TIMESTAMP, sign


def test_a_signature_is_mlflows_own() -> None:
    told = delivery._generate_hmac_signature(NEW, "an-id", "1800000000", "bödy")
    assert told == sign(NEW, "an-id", "1800000000", "bödy".encode())
    names = (WEBHOOK_DELIVERY_ID_HEADER, WEBHOOK_TIMESTAMP_HEADER, WEBHOOK_SIGNATURE_HEADER)
    assert tuple(name.lower().encode() for name in names) == (DELIVERY, TIMESTAMP, SIGNATURE)


def test_a_database_sends_nothing(mlflow_uri: str) -> None:
    with pytest.raises(BadRequest, match="is no MLflow server, and only a server sends webhooks"):
        subscribe(MlflowClient(mlflow_uri), "stockpot", "http://127.0.0.1:4300/webhooks/mlflow", NEW)


@pytest.fixture(scope="module")
def server(
    start_mlflow: Callable[..., AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    variables = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",
    }
    with start_mlflow(tmp_path_factory.mktemp("mlflow"), **variables) as uri:
        yield uri


@pytest.fixture
def client(server: str) -> Iterator[MlflowClient]:
    client = MlflowClient(server)
    yield client
    for each in client.list_webhooks():
        client.delete_webhook(each.webhook_id)


def named(client: MlflowClient) -> list[tuple[str, str]]:
    return [(each.name, each.url) for each in client.list_webhooks()]


@pytest.mark.slow
def test_registering_again_changes_the_one_that_is_there(client: MlflowClient) -> None:
    first = subscribe(client, "stockpot", "http://127.0.0.1:1/webhooks/mlflow", NEW)
    assert (first.made, first.active, first.removed, first.before) == (True, True, 0, "")
    assert {*first.events} == {*EVENTS}
    again = subscribe(client, "stockpot", "http://127.0.0.1:2/webhooks/mlflow", NEW)
    assert (again.made, again.before) == (False, "http://127.0.0.1:1/webhooks/mlflow")
    assert named(client) == [("stockpot", "http://127.0.0.1:2/webhooks/mlflow")]
    subscribe(client, "stockpot", "http://me:hush-hush@127.0.0.1:3/webhooks/mlflow", NEW)
    last = subscribe(client, "stockpot", "http://127.0.0.1:4/webhooks/mlflow", NEW)
    assert "127.0.0.1:3" in last.before
    assert "hush" not in last.before


@pytest.mark.slow
def test_several_at_once_leave_one(client: MlflowClient) -> None:
    url, together = "http://127.0.0.1:1/webhooks/mlflow", Barrier(4)
    client.create_webhook("stockpot", url, ["registered_model.created"])
    client.create_webhook("stockpot", url, ["registered_model.created"])
    client.create_webhook("somebody-elses", url, ["registered_model.created"])

    def one(_: int) -> None:
        together.wait(60)
        subscribe(client, "stockpot", url, NEW)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    assert sorted(named(client)) == [("somebody-elses", url), ("stockpot", url)]


@pytest.mark.slow
def test_one_that_a_person_disabled_stays_so_and_that_is_told(client: MlflowClient) -> None:
    made = client.create_webhook(
        "stockpot", "http://127.0.0.1:1/x", ["model_version_tag.set"], status="DISABLED"
    )
    assert not subscribe(client, "stockpot", "http://127.0.0.1:1/x", NEW).active
    assert not client.get_webhook(made.webhook_id).status.is_active()


@pytest.mark.slow
def test_doctor_tells_what_is_wrong_with_a_webhook_of_ours(
    server: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)

    def looked() -> list[tuple[str, str]]:
        return [(one.health.value, one.told) for one in webhooks()]

    url = "http://me:hush-hush@127.0.0.1:1/webhooks/mlflow"
    client.create_webhook("somebody-elses", "http://127.0.0.1:1/x", ["registered_model.created"])
    assert looked() == [("ok", "none: what moves is found by the scheduled looks")]
    subscribe(client, "ours", url, NEW)
    every: list[WebhookEventStr | WebhookEvent] = [WebhookEvent(*event.split(".")) for event in EVENTS]
    ((health, told_),) = looked()
    assert (health, "hush" in told_) == ("ok", False)
    assert "ours: MLflow delivers to http://" in told_
    webhook = next(each for each in client.list_webhooks() if each.name == "ours")
    client.update_webhook(webhook.webhook_id, events=["model_version_tag.set"])
    ((health, told_),) = looked()
    assert (health, "but not model_version_alias.created" in told_) == ("warning", True)
    client.update_webhook(webhook.webhook_id, events=every)
    client.create_webhook("stockpot", url, every)
    assert [health for health, _ in looked()] == ["warning", "warning"]
    assert all("as 1 other does: each delivers everything" in told_ for _, told_ in looked())
    client.update_webhook(webhook.webhook_id, status="DISABLED")
    assert "somebody has disabled it" in looked()[0][1]


@pytest.mark.slow
def test_what_mlflow_refuses_is_told_with_its_mend(
    start_mlflow: Callable[..., AbstractContextManager[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with start_mlflow(tmp_path) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
        monkeypatch.setenv("STOCKPOT_WEBHOOK_SECRETS", NEW)
        with pytest.raises(SystemExit, match="3"):
            main(["serve", "--register", "http://127.0.0.1:4300"])
    error = capsys.readouterr().err
    assert "Invalid webhook URL scheme" in error
    assert "MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https" in error
    assert NEW not in error


def told(served: Served, line: str) -> None:
    end = time.monotonic() + 60
    while line not in served.log.read_text():
        assert time.monotonic() < end, served.log.read_text()
        time.sleep(0.05)


@pytest.mark.slow
def test_mlflow_delivers_what_people_do_and_a_new_secret_takes_over(
    server: str,
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.create_registered_model("birds")
    client.create_registered_model("fish")
    for name in ("birds", "fish"):
        client.create_model_version(name, "s3://models/x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)

    def register(secrets: str, url: str) -> dict[str, object]:
        monkeypatch.setenv("STOCKPOT_WEBHOOK_SECRETS", secrets)
        main_done(["serve", "--register", url, "--json"])
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    with serving(tmp_path, STOCKPOT_WEBHOOK_SECRETS=f"{NEW} {OLD}") as served:
        made = register(OLD, served.url.removesuffix("/webhooks/mlflow"))
        assert (made["made"], made["url"]) == (True, served.url)
        client.set_registered_model_alias("birds", "champion", "1")
        told(served, "birds: the alias champion is on version 1")
        assert register(NEW, served.url)["made"] is False
        client.set_model_version_tag("fish", "1", "something", "else")
        client.set_model_version_tag("fish", "1", "stockpot.approval", "approved")
        told(served, "fish: version 1 has the tag stockpot.approval")
        client.delete_registered_model_alias("birds", "champion")
        told(served, "birds: the alias champion is gone")
        assert "refused" not in served.log.read_text()
        assert "something" not in served.log.read_text()


def main_done(arguments: list[str]) -> None:
    """Run a command that ends well."""
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
