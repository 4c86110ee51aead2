"""One verdict for each delivery."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stockpot.webhooks.changes import Change, change_of
from stockpot.webhooks.replays import Taken
from stockpot.webhooks.signature import stamp_of, verify
from stockpot.webhooks.verdicts import Verdict


@dataclass(frozen=True)
class Judged:
    """A delivery's verdict; what it tells, where it is accepted."""

    verdict: Verdict
    change: Change | None = None


class Deliveries:
    """Judges what arrives, and remembers what was taken. For one thread.

    Args:
        secrets: Those that live, of the webhook in MLflow.
        clock: Seconds since 1970.
        taken: What was taken so far.
    """

    def __init__(
        self, secrets: Sequence[str], clock: Callable[[], float] = time.time, taken: Taken | None = None
    ) -> None:
        self._secrets = tuple(secrets)
        self._clock = clock
        self._taken = Taken() if taken is None else taken

    def judge(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Judged:
        """The signature comes first: of what is not signed nothing else is looked at."""
        if (stamp := stamp_of(headers)) is None:
            return Judged(Verdict.UNSIGNED)
        now = self._clock()
        verdict = verify(stamp, body, self._secrets, now)
        if verdict is Verdict.ACCEPTED:
            verdict = self._taken.take(stamp, now)
        if verdict is not Verdict.ACCEPTED:
            return Judged(verdict)
        try:
            change = change_of(body, stamp.delivery)
        except ValueError:
            return Judged(Verdict.UNREADABLE)
        return Judged(Verdict.IGNORED if change is None else verdict, change)
