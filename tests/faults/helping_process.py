"""A process of its own that takes part in requests: run by the tests beside this file.

Prints each line that it says, and the number of its evaluations. Argument: by how much its clock is wrong.
"""

import sys
import time

from stockpot.calls import help_out
from stockpot.watching import Lines
from stockpot.workflow import leases

now, wrong = time.time, float(sys.argv[1])
time.time = lambda: now() + wrong
leases.LEASE_SECONDS = 2.0  # so that nobody has to wait for a minute for what a killed process held
print(help_out(wait=120, watch=Lines(lambda line: print(line, flush=True))))  # noqa: T201 - to the test
