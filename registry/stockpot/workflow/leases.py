"""One process at a time works on something; others wait, and a dead one's lease runs out."""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING

from stockpot.entities import Lease
from stockpot.errors import StoreError

if TYPE_CHECKING:
    from stockpot.ports import Store

LEASE_SECONDS = 60.0
"""After which others may take it: renewed three times in each, however long the work takes."""
MOST_RENEWALS = 30_240
"""Without a sign of progress: a week's, since most work gives none. Whoever takes longer hangs, and others
need not wait for it for ever."""
POLL_SECONDS = 0.5, 5.0
"""Databases announce nothing: a waiting process asks again, after the first of these at first, and after the
second in the end. A hundred that ask often keep the machine from the work that they wait for."""


class Hold:
    """A lease, as one thread of one process wants it or holds it. `work` says what it is for."""

    def __init__(
        self,
        store: "Store",
        name: str,
        work: str,
        seconds: float | None = None,
        most_renewals: int | None = None,
    ) -> None:
        """`most_renewals`: without a sign of progress; None for MOST_RENEWALS."""
        self.lease: Lease | None = None
        """Ours, until it is given up: by whoever takes this away, or in the end."""
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"
        self._store = store
        self._name = name
        self._work = work
        self._seconds = LEASE_SECONDS if seconds is None else seconds
        self._most = MOST_RENEWALS if most_renewals is None else most_renewals
        self._renewals = 0

    def attempt(self) -> Lease | None:
        """Try to take it. Returns the lease of whoever holds it instead, None where it is ours now."""
        lease = self._store.take_lease(self._name, owner=self.owner, seconds=self._seconds)
        self.lease = lease if lease.owner == self.owner else None
        return None if self.lease else lease

    def renew(self) -> None:
        """Go on holding it. Raises StoreError if another process has taken it over meanwhile.

        Also if that one has given it back since: it has done the work, or knows better how far it got.
        """
        if not self._store.renew_lease(self._name, owner=self.owner, seconds=self._seconds):
            raise StoreError(
                f"another process took over {self._work}",
                mend="run the same request again: it goes on from what the other one has done",
            )

    def moved(self) -> None:
        """A sign of progress: the work does not hang."""
        self._renewals = 0

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renew it meanwhile, in a thread of its own; give it back in the end."""
        ended = Event()
        beating = Thread(target=self._beat, args=(ended,), name=f"lease of {self._work}", daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()
            if self.lease is not None:
                with suppress(StoreError):  # no database: it runs out
                    self._store.release_lease(self._name, owner=self.owner)

    def pauses(self) -> Iterator[None]:
        """Between two questions to the database, without end."""
        return pauses(self._store, *POLL_SECONDS)

    def _beat(self, ended: Event) -> None:
        while self._renewals < self._most and not ended.wait(self._seconds / 3):
            self._renewals += 1
            # Lost, or no database: the next step of the work meets it, too, and tells.
            with suppress(StoreError):
                self.renew()


def pauses(store: "Store", first: float, most: float) -> Iterator[None]:
    """Wait for ever longer, from the first to the most seconds. Meanwhile the database lends no connection:
    it has but a hundred, and many may wait.
    """
    seconds = first
    while True:
        store.close()
        time.sleep(seconds)
        seconds = min(1.2 * seconds, most)
        yield


def wait_for(hold: Hold) -> None:
    """Take the lease as soon as nobody else holds it."""
    for _ in hold.pauses():
        if hold.attempt() is None:
            return


def holder(lease: Lease) -> str:
    """Who holds it, and since when, in words."""
    host, process, _ = lease.owner.rsplit("/", 2)
    since = datetime.fromtimestamp(lease.since, UTC)
    return f"process {process} on {host}, since {since:%Y-%m-%d %H:%M:%S} UTC"
