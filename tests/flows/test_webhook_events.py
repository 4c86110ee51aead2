"""What `stockpot serve` tells Prefect, on a real server with the shipped deployments."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.test_serve_command import serving
from tests.flows.prefect_site import awaited, prefect_site
from tests.unit.webhook_deliveries import NEW, payload, sent

from stockpot.webhooks.changes import Change
from stockpot_flows.events import CHANGED, tell_changed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_burst_of_changes_makes_two_runs_of_each_flow_that_looks_at_them(tmp_path: Path) -> None:
    with prefect_site(tmp_path / "prefect") as site:
        site.deploy(tmp_path)

        def asked(path: str, question: Any = None) -> Any:
            url = f"{site.variables['PREFECT_API_URL']}/{path}"
            return httpx.post(url, json=question or {}, trust_env=False, timeout=60).raise_for_status().json()

        def events(number: int) -> list[str] | None:
            """The resources of so many, in their order."""
            told = asked("events/filter", {"filter": {"event": {"name": [CHANGED]}, "order": "ASC"}})[
                "events"
            ]
            found = [each["resource"]["prefect.resource.id"] for each in told]
            return found if len(found) >= number else None

        def runs(number: int) -> list[tuple[str, Any]] | None:
            found = sorted(
                (each["name"], each["parameters"].get("seen")) for each in asked("flow_runs/filter")
            )
            return found if len(found) >= number else None

        prefect = {key: site.variables[key] for key in ("PREFECT_API_URL", "PREFECT_HOME", "NO_PROXY")}
        with serving(tmp_path, STOCKPOT_WEBHOOK_SECRETS=NEW, **prefect) as served:
            for number in range(30):
                body = payload(name=f"birds {number % 2}/ä")
                assert served.post(sent(number, at=time.time(), body=body)).status_code == 200
            assert len(awaited(lambda: runs(3), "the runs of the first change")) == 3
            told = awaited(lambda: events(3), "the events of the others")
            found = awaited(lambda: runs(6), "their runs")
            assert "took no event" not in served.log.read_text()
    assert told[0] == "stockpot.model.birds%200%2F%C3%A4"
    assert set(told) == {told[0], "stockpot.model.birds%201%2F%C3%A4"}
    assert len(told) == 3
    names = [name for name, _ in found]
    assert len(set(names)) <= len(names) == 6
    assert [seen for _, seen in found].count("webhook") == 4, "the two flows that write down what moved"


def test_a_prefect_that_is_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    nowhere = "http://127.0.0.1:1/api"
    monkeypatch.setenv("PREFECT_API_URL", nowhere)
    with temporary_settings({PREFECT_API_URL: nowhere}):
        fault = tell_changed([Change("birds", "model_version_alias.created", "the alias is moved", "1")])
    assert fault.startswith(f"Prefect at {nowhere}, from PREFECT_API_URL, took no event")
