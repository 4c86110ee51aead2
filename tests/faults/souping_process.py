"""A process of its own that soups a request: run by the tests beside this file.

Arguments: the request as JSON; a creating call to die after, or "" to live.
"""

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, cast

from stockpot.documents import from_document, to_document
from stockpot.entities import SoupRequest
from stockpot.testing.crashes import Crash, CrashingTracker
from stockpot.watching import Silent
from stockpot.wiring import Workplace
from stockpot.workflow import leases
from stockpot.workflow.walk import in_turn, walk

if TYPE_CHECKING:
    from stockpot.ports import Tracker

request, die_after = sys.argv[1:]
leases.LEASE_SECONDS = 2.0  # so that a successor of a killed process need not wait for a minute
place = Workplace()
place.tracker = cast("Tracker", CrashingTracker(place.tracker, die_after, "after"))
try:
    outcome = walk(from_document(SoupRequest, json.loads(request)), place, in_turn, Silent())
except Crash:
    os.kill(os.getpid(), signal.SIGKILL)  # no clean-up, no claim given back
    raise
sys.stdout.write(json.dumps([to_document(soup) for soup in outcome.soups]))
