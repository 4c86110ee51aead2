"""Who is told of a call's progress."""

from stockpot.errors import BadRequest
from stockpot.logs import LOG
from stockpot.ports import Watcher
from stockpot.watching import Lines


def log_of(watch: Watcher | None) -> Watcher:
    """This one, or the log where there is none. Raises BadRequest for what cannot be told of progress."""
    if watch is None:
        return Lines(LOG.info)
    if not isinstance(watch, Watcher):
        raise BadRequest(
            f"watch is told of the progress, and a {type(watch).__name__} cannot be",
            mend="give it the methods of stockpot.Watcher; stockpot.watching.Lines(print) has them",
        )
    return watch
