"""What every selection method demands of what it is given and told."""

import math
from collections.abc import Sequence

from stockpot.entities import Bound, Contender, Outcome, Score, Threshold, Trial


def distinct(contenders: Sequence[Contender]) -> tuple[Contender, ...]:
    """The contenders. Raises ValueError for none at all, or for two with the same checkpoint."""
    if not contenders:
        raise ValueError("a selection needs at least one contender")
    if len({contender.checkpoint for contender in contenders}) < len(contenders):
        raise ValueError("two contenders have the same checkpoint: drop duplicates before the selection")
    return tuple(contenders)


def require_asked(asked: Trial | None, told: Trial) -> None:
    """Raise ValueError unless this is the trial whose outcome comes next."""
    if told != asked:
        raise ValueError(f"told the outcome of {told}, while {asked or 'nothing'} was asked for")


def full_score(outcome: Outcome) -> Score:
    """The outcome of a trial without a threshold. Raises ValueError for a Bound."""
    if isinstance(outcome, Bound):
        what = f"{outcome} for a trial that had to be measured in full"
        raise ValueError(what)  # noqa: TRY004 - the value is at fault: elsewhere a Bound is welcome
    return outcome


def require_rejection(bound: Bound, threshold: Threshold) -> None:
    """Raise ValueError unless every score up to this bound fails the threshold."""
    if math.isnan(bound.upper) or threshold.met_by(bound.upper):
        raise ValueError(f"{bound} does not exclude that {threshold} is met")
