"""How a job's splits were opened, for those who help: one protocol for all."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from stockpot.entities import Opening, OverlayRule
from stockpot.errors import CannotHelp

if TYPE_CHECKING:
    from stockpot.ports import Bench, Evaluator


NOT_OPEN = Opening(version("stockpot"), ())
"""While a job's leader looks the sweep up."""


def opening_of(
    splits: Mapping[str, "Evaluator"], bench: "Bench", own: int, rule: OverlayRule | None = None
) -> Opening:
    """`own`: the task's own batch size. `rule`: by which soups get statistics."""
    halved_from = own if bench.batch_size < own else None
    return Opening(version("stockpot"), tuple(e.protocol for e in splits.values()), halved_from, rule)


def halve_as_before(bench: "Bench", own: int, opening: Opening | None) -> None:
    """Halve the batches as the job did, where they did not fit the device, unless the task has others now."""
    if opening is not None and opening.protocols and opening.halved_from == own:
        while bench.batch_size > opening.protocols[0].conditions.batch_size:
            bench.halve_batch()


def require_alike(
    splits: Mapping[str, "Evaluator"], opening: Opening, rule: OverlayRule | None = None
) -> None:
    """Raises CannotHelp where this process would not give the same scores, with every field that differs."""
    faults = []
    if (ours := version("stockpot")) != opening.program:
        faults.append(f"Stockpot: {ours} here, {opening.program} there")
    for theirs, evaluator in zip(opening.protocols, splits.values(), strict=True):
        differences = evaluator.protocol.differences(theirs)
        if not differences and evaluator.protocol.digest != theirs.digest:
            differences = ("protocol: another one here, in what is named twice",)
        faults += [fault for fault in differences if fault not in faults]
    if not faults and rule != opening.statistics:
        faults.append(f"a soup's statistics: {rule or 'none'} here, {opening.statistics or 'none'} there")
    if faults:
        raise CannotHelp(
            "this process would not give the scores of the request that it is to help",
            faults=faults,
            mend="help with the same Stockpot, torch, task, data and kind of device as the request runs with",
        )
