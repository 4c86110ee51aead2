"""Whether the base that a request names can be averaged with the sweep's candidates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stockpot.entities import Candidate
from stockpot.errors import Incompatible
from stockpot.soup import differences

if TYPE_CHECKING:
    from stockpot.workflow.gathering.supply import Supply

WHOLE = (
    "name the very model that the fine-tuning began with, in the sweep's architecture. Where that got a new "
    "head, save it before training, head included. Another precision is cast by --dtype"
)


def require_alike(base: Candidate, candidate: Candidate, supply: "Supply") -> None:
    """Raises Incompatible where the base and a candidate of the sweep cannot be averaged."""
    name, ours, theirs = f"the base {base.run.name}", base.checkpoint, candidate.checkpoint
    if faults := differences(theirs.tensors, ours.tensors):
        raise another_architecture(name, faults)
    if ours.exact != theirs.exact:
        raise another_architecture(
            name, supply.differing_values(candidate, base) or ["its integer or boolean tensors"]
        )


def another_architecture(name: str, faults: Sequence[str]) -> Incompatible:
    """The error that tells how the tensors of this base differ from the sweep's."""
    return Incompatible(
        f"{name} cannot be averaged with the sweep's candidates, which have other tensors",
        faults=faults,
        mend=WHOLE,
    )
