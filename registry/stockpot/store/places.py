"""Where a candidate's checkpoint was found, for every store."""

from stockpot.entities import Candidate, CheckpointPlace


def place_of(candidate: Candidate) -> CheckpointPlace:
    """Without the address of its file, which may hold a password."""
    source = candidate.source
    return CheckpointPlace(candidate.run.run_id, source.path, source.model_id)
