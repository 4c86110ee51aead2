"""One process at a time registers a soup; a dead one's claim is taken over."""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from stockpot.entities import Recipe, Registration, RegistrationState
from stockpot.errors import StoreError

if TYPE_CHECKING:
    from stockpot.ports import Progress, Store

LEASE_SECONDS = 600.0
"""After which a claim is given to others: renewed three times in each, however long an upload takes."""
MOST_RENEWALS = 432
"""Of one claim: a day's. Whoever takes longer hangs, and others need not wait for it for ever."""
POLL_SECONDS = 0.5
"""Databases announce nothing: a waiting process asks again this often."""
_living: set[str] = set()
"""Tokens of this process's claims that are not given back."""


class Claim:
    """A claim on the registration of one soup, of one thread of one process."""

    def __init__(self, store: "Store", model: str, recipe: Recipe, lease: float = LEASE_SECONDS) -> None:
        self._store = store
        self._model = model
        self._recipe = recipe
        self._lease = lease
        self._token = uuid.uuid4().hex
        self._owner = f"{socket.gethostname()}/{_process_space()}/{os.getpid()}/{self._token}"
        _living.add(self._token)

    def attempt(self) -> Registration | None:
        """The row, if the claim is ours now."""
        before = self._store.registration(self._model, self._recipe.digest)
        holder = before.owner if before else None
        now = time.time()
        row = self._store.claim_registration(
            self._model,
            self._recipe,
            owner=self._owner,
            now=now,
            until=now + self._lease,
            dead=holder if holder and _is_dead(holder) else None,
        )
        return row if row.owner == self._owner else None

    def renew(self) -> None:
        """Go on holding it. Raises StoreError if another process has taken it over meanwhile.

        Also if that one has given it back since: it has registered the soup, or knows better how far it got.
        """
        row = self._store.registration(self._model, self._recipe.digest)
        if row is None or row.owner != self._owner or self.attempt() is None:
            raise StoreError(
                f"another process took over the registration of {self._model} ({self._recipe.digest})",
                mend="run the same request again: it adopts what the other one registered",
            )

    def advance(self, **changes: str | None) -> None:
        """Write ids to the row, and hold it."""
        self.renew()
        row = self._store.registration(self._model, self._recipe.digest)
        if row is not None:
            self._store.advance_registration(replace(row, **changes))  # type: ignore[arg-type]  # ids are strings

    def is_unfinished(self, run_id: str | None) -> bool:
        """Whether a registration with this run was begun with this store, and has not come to its end."""
        row = self._store.registration(self._model, self._recipe.digest)
        if row is None or row.run_id is None:
            return False
        return row.run_id == run_id and row.state is not RegistrationState.REGISTERED

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renew it meanwhile, in a thread of its own."""
        ended = Event()
        beating = Thread(target=self._beat, args=(ended,), name=f"claims {self._model}", daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()

    def _beat(self, ended: Event) -> None:
        for _ in range(MOST_RENEWALS):
            if ended.wait(self._lease / 3):
                return
            # Lost, or no database: the next step of the work meets it, too, and tells.
            with suppress(StoreError):
                self.renew()

    def release(self) -> None:
        """Let others have it."""
        _living.discard(self._token)
        self._store.release_registration(self._model, self._recipe.digest, owner=self._owner)


@contextmanager
def claimed(store: "Store", model: str, recipe: Recipe, progress: "Progress") -> Iterator[Claim]:
    """Hold the claim, waiting for a living process that holds it now."""
    claim = Claim(store, model, recipe)
    try:
        if claim.attempt() is None:
            progress.say(f"another process is registering this soup of {model}: waiting for it")
            while claim.attempt() is None:
                time.sleep(POLL_SECONDS)
        with claim.kept_alive():
            yield claim
    finally:
        claim.release()


def _is_dead(owner: str) -> bool:
    """Whether the owner was a process that this one would see if it still lived.

    In doubt it lives: another machine's, another container's, then waits for the end of its lease.
    """
    _, space, pid, token = owner.split("/")
    if space != _process_space():
        return False
    if int(pid) == os.getpid():
        return token not in _living  # an earlier process had our number
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@cache
def _process_space() -> str:
    """Names what process numbers mean here: this boot of this machine, and the container if any."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux: one boot, one space
        return f"{uuid.getnode():x}"
