"""Whose fault it is that a run's artifacts cannot be read: that run's, or the server's and the machine's."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import SpecialFileError
from typing import TYPE_CHECKING

from stockpot.errors import BadCheckpoint, NotArrived, StockpotError
from stockpot.tracking.mlflow_calls import TRACKING, asking, is_web, probing, redacted, status_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

MEND = "log the run's weights again as one regular file, or leave the run out with --filter"
ELSEWHERE = "leave the experiment's runs out with --filter"
NOT_THEIRS = {
    "Could not find a registered artifact repository": "install the MLflow plugin that reads this kind of "
    f"address, or {ELSEWHERE}",
    "When an mlflow-artifacts URI was supplied": f"set {TRACKING} to the server that these runs were logged "
    f"to, or {ELSEWHERE}",
}
"""What MLflow says of an experiment's artifact location that is none here, and what mends it."""
OF_FILES = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
        *(errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.ENODEV),
    }
)
"""What an operating system says of one file: not of the machine, as that its disk is full."""
NUMBERED = re.compile(r"\[Errno (\d+)\]")
# All that MLflow keeps of the failures of a download is their text.
ABSENT = re.compile(r"No such artifact|is a named pipe|\b(?:400|404|410) Client Error\b")


@contextmanager
def reading_one_run(client: "MlflowClient", doing: str) -> Iterator[None]:
    """Read the artifacts of one run. `doing` opens the message of an error.

    Raises BadCheckpoint for what is wrong with this run alone or with where its experiment keeps artifacts,
    and what `asking` raises for the rest.
    """
    with asking(doing, invalid=BadCheckpoint, missing=BadCheckpoint, mend=MEND):
        try:
            yield
        except StockpotError:
            raise
        except Exception as error:
            if _is_of_files(error):
                raise BadCheckpoint(f"{doing}: {redacted(str(error))}", mend=MEND) from None
            mend = next((mend for told, mend in NOT_THEIRS.items() if told in str(error)), "")
            if mend or _is_of_the_servers_files(error, client):
                raise NotArrived(f"{doing}: {redacted(str(error))}", mend=mend or MEND) from None
            if status_of(error) == 500:
                with asking(doing, mend=_how_to_reach(error)):
                    raise
            raise


def _how_to_reach(error: Exception) -> str:
    """What this machine lacks to read an artifact store."""
    if isinstance(error, ImportError):
        return f"install on this machine the client package that the artifact store needs: {error.name}"
    return (
        "check what this machine needs to reach the artifact store: its client package, its credentials, the "
        f"network; or {ELSEWHERE}"
    )


def _is_of_files(error: Exception) -> bool:
    numbers = {int(number) for number in NUMBERED.findall(str(error))}
    if numbers:
        return numbers <= OF_FILES
    return isinstance(error, SpecialFileError | UnicodeError) or ABSENT.search(str(error)) is not None


def _is_of_the_servers_files(error: Exception, client: "MlflowClient") -> bool:
    """Whether the server fails at this question and answers another one: it met what it cannot read."""
    if status_of(error) != 500 or "500 " not in str(error) or not is_web(client.tracking_uri):
        return False
    with probing(client.tracking_uri):
        client.search_experiments(max_results=1)
    return True
