"""What nobody needs any more goes: out of the store, the cache and the outputs."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stockpot.entities import Pruned
from stockpot.shelves import folder_at
from stockpot.shelves import remove_unused as remove_outputs
from stockpot.soup.checkpoint_cache import files_of
from stockpot.soup.whole_file import remove_leftovers
from stockpot.workflow.gathering.workrooms import remove_abandoned, temporary

if TYPE_CHECKING:
    from stockpot.ports import Store

HOUR = 3600.0
"""By which the clocks of a database and of a disk may differ."""


def prune(
    store: "Store",
    cache: Path,
    outputs: str,
    rooms: Sequence[Path],
    seconds: float,
    *,
    really: bool,
    say: Callable[[str], object],
) -> tuple[Pruned, ...]:
    """Remove what is older than so many seconds and can be done without, or tell alone what would go.

    Leftovers of killed processes go at once, by their lock; they may lie in the cache, among the outputs, in
    the `rooms` and among this machine's temporary folders. Weights and outputs go by their last use: none
    that was used since the oldest of the jobs at work began. What goes of the store, `Store.prune` tells.
    Outputs at an address that does not answer stay, which `say` is told. Raises StoreError.
    """
    working = [record.lease.since for record in store.job_records() if record.lease is not None]
    rows = store.prune(seconds, really=really)
    if not rows:
        say("another process looks a sweep up, and may need anything: nothing of the store goes now")
    before = min([time.time() - seconds, *(since - HOUR for since in working)])
    leftovers = remove_leftovers(cache, really=really)
    for room in (cache, *rooms, temporary()):
        leftovers += remove_abandoned(room, really=really)
    if (folder := folder_at(outputs)) is not None:
        leftovers += remove_leftovers(folder, really=really)
    sizes = {"weights": files_of(cache).remove_unused(before, really=really), "leftovers": leftovers}
    try:
        sizes["outputs"] = remove_outputs(outputs, before, really=really)
    except OSError as error:
        say(f"the outputs at {outputs} stay: {error}")
    return (*rows, *(Pruned(kind, len(found), sum(found)) for kind, found in sizes.items()))
