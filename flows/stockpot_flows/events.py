"""What Prefect is told of sweeps and of registered models: events, which a trigger may wait for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

from stockpot.webhooks.changes import Change
from stockpot_flows.address import configured

FINISHED = "stockpot.sweep.finished"
"""The event's name; its resource is ``stockpot.sweep.`` and the id of the parent run."""
CHANGED = "stockpot.registry.changed"
"""Its resource is ``stockpot.model.`` and the registered model's name, quoted as in a URL."""


def tell_finished(sweep: str, event_id: UUID, payload: Mapping[str, str]) -> str:
    """Send the event that a sweep has finished, where Prefect is installed and configured. It is no truth of
    its own: Prefect loses events, and the scan finds the sweep without.

    Returns a clause that says why the event was not sent; empty where it was, or Prefect is not used. Raises
    BadRequest for files of settings that cannot be read.
    """
    return _sent([_Told(FINISHED, f"stockpot.sweep.{sweep}", event_id, payload)])


def tell_changed(changes: Iterable[Change]) -> str:
    """Send the events that registered models have changed, as `tell_finished` does. Prefect's triggers fire
    once for a delivery.
    """
    return _sent(
        [
            _Told(
                CHANGED,
                f"stockpot.model.{quote(change.model, safe='')}",
                uuid5(NAMESPACE_URL, f"stockpot webhook {change.delivery}"),
                {"model": change.model, "event": change.event, "what": change.what},
            )
            for change in changes
        ]
    )


@dataclass(frozen=True)
class _Told:
    event: str
    resource: str
    event_id: UUID
    payload: Mapping[str, str]


def _sent(told: Sequence[_Told]) -> str:
    """All at once. Returns why they were not sent."""
    address = configured()
    if address is None or find_spec("prefect") is None:
        return ""
    try:
        from prefect.client.orchestration import get_client
        from prefect.events import Event, Resource

        from stockpot.settings import reach_loopback_directly

        reach_loopback_directly()
        events = [
            Event(
                event=each.event,
                resource=Resource({"prefect.resource.id": each.resource}),
                payload=dict(each.payload),
                id=each.event_id,
            )
            for each in told
        ]
        with get_client(sync_client=True) as client:
            # By HTTP, which is answered: the socket of `emit_event` drops what a server does not take.
            client.request("POST", "/events", json=[event.model_dump(mode="json") for event in events])
    except Exception as error:  # noqa: BLE001 - whatever its settings, its client or its server raise
        told_so = f"{type(error).__name__}: {error}"
        return f"Prefect at {address.shown}, from {address.source}, took no event: {address.hide(told_so)}"
    return ""
