"""What people ask for in MLflow, and how long to wait after an attempt that failed."""

from dataclasses import dataclass

from stockpot.entities.digest import Digest
from stockpot.prose import counted, minute

DAY = 24 * 3600.0
BACKOFF = 600.0
"""Seconds after a first failure, doubled with each further one, until a day."""


def backoff(attempts: int) -> float:
    """Seconds between a failure and the next attempt, after so many in all."""
    return min(DAY, BACKOFF * 2 ** min(attempts - 1, 20)) if attempts > 0 else 0.0


@dataclass(frozen=True)
class Ask:
    """A version that somebody wants the gate to look at."""

    uri: str
    why: str
    """How that was said, in words for the trail."""
    before: str | None = None
    """Of a champion that was moved by hand: the version that it left, by its number."""
    by_hand: bool = False
    """Whether the alias has moved already: then the version is judged, and nothing moves."""
    name: str = ""
    """Of this very ask: by whichever entry of the trail an alias came, or by a tag, to whichever version."""


@dataclass(frozen=True, slots=True)
class FailedAsk:
    """An ask that was tried, and has no answer: for no reason of the version's."""

    name: Digest
    """Of the ask and of the policy, as they were tried."""
    model: str
    """The registered model's name."""
    born: int
    """When MLflow made the model, in milliseconds since the epoch."""
    uri: str
    why: str
    fault: str
    """Of the last attempt, in a line; empty where whoever made it was killed, or is at it."""
    attempts: int
    failed_at: float
    """When the last one failed, or began, by the store's clock, in seconds since the epoch."""

    @property
    def again(self) -> float:
        """When it is tried again. A kill costs no pause, unless it follows another failure: most are somebody
        who starts a machine anew.
        """
        return self.failed_at + backoff(self.attempts - (not self.fault))

    @property
    def why_not(self) -> str:
        """Why it has no answer, in a clause."""
        return self.fault or "whoever judged it was stopped, or is at it"

    @property
    def told(self) -> str:
        """The same, how often it was tried, and when it is again."""
        tried = counted(self.attempts, "attempt")
        again = f"{tried}, the next one after {minute(self.again)}, or as soon as it is asked for anew"
        return f"{self.uri}, {self.why}: {self.why_not}; {again}"

    def waits(self, now: float) -> bool:
        """Whether it is not to be tried yet. A clock that was set back keeps nobody waiting for longer."""
        return 0 < self.again - now <= DAY
