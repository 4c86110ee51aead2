"""What an answer depended on beside the sweep, told without torch: so that a request which is answered
already need not be worked on again.

That is the user's modules that the process has imported, the files that the task's arguments name, and
those that Python opens while the task is made and its splits are opened. What may have been read besides
makes a doubt, and with a doubt nothing is answered from memory.
"""

from stockpot.entities import Evidence
from stockpot.evidence.files import look
from stockpot.evidence.reads import Reads
from stockpot.evidence.surroundings import surroundings

__all__ = ["Reads", "change_since"]


def change_since(evidence: Evidence) -> str:
    """A clause that tells what does not look as it did; empty where all does."""
    if evidence.surroundings != surroundings():
        return (
            "the installed software, the machine, the working directory, or a variable that chooses a device "
            "or a module is another one"
        )
    changed = (stamp.path for stamp in evidence.files if look(stamp.path) != stamp)
    return next((f"{path} has changed since it was read" for path in changed), "")
