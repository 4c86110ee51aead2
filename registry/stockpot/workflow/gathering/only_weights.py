"""The one weights file of a registered version, a run or a folder."""

from collections.abc import Sequence

from stockpot.entities import WeightsFormat, WeightsSource
from stockpot.errors import BadCheckpoint
from stockpot.prose import listed

SOUP_FILE = "model.safetensors"
"""The soup in canonical form, in every version of ours: its digest is the soup's."""


def only_weights(sources: Sequence[WeightsSource], where: str, mend: str = "") -> WeightsSource:
    """Ours, else the only safetensors, else the only file that can be read. Raises BadCheckpoint."""
    ours = [source for source in sources if source.path == SOUP_FILE]
    safetensors = [source for source in sources if source.format is WeightsFormat.SAFETENSORS]
    readable = [source for source in sources if source.format is not WeightsFormat.PICKLE]
    for found in (ours, safetensors, readable):
        if len(found) == 1:
            return found[0]
    held = listed([source.path for source in sources]) or "no weights"
    raise BadCheckpoint(f"{where} holds {held}, of which Stockpot reads exactly one weights file", mend=mend)
