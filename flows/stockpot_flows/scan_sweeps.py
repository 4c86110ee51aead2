"""The flow behind all triggers: sweeps that finished are found, and each is handed to a run of its own."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from stockpot.documents import to_document
from stockpot.errors import BadRequest, Busy, telling_no_secrets
from stockpot.prose import counted
from stockpot.settings import begin_log
from stockpot.wiring import Workplace
from stockpot.workflow.reconciling import told_daily
from stockpot.workflow.scanning.findings import Asked, Scan
from stockpot.workflow.scanning.rules import read_rules
from stockpot.workflow.scanning.scan import scan

LOST_AFTER = 3600.0
"""Seconds in which a run that was asked for begins, or waits for a worker; else it is asked for again."""


@flow(name="scan-sweeps", flow_run_name="scan")
def scan_sweeps(rules: str | None = None, deployment: str = "soup-sweep/soup") -> State[Any]:
    """Find the sweeps that finished since the last scan, and hand each to the deployment, once.

    Whatever asked for it, and however often: a request about one state of a sweep is one job. No decision
    depends on what Prefect says of the runs.

    Args:
        rules: The file of rules; by default STOCKPOT_RULES, else rules.toml in STOCKPOT_HOME.
        deployment: Takes the requests.

    Raises the errors of `stockpot.errors`, each with its mend.
    """
    begin_log()
    with telling_no_secrets():
        return Completed(message=_scan(rules, deployment))


def _scan(rules: str | None, deployment: str) -> str:
    """What was done, in a sentence."""
    _require(deployment)
    with Workplace() as place:
        file = Path(rules) if rules else place.settings.rules_file
        if not rules and not file.exists():  # the deployment may well come before them
            return f"there are no rules yet: {file} is not there"
        try:
            found = scan(read_rules(file), place.tracker, place.store, lost_after=LOST_AFTER)
        except Busy as error:
            return error.what
    say = get_run_logger().info
    for line in lines_of(found):
        say(line)
    faults = [fault for asked in found.asked if (fault := _fault_of(asked, deployment)) is not None]
    with Workplace() as place:
        for line in told_daily(place):
            say(line)
    if faults:  # they are asked for again, like others that were lost
        raise faults[0]
    others = len(found.sightings) - len(found.asked)
    return f"asked for {counted(len(found.asked), 'soup')}; {counted(others, 'other sweep')} looked at"


def lines_of(found: Scan) -> list[str]:
    """A line for each sweep, and the notes."""
    sweeps = [
        f"{one.name} ({one.sweep}), rule {one.rule}: {one.standing}{one.detail and f', {one.detail}'}"
        for one in found.sightings
    ]
    return [*sweeps, *found.notes]


def _require(deployment: str) -> None:
    """Before anything is asked for that nobody would hear."""
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise BadRequest(
                f"Prefect knows no deployment {deployment}",
                mend="prefect --no-prompt deploy --all, in the folder of prefect.yaml",
            ) from error


def _fault_of(asked: Asked, deployment: str) -> Exception | None:
    """Why it could not be handed over; None where it was."""
    try:
        _submit(asked, deployment)
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises: the others come first
        return error
    return None


def _submit(asked: Asked, deployment: str) -> None:
    """Not awaited, and no subflow: the scan ends, and what it asked for goes on."""
    run_deployment(
        deployment,
        parameters={"request": to_document(asked.request)},
        timeout=0,
        as_subflow=False,
        idempotency_key=f"{asked.job.name}-{asked.attempts}",
    )
