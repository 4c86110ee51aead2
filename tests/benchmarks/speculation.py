"""Rounds of k processes on the published acceptance pattern; one line of JSON.

    python -m tests.benchmarks.speculation [--processes 8]

Ranks 1, 10, 16 and 17 of 71 are accepted. A round is the time of one evaluation, which the clock of the test
of speculation gives to every process at once: counts, the same on any machine.
"""

import argparse
import json

from tests.unit.test_sharing_rounds import shared_search

from stockpot.workflow.sharing import shared_evaluator

CANDIDATES = 72


def measure(processes: int) -> dict[str, int]:
    """One selection."""
    shared_evaluator.LOOK_SECONDS = 0.0  # a round has no seconds
    clock, _ = shared_search(processes)
    plain = CANDIDATES - 1  # one after the other
    return {"rounds": clock.rounds, "plain": plain, "wasted": clock.evaluations - plain}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    print(json.dumps(measure(parser.parse_args().processes)))


if __name__ == "__main__":
    main()
