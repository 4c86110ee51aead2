"""How often groups of runs are found in made-up scores where there are some, and where there are none; and
how long that takes.

    python -m tests.benchmarks.discovery [--seeds 2000]

`stockpot.statistics.clustering` has its two thresholds from this table. Seeds from 10,000 on are its own; no
test draws from them.
"""

import argparse
import time
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np

from stockpot.statistics.agreement import adjusted_rand
from stockpot.statistics.clustering import least_silhouette, partition
from stockpot.testing.planted_scores import planted_scores

FIRST = 10_000
CLARITIES = (-0.4, -0.3, -0.2, -0.1, 0.0, 0.4)


def with_domains(seeds: int) -> None:
    """Sweeps of 2 to 8 domains by how clear they are to whoever knows the answer: the least silhouette of a
    run by the planted domains, less what is asked of the mean.
    """
    found: dict[float, Counter[str]] = defaultdict(Counter)
    for seed in range(FIRST, FIRST + seeds):
        planted = planted_scores(seed, domains=2 + seed % 7)
        clarity = planted.clarity - least_silhouette(len(planted.domains))
        for low, high in pairwise(CLARITIES):
            if low <= clarity < high:
                made = partition(planted.scores)
                right = adjusted_rand(made.labels, planted.domains) >= 0.95
                found[low]["right" if right else "wrong" if made.chosen else "none"] += 1
    print(f"{'clarity':>14}{'sweeps':>9}{'ARI >= 0.95':>13}{'none found':>12}{'others':>8}")
    for low, high in pairwise(CLARITIES):
        times = found[low]
        told = f"{low:+} to {high:+}"
        print(f"{told:>14}{times.total():>9}{times['right']:>13}{times['none']:>12}{times['wrong']:>8}")


def without(seeds: int) -> None:
    """Sweeps without domains, by the hyperparameters that cost scores and by the directions that runs lean
    in.
    """
    print(f"{'factors':>12}{'leanings':>9}{'sweeps':>9}{'groups found':>14}")
    every, wrong = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for seed in range(FIRST, FIRST + seeds):
        planted = planted_scores(seed, domains=1, examples=(100, 300, 1000)[seed % 3])
        kind = planted.factors, planted.leanings
        every[kind] += 1
        wrong[kind] += partition(planted.scores).chosen is not None
    for (factors, leanings), times in sorted(every.items()):
        print(f"{factors:>12}{leanings:>9}{times:>9}{wrong[factors, leanings]:>14}")


def time_taken(runs: int = 1000, examples: int = 10_000) -> None:
    """Beside the one product of matrices that it cannot do without."""
    draw = np.random.default_rng(0)
    scores = draw.normal(0, 1, (runs, examples))
    scores += 2 * (np.arange(runs)[:, None] % 8 == np.arange(examples) % 8)
    rows = list(map(tuple, scores.tolist()))
    took = []
    for work in (lambda: scores @ scores.T, lambda: partition(rows)):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    print(
        f"{runs:,} runs x {examples:,} examples: {took[1]:.1f} s, {took[1] / took[0]:.1f} x the bare product"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    asked = parser.parse_args().seeds
    with_domains(asked)
    without(asked)
    time_taken()
