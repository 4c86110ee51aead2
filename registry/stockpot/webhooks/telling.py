"""Changes are told by a thread of its own, so that no answer to MLflow waits for it."""

import threading
import time
from collections.abc import Callable

from stockpot.webhooks.changes import Change
from stockpot.webhooks.verdicts import Verdict

EVERY = 15.0
"""Seconds between two tellings. A trigger in `prefect.yaml` swallows what comes within 10 s of another."""
LIMIT = 1000
"""Models that wait to be told of."""


class Teller:
    """Tells of the first change at once, then of all that came meanwhile, together, `every` seconds later: of
    each model the newest. The last change is always told.

    Args:
        tell: Gets them, in the thread. What it raises goes to `say`.
        say: Gets a line for people.
        every: Seconds from the end of a telling to the beginning of the next one.
        limit: Models that wait at most; what does not fit is dropped, and that is said.
    """

    def __init__(
        self,
        tell: Callable[[tuple[Change, ...]], None],
        say: Callable[[str], None],
        *,
        every: float = EVERY,
        limit: int = LIMIT,
    ) -> None:
        self._tell, self._say = tell, say
        self._every, self._limit = every, limit
        self._waiting: dict[str, Change] = {}
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="stockpot-telling", daemon=True)
        self._thread.start()

    def take(self, change: Change) -> bool:
        """Whether it will be told. Never waits."""
        with self._changed:
            if change.model not in self._waiting and len(self._waiting) >= self._limit:
                self._dropped += 1
                return False
            if (
                not self._waiting
            ):  # else the thread knows when it tells next: to wake it would cost the answer
                self._changed.notify()
            self._waiting[change.model] = change
        return True

    def close(self, seconds: float = 5.0) -> None:
        """Tell no more; what is being told has so many seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        told_at = float("-inf")
        while found := self._next(told_at):
            try:
                self._tell(found)
            except Exception as error:  # noqa: BLE001 - the thread goes on: the next change is none the worse
                self._say(f"what changed could not be told: {type(error).__name__}: {error}")
            told_at = time.monotonic()  # now: the first one imports Prefect's client before it sends

    def _next(self, told_at: float) -> tuple[Change, ...]:
        """Those that wait, once they may be told; none where all is over."""
        with self._changed:
            while not self._closed:
                left = told_at + self._every - time.monotonic()
                if self._waiting and left <= 0:
                    break
                self._changed.wait(left if self._waiting else None)
            else:
                return ()
            found, dropped = tuple(self._waiting.values()), self._dropped
            self._waiting, self._dropped = {}, 0
        if dropped:
            self._say(f"{dropped:,} more changes were dropped: too many models wait to be told of")
        return found


class Refusals:
    """Says which deliveries are refused, and why: of each reason the first one at once, then their number in
    a line a minute at most, so that no stranger fills a log.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        every: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._every, self._clock = say, every, clock
        self._said: dict[Verdict, float] = {}
        self._unsaid: dict[Verdict, int] = {}

    def __call__(self, verdict: Verdict) -> None:
        """Take the verdict of a delivery. For one thread."""
        if verdict in (Verdict.ACCEPTED, Verdict.IGNORED):
            return
        now, number = self._clock(), self._unsaid.pop(verdict, 0) + 1
        if now - self._said.get(verdict, float("-inf")) < self._every:
            self._unsaid[verdict] = number
            return
        self._said[verdict] = now
        self._say(f"{number:,} deliveries {verdict}" if number > 1 else f"a delivery {verdict}")
