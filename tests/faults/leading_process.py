"""A process of its own that soups a request, and tells when others can help, and how much it evaluated.

Run by the tests beside this file. Argument: the request as JSON.
"""

import json
import sys
from collections.abc import Callable
from typing import TypeVar

from stockpot.documents import from_document
from stockpot.entities import SoupRequest
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow import leases
from stockpot.workflow.jobs import answer

T = TypeVar("T")
leases.LEASE_SECONDS = 2.0


def stage(name: str, work: Callable[[], T], /) -> T:
    """Tells that the splits are open."""
    if name == "rank":
        print("leads", flush=True)  # noqa: T201 - to the test
    return work()


with Workplace() as place:
    outcome = answer(from_document(SoupRequest, json.loads(sys.argv[1])), place, stage, Silent())
print(outcome.evaluations)  # noqa: T201 - to the test
