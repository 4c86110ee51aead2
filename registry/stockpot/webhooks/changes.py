"""What a delivery tells: which registered model changed, and how."""

import json
from dataclasses import dataclass
from typing import Any

from stockpot.entities.tags import APPROVAL
from stockpot.prose import can_be_kept

PATH = "/webhooks/mlflow"
"""Where a receiver takes deliveries."""
EVENTS = (
    "model_version_alias.created",
    "model_version_alias.deleted",
    "model_version_tag.set",
    "model_version_tag.deleted",
)
"""What Stockpot asks MLflow to send. An alias that moves is one that is created."""
WORDS = {
    "model_version_alias.created": "the alias {alias} is on version {version}",
    "model_version_alias.deleted": "the alias {alias} is gone",
    "model_version_tag.set": "version {version} has the tag {key}",
    "model_version_tag.deleted": "version {version} has lost the tag {key}",
}
LONGEST = 500
"""Characters of a name, in MLflow at most 256."""


@dataclass(frozen=True)
class Change:
    """Of a registered model, as MLflow told it: a reason to look, never the truth."""

    model: str
    event: str
    what: str
    """In words."""
    delivery: str = ""
    """Its id."""


def change_of(body: bytes, delivery: str = "") -> Change | None:
    """The change that this body tells; None for what Stockpot does not look at: other events, and tags other
    than a person's approval.

    Raises ValueError for what is no delivery of MLflow's.
    """
    try:
        told = json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    data = told.get("data") if isinstance(told, dict) else None
    if not isinstance(data, dict):
        raise ValueError("no object with data")  # noqa: TRY004 - of a text, not of an argument
    event = f"{_name(told, 'entity')}.{_name(told, 'action')}"
    if event not in EVENTS:
        return None
    model = _name(data, "name")
    if event.startswith("model_version_tag") and _name(data, "key") != APPROVAL:
        return None
    words = WORDS[event]
    values = {key: _name(data, key) for key in ("alias", "version", "key") if f"{{{key}}}" in words}
    return Change(model, event, words.format(**values), delivery)


def _name(of: dict[str, Any], key: str) -> str:
    found = of.get(key)
    if not isinstance(found, str) or not 0 < len(found) <= LONGEST or not can_be_kept(found):
        raise ValueError(f"no {key}")
    return found
