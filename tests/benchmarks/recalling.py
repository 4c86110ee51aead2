"""What a search costs anew once a candidate was recalled; one line of JSON, and a table for people.

    python -m tests.benchmarks.recalling [--sweeps 4] [--candidates 16]

Sweeps of really trained small models, those of `early_rejection`. The first request ranks, searches (greedy,
uniform) and measures; each of its candidates is then recalled by itself, and the request is answered anew by
another process that has the first one's store and outputs. All work counts, in full passes over a split: of
the first request, and of the one without the recalled candidate. The least: what has to be scored in full
anew, whatever is rejected for nothing, since a soup that is accepted or reported needs its whole score. Each
answer is compared with that of a search which remembers nothing.
"""

import argparse
import copy
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import torch
from tests.benchmarks.early_rejection import Blobs, State, fine_tunes
from torch import Tensor

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Composition,
    Digest,
    Recipe,
    Run,
    Score,
    Selection,
    SoupRequest,
    Sweep,
    Trial,
    WeightsFormat,
    WeightsSource,
)
from stockpot.evaluation import RememberedOutputs, TorchBench
from stockpot.selection.greedy import Greedy
from stockpot.selection.uniform import Uniform
from stockpot.shelves import shelf_at
from stockpot.store import MemoryStore
from stockpot.testing.checkpoints import MadeCheckpoints
from stockpot.watching import Silent
from stockpot.workflow.selecting.measure import measure, open_splits
from stockpot.workflow.selecting.ranking import Ranking
from stockpot.workflow.selecting.search import search
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

if TYPE_CHECKING:
    from stockpot.ports import MakeMethod

REQUEST = SoupRequest(model="m", task="blobs", sweep="0" * 32)
GOAL = 0.25


class Halves(Blobs):
    """The same task with a report split of its own."""

    def __init__(self, seed: int, n: int, batch_size: int) -> None:
        super().__init__(seed, n, batch_size)
        self._report = self.points(n)

    def examples(self, split: str) -> Sequence[tuple[Tensor, Tensor]]:
        """The held-out points, or the report split's."""
        found = self._held_out if split == REQUEST.select_on else self._report
        return list(zip(*found, strict=True))


@dataclass
class Answered:
    """What became of a request, in full passes over a split."""

    selections: tuple[Selection, ...]
    rank: float
    search: float
    report: float
    order: list[Digest] = field(default_factory=list)
    """The candidates, best first."""

    @property
    def passes(self) -> float:
        """In all."""
        return self.rank + self.search + self.report


def candidate(checkpoint: Digest, number: int) -> Candidate:
    """That a run logged."""
    run = Run(f"run {number}", f"tune-{number}", "1", "FINISHED", number, {}, {}, {})
    source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "m.safetensors", run.run_id, None, 1)
    return Candidate(run, source, "", Checkpoint(checkpoint, 1, (), Digest("sha256:e")))


def answered(
    task: Halves, states: Mapping[Digest, State], without: Digest | None, store: MemoryStore, outputs: Path
) -> Answered:
    """The walk's own steps behind gathering and before publishing, in a process that begins anew."""
    shelf = RememberedOutputs(shelf_at(str(outputs), None))
    bench = TorchBench(
        task,
        identity=("blobs", "1"),
        task_args={},
        checkpoints=MadeCheckpoints(states.__getitem__),
        device=torch.device("cpu"),
        outputs=shelf,
    )
    evaluators = {
        split: SharedEvaluator(evaluator, store, heed=bench.heed)
        for split, evaluator in open_splits(REQUEST, bench).items()
    }
    held_out = evaluators[REQUEST.select_on]
    there = [candidate(one, number) for number, one in enumerate(states) if one != without]
    scores = {}
    for one in there:
        (score,) = held_out.evaluate([Trial(Recipe.mean([one.checkpoint.digest]))])
        assert isinstance(score, Score)
        scores[one.checkpoint.digest] = score.value
    ranked = sorted(there, key=lambda one: (-scores[one.checkpoint.digest], one.run.started))
    ranking = Ranking(Sweep(REQUEST.selector, tuple(there), ()), tuple(ranked), scores)
    rank = bench.passes
    methods: dict[str, MakeMethod] = {"greedy": Greedy, "uniform": Uniform}
    selections = search(REQUEST, ranking, methods, held_out, lambda: False, Silent())
    searched = bench.passes - rank
    measure(REQUEST, ranking, selections, evaluators, bench, lambda: False, Silent())
    report = bench.passes - rank - searched
    return Answered(selections, rank, searched, report, [one.checkpoint.digest for one in ranked])


def measured(seed: int, candidates: int, examples: int, folder: Path) -> list[dict[str, float]]:
    """A row for each candidate, the best first."""
    task = Halves(seed, examples, 32)
    states = fine_tunes(task, seed, candidates)
    store, outputs = MemoryStore(), folder / f"{seed}"
    first = answered(task, states, None, store, outputs)
    greedy = next(one for one in first.selections if one.method == "greedy").recipe.checkpoints
    rows = []
    for place, gone in enumerate(first.order, 1):
        kept = shutil.copytree(outputs, folder / f"{seed} {place}")
        again = answered(task, states, gone, _copy(store), kept)
        plain = answered(task, states, gone, MemoryStore(), folder / f"{seed} {place} plain")
        assert again.rank == 0, "the ranking is remembered"
        assert _found(again) == _found(plain), "what is remembered changes no answer"
        least = len(_full(again) - _full(first)) + again.report
        rows.append(
            {
                "seed": seed,
                "rank": place,
                "ingredient": greedy.index(gone) + 1 if gone in greedy else 0,
                "of": len(greedy),
                "first": first.passes,
                "search": again.search,
                "report": again.report,
                "share": again.passes / first.passes,
                "least": least / first.passes,
            }
        )
    return rows


def _found(one: Answered) -> list[tuple[Composition, float]]:
    return [(selection.recipe, selection.score) for selection in one.selections]


def _full(one: Answered) -> set[Digest]:
    """The soups that a search has to score in full: those that are kept."""
    steps = [step for selection in one.selections for step in selection.steps]
    return {step.recipe for step in steps if step.kept and len(step.tried) > 1}


def _copy(store: MemoryStore) -> MemoryStore:
    """Another one that knows the same. Locks cannot be copied, and need not."""
    locks = [one for one in vars(store).values() if isinstance(one, type(Lock()))]
    return copy.deepcopy(store, {id(lock): lock for lock in locks})


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--examples", type=int, default=4000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print("| seed | rank | in greedy | first | search anew | report | share | least |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(chosen.first_seed, chosen.first_seed + chosen.sweeps):
            found = measured(seed, chosen.candidates, chosen.examples, Path(folder))
            rows += found
            for row in found:
                print(
                    f"| {seed} | {row['rank']} | {row['ingredient'] or '-'} of {row['of']} | "
                    f"{row['first']:.1f} | {row['search']:.2f} | {row['report']:.2f} | "
                    f"{row['share']:.3f} | {row['least']:.3f} |",
                    flush=True,
                )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
