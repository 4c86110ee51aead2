"""A registered version as something that can be measured, whoever made it."""

from typing import TYPE_CHECKING

from stockpot.entities import Candidate, ModelVersion, Run
from stockpot.errors import BadCheckpoint
from stockpot.workflow.gathering.only_weights import only_weights
from stockpot.workflow.gathering.supply import Supply

if TYPE_CHECKING:
    from stockpot.ports import Tracker


def offer_version(version: ModelVersion, tracker: "Tracker", supply: Supply) -> Candidate:
    """Download the version's one weights file, and make it available by its digest.

    Raises BadCheckpoint where it holds none that can be read, and what MLflow raises.
    """
    source = only_weights(tracker.version_weights(version), version.uri)
    found = supply.read(source)  # anew: a model that was deleted and made again has a version 1 again
    if found.checkpoint is None:
        raise BadCheckpoint(f"{source.path} of {version.uri}: {found.detail}")
    run = Run(version.run_id or "", version.uri, "", "FINISHED", 0, {}, {}, {})
    candidate = Candidate(run, source, found.sha256, found.checkpoint)
    supply.offer([candidate])
    return candidate
