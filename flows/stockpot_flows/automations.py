"""What Prefect does by itself about flow runs of ours whose process is gone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import Automation
from prefect.exceptions import PrefectHTTPStatusError

from stockpot_flows.address import Address
from stockpot_flows.server import faults_told

FLOWS = ["soup-sweep", "help-sweep", "scan-sweeps", "watch-models", "gate-versions", "approve-version"]
"""Nobody else's runs are touched."""
ENDED = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled")}
HEARTBEAT = "prefect.flow-run.heartbeat"
SILENT_SECONDS = 90
"""Three heartbeats: `prefect.yaml` asks for one in 30 s."""
WAITING_SECONDS = 600
"""Of a run that a worker has taken and that has not begun: some minutes go by for an image that is pulled."""


class Did(StrEnum):
    """What became of an automation."""

    MADE = "made"
    CHANGED = "changed"
    LEFT = "left as it was"


@dataclass(frozen=True)
class Applied:
    """An automation of ours, as it is on the server now."""

    name: str
    did: Did


def apply_automations(address: Address) -> tuple[Applied, ...]:
    """Make ours on the server that is configured, or bring those of their names to this program's.

    There is one of each, however often and by how many at once this is done. One that a person has switched
    off stays so.

    Raises PrefectUnreachable, with this address.
    """
    with faults_told(address, "did not take the automations"), get_client(sync_client=True) as client:
        return tuple(Applied(wanted.name, _applied(wanted, client)) for wanted in ours())


def ours(silent: int = SILENT_SECONDS, waiting: int = WAITING_SECONDS) -> tuple[AutomationCore, ...]:
    """A run that was alive and is silent for so many seconds, and one that was taken and does not begin in so
    many, are told to be Crashed.
    """
    return (
        _crash(
            "stockpot: no sign of life",
            f"No sign of life for {silent} s: its process is gone.",
            after={HEARTBEAT},
            expect={
                HEARTBEAT,
                "prefect.flow-run.Suspended",
                *ENDED,
            },  # what waits for a person has no process
            seconds=silent,
        ),
        _crash(
            "stockpot: never begun",
            f"A worker took it {waiting} s ago, and it has not begun.",
            after={"prefect.flow-run.Pending", "prefect.flow-run.Submitting"},
            expect={
                "prefect.flow-run.Running",
                "prefect.flow-run.Scheduled",
                "prefect.flow-run.Late",
                "prefect.flow-run.AwaitingConcurrencySlot",
                "prefect.flow-run.Cancelling",
                *ENDED,
            },
            seconds=waiting,
        ),
    )


def _crash(name: str, message: str, *, after: set[str], expect: set[str], seconds: int) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=f"By Stockpot, which applies it again. {message}",
        trigger=EventTrigger(
            after=after,
            expect=expect,
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            match_related={"prefect.resource.role": ["flow"], "prefect.resource.name": FLOWS},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)],
    )


def _applied(wanted: AutomationCore, client: SyncPrefectClient) -> Did:
    made = not client.read_automations_by_name(wanted.name)
    if made:
        client.create_automation(wanted)
    # Read again: whoever makes one at the same moment sees both then, or we do, and all keep the same one.
    kept, *twins = sorted(client.read_automations_by_name(wanted.name), key=lambda found: found.id)
    _delete(twins, client)
    if _told(kept) == _told(wanted):
        return Did.MADE if made else Did.LEFT
    # From its document: the client sends no default of a field. The server takes no owner.
    document = wanted.model_dump(exclude={"owner_resource"})
    client.update_automation(kept.id, AutomationCore(**{**document, "enabled": kept.enabled}))
    return Did.CHANGED


def _told(automation: AutomationCore) -> object:
    return automation.model_dump(include={"name", "description", "trigger", "actions"})


def _delete(twins: Sequence[Automation], client: SyncPrefectClient) -> None:
    for twin in twins:
        try:
            client.delete_automation(twin.id)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 404:  # 404: somebody else has
                raise
