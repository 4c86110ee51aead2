"""What `stockpot serve` tells Prefect, on a real server with the shipped deployments."""

import os
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from tests.cli.test_serve_command import serving
from tests.flows.prefect_site import awaited, prefect_site
from tests.unit.webhook_deliveries import NEW, payload, sent

from stockpot.webhooks.changes import Change
from stockpot_flows.events import tell_changed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_moved_alias_makes_a_run_of_what_looks_at_it_and_a_burst_makes_no_more_than_two(
    tmp_path: Path,
) -> None:
    with prefect_site(tmp_path / "prefect") as site:
        site.deploy(tmp_path)
        api = site.variables["PREFECT_API_URL"]

        def asked(path: str, question: object) -> list[dict[str, object]]:
            told = httpx.post(f"{api}/{path}", json=question, trust_env=False, timeout=60).raise_for_status()
            found: list[dict[str, object]] = told.json()
            return found

        def events() -> list[dict[str, object]]:
            wanted = {"filter": {"event": {"name": ["stockpot.registry.changed"]}}}
            told = httpx.post(
                f"{api}/events/filter", json=wanted, trust_env=False, timeout=60
            ).raise_for_status()
            found: list[dict[str, object]] = told.json()["events"]
            return found

        served_by = {key: site.variables[key] for key in ("PREFECT_API_URL", "PREFECT_HOME", "NO_PROXY")}
        with serving(tmp_path, STOCKPOT_WEBHOOK_SECRETS=NEW, **served_by) as served:
            for number in range(30):
                body = payload(name=f"birds {number % 2}/ä")
                assert served.post(sent(number, at=time.time(), body=body)).status_code == 200
            awaited(lambda: asked("flow_runs/filter", {}) or None, "a run")
            awaited(lambda: len(events()) >= 3 or None, "the events of the second telling")
            resources = {str(each["resource"]["prefect.resource.id"]) for each in events()}  # type: ignore[index]
            assert resources == {f"stockpot.model.birds%20{number}%2F%C3%A4" for number in range(2)}
            awaited(lambda: len(asked("flow_runs/filter", {})) > 1 or None, "the second run")
            assert "took no event" not in served.log.read_text()
        assert len(asked("flow_runs/filter", {})) == 2


def test_one_delivery_is_one_event_and_a_silent_prefect_is_told(
    prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = Change("birds", "model_version_alias.created", "the alias is moved", str(uuid4()))
    assert tell_changed([change]) == ""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    fault = tell_changed([change])
    assert fault.startswith("Prefect at http://127.0.0.1:9/api, from PREFECT_API_URL, took no event")
    monkeypatch.delenv("PREFECT_API_URL")
    assert os.environ.get("PREFECT_API_URL") is None
