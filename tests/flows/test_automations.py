"""The two automations that end runs whose process is gone: one of each, however often they are applied."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Barrier
from typing import Any

import pytest

from stockpot_flows.address import Address
from stockpot_flows.deployments import APPROVE, GATE, HELP, SCAN, SOUP, WATCH, deployments_file

HERE = Address("", "")


@pytest.fixture
def none_yet(prefect: None) -> None:
    from stockpot_flows.automations import ours

    with connected() as client:
        for wanted in ours():
            for found in client.read_automations_by_name(wanted.name):
                client.delete_automation(found.id)


def connected() -> AbstractContextManager[Any]:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def on_the_server() -> list[Any]:
    with connected() as client:
        found = [each for each in client.read_automations() if each.name.startswith("stockpot")]
    return sorted(found, key=lambda each: str(each.name))


def did() -> list[str]:
    from stockpot_flows.automations import apply_automations

    return [each.did for each in apply_automations(HERE)]


def test_the_second_time_changes_nothing(none_yet: None) -> None:
    assert did() == ["made"] * 2
    before = on_the_server()
    assert did() == ["left as it was"] * 2
    assert on_the_server() == before
    assert [each.trigger.within.total_seconds() for each in before] == [600, 90]
    assert {each.actions[0].state.name for each in before} == {"CRASHED"}
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled")}
    assert all(ends < each.trigger.expect for each in before), "what has ended is not silent"
    assert "prefect.flow-run.Suspended" in before[1].trigger.expect, "nor what waits for a person"


def test_several_at_once_leave_one_of_each(none_yet: None) -> None:
    together = Barrier(4)

    def apply(_: int) -> list[str]:
        together.wait(60)
        return did()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(apply, range(4)))
    assert [each.name for each in on_the_server()] == ["stockpot: never begun", "stockpot: no sign of life"]


def test_one_of_an_older_program_is_changed_and_one_that_was_switched_off_stays_off(none_yet: None) -> None:
    from stockpot_flows.automations import ours

    silent, _ = ours()
    with connected() as client:
        kept = client.create_automation(silent.model_copy(update={"description": "old", "enabled": False}))
    assert did() == ["changed", "made"]
    with connected() as client:
        (found,) = client.read_automations_by_name(silent.name)
    assert (found.id, found.description, found.enabled) == (kept, silent.description, False)
    assert did() == ["left as it was"] * 2


def test_the_shipped_deployments_are_of_our_flows_and_send_the_sign_of_life(prefect: None) -> None:
    from importlib import import_module

    import yaml

    from stockpot_flows.automations import FLOWS

    told = yaml.safe_load(deployments_file().read_text())
    names = set()
    for each in told["deployments"]:
        module, _, name = each["entrypoint"].rpartition(".")
        flow = getattr(import_module(module), name)
        names.add(f"{flow.name}/{each['name']}")
        assert flow.name in FLOWS
        assert each["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert {SOUP, HELP, SCAN, WATCH, GATE, APPROVE} == names
    assert told["pull"] == []
