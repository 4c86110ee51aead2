"""Where a soup stands in the registry before a request registers it."""

from typing import TYPE_CHECKING

from stockpot.entities import ModelVersion, Registration, RegistrationState
from stockpot.errors import BadRequest
from stockpot.workflow.publishing.publication import SNAPSHOT

if TYPE_CHECKING:
    from stockpot.ports import Tracker


def withdrawn(known: Registration | None, version: ModelVersion | None, tracker: "Tracker") -> str:
    """Why a soup that was registered counts as withdrawn by a person; empty where it does not.

    `known`: what the store remembers; `version`: what MLflow has.
    """
    if known is None or known.state is not RegistrationState.REGISTERED:
        return ""
    if version is None:
        return (
            f"it was models:/{known.model}/{known.version}, and that version was deleted, or its model was "
            "deleted or renamed. To register it anew: --again"
        )
    if version.model_id is not None and not _is_there(version.model_id, tracker):
        return (
            f"{version.uri} is there, but its LoggedModel {version.model_id} was deleted. "
            "To register it anew: delete that version, then --again"
        )
    return ""


def _is_there(model_id: str, tracker: "Tracker") -> bool:
    try:
        tracker.read_file(model_id, SNAPSHOT)
    except BadRequest:
        return False
    return True
