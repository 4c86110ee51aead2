"""The webhook in MLflow that delivers to `stockpot serve`: one of a name, however often it is made."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stockpot.errors import BadRequest
from stockpot.tracking.mlflow_calls import (
    asking,
    creating,
    is_web,
    redacted,
    registry_uri,
    registry_variable,
    shown_address,
)
from stockpot.webhooks.changes import EVENTS, PATH

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import Webhook, WebhookEvent, WebhookEventStr

NAME = "stockpot"
"""Of the webhook, where a person says no other."""
TRIES = 5
MEND = (
    "start MLflow's server with MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https for an address without TLS, with "
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true for one on your own network"
)


@dataclass(frozen=True)
class Subscription:
    """A webhook of ours, as it is in MLflow now."""

    name: str
    url: str
    events: tuple[str, ...]
    active: bool
    """Whether MLflow delivers. One that a person has disabled stays so."""
    made: bool = False
    """Whether it was not there before."""
    before: str = ""
    """The address that it had; empty where it was this one."""
    removed: int = 0
    """Further ones of its name, each of which would have delivered everything once more."""


def subscriptions(client: "MlflowClient") -> tuple[Subscription, ...]:
    """The webhooks that deliver to receivers of ours, by name; none of a registry that sends nothing. Raises
    TrackingError and its kinds.
    """
    if not is_web(registry_uri(client)):
        return ()
    with asking("listing the webhooks"):
        found = [each for each in _all(client) if each.name == NAME or urlsplit(each.url).path.endswith(PATH)]
    return tuple(sorted(map(_subscription, found), key=lambda one: one.name))


def subscribe(client: "MlflowClient", name: str, url: str, secret: str) -> Subscription:
    """Have MLflow deliver what changes in the registry to this address, signed with this secret.

    Makes the webhook of this name, or brings it up to date. Several may do so at once: one is left.

    Raises BadRequest for a registry that sends nothing, and for an address that MLflow refuses; TrackingError
    and its kinds.
    """
    registry = registry_uri(client)
    if not is_web(registry):
        raise BadRequest(
            f"the registry at {shown_address(registry, registry_variable(client))} is no MLflow server, and "
            "only a server sends webhooks",
            mend="set MLFLOW_TRACKING_URI to the address of an MLflow server, for example http://127.0.0.1:5000",
        )
    for _ in range(TRIES):
        with suppress(_Gone):
            return _subscribed(client, name, url, secret)
    raise BadRequest(f"somebody deletes the webhook {name} all the time", mend="run the same command again")


def _subscribed(client: "MlflowClient", name: str, url: str, secret: str) -> Subscription:
    """Raises _Gone where somebody deletes it meanwhile."""
    found = _named(client, name)
    if made := not found:
        with creating("making the webhook"), asking("making the webhook", invalid=BadRequest, mend=MEND):
            client.create_webhook(name, url, _events(), secret=secret)
        found = _named(client, name)  # again: whoever made one at the same moment sees both then, or we do
    if not found:
        raise _Gone("it was deleted at once")
    kept, *twins = found
    for twin in twins:
        with suppress(_Gone), asking("removing a webhook", missing=_Gone):
            client.delete_webhook(twin.webhook_id)
    with asking("changing the webhook", invalid=BadRequest, missing=_Gone, mend=MEND):
        # Always: MLflow tells nobody which secret it has.
        now = client.update_webhook(kept.webhook_id, url=url, events=_events(), secret=secret)
    before = "" if kept.url == url else redacted(kept.url)
    return replace(_subscription(now), url=now.url, made=made, before=before, removed=len(twins))


def _subscription(webhook: "Webhook") -> Subscription:
    """As it is, whoever made it. Its address without a password."""
    events = tuple(sorted(map(str, webhook.events)))
    return Subscription(webhook.name, redacted(webhook.url), events, webhook.status.is_active())


def _events() -> list["WebhookEventStr | WebhookEvent"]:
    from mlflow.entities.webhook import WebhookEvent

    return [WebhookEvent(*event.split(".")) for event in EVENTS]


class _Gone(BadRequest):
    """Somebody has deleted it at this moment, another process that makes it perhaps."""


def _named(client: "MlflowClient", name: str) -> list["Webhook"]:
    """All of this name, the oldest first."""
    with asking("listing the webhooks"):
        found = [each for each in _all(client) if each.name == name]
    return sorted(found, key=lambda each: (each.creation_timestamp, each.webhook_id))


def _all(client: "MlflowClient") -> Iterator["Webhook"]:
    token = None
    while True:
        page = client.list_webhooks(page_token=token)
        yield from page
        if not (token := page.token):
            return
