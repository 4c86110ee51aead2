"""One process at a time registers a soup."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from stockpot.entities import Recipe, RegistrationState
from stockpot.workflow.leases import Hold, holder, wait_for

if TYPE_CHECKING:
    from stockpot.ports import Store, Watcher


class Claim:
    """The registration of one soup, under a lease that one thread of one process holds."""

    def __init__(self, store: "Store", model: str, recipe: Recipe, hold: Hold) -> None:
        self._store = store
        self._model = model
        self._recipe = recipe
        self._hold = hold

    def renew(self) -> None:
        """Go on holding it. Raises StoreError if another process has taken it over meanwhile."""
        self._hold.renew()

    def advance(self, **changes: str | None) -> None:
        """Write ids to the row, and hold it."""
        self.renew()
        row = self._store.begin_registration(self._model, self._recipe)
        self._store.advance_registration(replace(row, **changes), owner=self._hold.owner)  # type: ignore[arg-type]  # ids are strings

    def is_unfinished(self, run_id: str | None) -> bool:
        """Whether a registration with this run was begun with this store, and has not come to its end."""
        row = self._store.registration(self._model, self._recipe.digest)
        if row is None or row.run_id is None:
            return False
        return row.run_id == run_id and row.state is not RegistrationState.REGISTERED


@contextmanager
def claimed(store: "Store", model: str, recipe: Recipe, watch: "Watcher") -> Iterator[Claim]:
    """Hold the claim, waiting for a living process that holds it now."""
    row = store.begin_registration(model, recipe)
    hold = Hold(store, row.lease, f"the registration of {model} ({recipe.digest})")
    if held := hold.attempt():
        watch.say(f"another process is registering this soup of {model}: waiting for {holder(held)}")
        wait_for(hold)
    with hold.kept_alive():
        yield Claim(store, model, recipe, hold)
