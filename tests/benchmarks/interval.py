"""A paired interval of half points, counted and drawn: prints both times as JSON."""

import argparse
import json
import time

import numpy as np
from scipy import stats

from stockpot.statistics.intervals import RESAMPLES, Origins, resampled


def main() -> None:
    """Time both ways on the same differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=26_000)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    differences = rng.choice([-0.5, 0.0, 0.5], chosen.examples, p=[0.1, 0.8, 0.1])
    counted, drawn = [], []
    for _ in range(chosen.repeats):
        begun = time.perf_counter()
        resampled(Origins(differences[None], np.ones((1, chosen.examples))), 0.95)
        counted.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        batch = max(1, 2_000_000 // chosen.examples)
        stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=RESAMPLES, batch=batch)
        drawn.append(time.perf_counter() - begun)
    print(json.dumps({"counted": counted, "drawn": drawn}))


if __name__ == "__main__":
    main()
