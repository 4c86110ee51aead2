"""What Prefect is told of sweeps: an event, which a trigger may wait for."""

from collections.abc import Mapping
from importlib.util import find_spec
from uuid import UUID

from stockpot_flows.address import configured

FINISHED = "stockpot.sweep.finished"
"""The event's name; its resource is ``stockpot.sweep.`` and the id of the parent run."""


def tell_finished(sweep: str, event_id: UUID, payload: Mapping[str, str]) -> str:
    """Send the event that a sweep has finished, where Prefect is installed and configured. It is no truth of
    its own: Prefect loses events, and the scan finds the sweep without.

    Returns a clause that says why the event was not sent; empty where it was, or Prefect is not used. Raises
    BadRequest for files of settings that cannot be read.
    """
    address = configured()
    if address is None or find_spec("prefect") is None:
        return ""
    try:
        from prefect.client.orchestration import get_client
        from prefect.events import Event, Resource

        from stockpot.settings import reach_loopback_directly

        reach_loopback_directly()
        resource = Resource({"prefect.resource.id": f"stockpot.sweep.{sweep}"})
        event = Event(event=FINISHED, resource=resource, payload=dict(payload), id=event_id)
        with get_client(sync_client=True) as client:
            # By HTTP, which is answered: the socket of `emit_event` drops what a server does not take.
            client.request("POST", "/events", json=[event.model_dump(mode="json")])
    except Exception as error:  # noqa: BLE001 - whatever its settings, its client or its server raise
        told = f"{type(error).__name__}: {error}"
        return f"Prefect at {address.shown}, from {address.source}, took no event: {address.hide(told)}"
    return ""
