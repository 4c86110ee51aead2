"""Which deliveries were taken: none is taken twice."""

from heapq import heappop, heappush

from stockpot.webhooks.signature import TOLERANCE, Stamp
from stockpot.webhooks.verdicts import Verdict

LIMIT = 50_000
"""Ids that are remembered, some 10 MB: 200 deliveries a second."""


class Taken:
    """The ids that were taken, as long as their time lets them in again, and no more than `limit`.

    Whatever the clock does, and however many come, no id is taken twice: a delivery that was signed no later
    than one that is forgotten is refused. Only those with a true signature come here, so that nobody else
    fills the memory. A restart forgets all: what was taken then costs one more look.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._ids: set[str] = set()
        self._by_time: list[tuple[int, str]] = []
        self._forgotten = 0
        """When the latest of those that are forgotten was signed."""

    def take(self, stamp: Stamp, now: float) -> Verdict:
        """ACCEPTED the first time, then REPLAYED; LATE where nobody knows any more."""
        if stamp.delivery in self._ids:
            return Verdict.REPLAYED
        while self._by_time and (len(self._ids) >= self._limit or self._by_time[0][0] < now - TOLERANCE):
            if stamp.signed_at <= self._forgotten:
                break
            self._forgotten, oldest = heappop(self._by_time)
            self._ids.remove(oldest)
        if stamp.signed_at <= self._forgotten:
            return Verdict.LATE
        heappush(self._by_time, (stamp.signed_at, stamp.delivery))
        self._ids.add(stamp.delivery)
        return Verdict.ACCEPTED

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._ids)
