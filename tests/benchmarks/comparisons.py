"""All comparisons of a report: three recipes against the best single, on the report split, five shifts and
the mean of these. Prints the seconds for each kind of scores as JSON.
"""

import argparse
import json
import time
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from stockpot.entities import MEAN_OF_SHIFTS, Score
from stockpot.statistics import compare, compare_mean

RECIPES = 3
SHIFTS = ("a", "b", "c", "d", "e")
ORIGIN = 4
"""Examples of one origin, where they share some."""


def main() -> None:
    """Time each kind on the same scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=26_000)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    origins = tuple(f"origin {place // ORIGIN}" for place in range(chosen.examples))
    took = {}
    for kind in ("right or wrong", "graded"):
        for named, groups in (("", None), (", in groups", origins)):
            scores = _drawn(kind, chosen.examples)
            _compare(scores, groups)  # imports, and the first use of each page of memory
            took[kind + named] = [_seconds(scores, groups) for _ in range(chosen.repeats)]
    print(json.dumps(took))


def _seconds(scores: Any, groups: Sequence[Hashable] | None) -> float:
    begun = time.perf_counter()
    _compare(scores, groups)
    return time.perf_counter() - begun


def _compare(scores: list[dict[str, Score]], groups: Sequence[Hashable] | None) -> None:
    """As a report does."""
    baseline, *others = scores
    for challenger in others:
        pairs = {split: (baseline[split], challenger[split], groups) for split in baseline}
        for split, (before, after, _) in pairs.items():
            compare(split, before, after, groups=groups)
        compare_mean(MEAN_OF_SHIFTS, {split: pairs[split] for split in SHIFTS})


def _drawn(kind: str, n: int) -> list[dict[str, Score]]:
    """By recipe and split, the best single's first."""
    rng = np.random.default_rng(0)
    best = {split: rng.random(n) for split in ("report", *SHIFTS)}
    if kind == "graded":
        moved = [
            {s: np.clip(x + rng.normal(0, 0.05, n), 0, 1) for s, x in best.items()} for _ in range(RECIPES)
        ]
    else:
        best = {split: (x < 0.75).astype(float) for split, x in best.items()}  # right in three of four
        moved = [
            {s: np.where(rng.random(n) < 0.06, 1 - x, x) for s, x in best.items()} for _ in range(RECIPES)
        ]
    return [{split: Score(tuple(x.tolist())) for split, x in scores.items()} for scores in (best, *moved)]


if __name__ == "__main__":
    main()
