"""Rounds of k devices on the published acceptance pattern; one line of JSON.

    python -m tests.benchmarks.speculation [--devices 8]

Ranks 1, 10, 16 and 17 of 71 are accepted. A round is the time of one evaluation, which the clock of the test
of speculation gives to every device at once: counts, the same on any machine.
"""

import argparse
import json

from tests.unit.test_speculation import LockStep, published, ranked

from stockpot.evaluation.speculation.speculating_evaluator import SpeculatingEvaluator
from stockpot.selection import run_selection

CANDIDATES = 72


def measure(devices: int) -> dict[str, int]:
    """One selection."""
    steps = LockStep(devices)
    try:
        evaluator = SpeculatingEvaluator(steps.evaluators, steps.threads)
        run_selection(ranked(CANDIDATES, published), evaluator)
    finally:
        steps.finish()
    plain = CANDIDATES - 1  # one after the other
    return {"rounds": steps.rounds, "plain": plain, "wasted": steps.evaluations - plain}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=8)
    print(json.dumps(measure(parser.parse_args().devices)))


if __name__ == "__main__":
    main()
