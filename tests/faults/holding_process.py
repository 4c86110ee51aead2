"""A process of its own that works on a request and never ends: run by the tests beside this file.

Argument: the request as JSON. Once it holds the job it tells its number, and stands still.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from stockpot.documents import from_document
from stockpot.entities import SoupRequest
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow.jobs import answer

T = TypeVar("T")


def stage(name: str, work: Callable[[], T], /) -> T:
    """Goes no further than to the ranking, as one that takes hours."""
    if name == "rank":
        print(os.getpid(), flush=True)  # noqa: T201 - to the test
        time.sleep(3600)
    return work()


answer(from_document(SoupRequest, json.loads(sys.argv[1])), Workplace(), stage, Silent())
