"""A ranking and a measuring that k processes share, each with an evaluator that sleeps; one line of JSON.

    python -m tests.benchmarks.sharing [--processes 2] [--seconds 0.5] [--database sqlite]

`seconds`: from each process's first evaluation until all have every score, of all processes together; who
waits is counted. `units`: the evaluations, of which each was done by one process. `passes`: the seconds that
they took themselves; with one process the others are what the store and its leases cost. PostgreSQL's server
is one of our own.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.store.conftest import own_server

from stockpot.entities import (
    Candidate,
    Checkpoint,
    Digest,
    IngestedSource,
    Outcome,
    Recipe,
    Run,
    Score,
    SoupRequest,
    Trial,
    WeightsFormat,
    WeightsSource,
)
from stockpot.ports import Wanted, always
from stockpot.soup import CheckpointCache
from stockpot.store import SqlStore, upgrade
from stockpot.testing.evaluators import TableEvaluator
from stockpot.tracking import MemoryTracker
from stockpot.watching import Silent
from stockpot.workflow.gathering.arrivals import Arrivals, Prospect, Prospects
from stockpot.workflow.gathering.supply import Supply
from stockpot.workflow.selecting.measure import units_of
from stockpot.workflow.selecting.ranking import rank
from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator
from stockpot.workflow.sharing.units import settled

REQUEST = SoupRequest(model="m", task="t", sweep="s")
SPLITS = "test", "shifted"


class Sleeping(TableEvaluator):
    """Each evaluation takes so many seconds, and gives each example right or wrong."""

    def __init__(self, split: str, n: int, seconds: float) -> None:
        super().__init__(self._right, n=n, split=split)
        self.began = self.spent = 0.0
        """When it was first asked, and the seconds that it took."""
        self._seconds = seconds

    def evaluate(
        self, trials: Sequence[Trial], *, then: Sequence[Trial] = (), wanted: Wanted = always
    ) -> list[Outcome]:
        """Sleep, and score."""
        begin = time.time()
        self.began = self.began or begin
        time.sleep(self._seconds)
        found: list[Outcome] = [
            Score(score.examples, gaps=score.examples)
            for score in super().evaluate(trials, then=then, wanted=wanted)
            if isinstance(score, Score)
        ]
        self.spent += time.time() - begin
        return found

    def _right(self, recipe: Recipe) -> list[float]:
        draw = random.Random(recipe.digest)  # noqa: S311 - made-up answers
        return [float(draw.random() < 0.7) for _ in range(self.protocol.n)]


def candidates(count: int) -> list[Candidate]:
    """Whose weights are known, and never looked at."""
    made = []
    for number in range(count):
        run = Run(f"id{number}", f"tune-{number}", "1", "FINISHED", number, {}, {}, {})
        source = WeightsSource(run.run_id, WeightsFormat.SAFETENSORS, "m.safetensors", run.run_id, None, 1)
        digest = Digest(f"sha256:{number:064x}")
        made.append(Candidate(run, source, "", Checkpoint(digest, 1, (), Digest(f"sha256:{0:064x}"))))
    return made


def take_part(url: str, arguments: argparse.Namespace, together: Barrier, told: Connection) -> None:
    """Rank and measure in a process of its own; send when its first evaluation began, its end, its share."""
    found = candidates(arguments.candidates)
    prospects = Prospects(
        REQUEST,
        tuple(Prospect(c.run, c.source) for c in found),
        (),
        {c.run.run_id: (c.run.started, c.run.run_id) for c in found},
    )
    with closing(SqlStore(url)) as store, tempfile.TemporaryDirectory() as folder:
        inner = {
            split: Sleeping(split, arguments.examples, arguments.seconds) for split in ("validation", *SPLITS)
        }
        shared = {split: SharedEvaluator(each, store) for split, each in inner.items()}
        supply = Supply(MemoryTracker(), store, CheckpointCache(Path(folder)))
        arrivals = Arrivals(prospects, supply, lambda _: [], Silent())
        together.wait(300)
        ranking = rank(arrivals, shared["validation"], Silent())
        recipes = [Recipe.mean([c.checkpoint.digest]) for c in ranking.candidates[: arguments.points]]
        scores = list(settled(units_of(recipes, {split: shared[split] for split in SPLITS})))
        ended = time.time()
    assert len(scores) == arguments.points * len(SPLITS)
    began = min((each.began for each in inner.values() if each.began), default=ended)
    started = sum(evaluator.started for evaluator in shared.values())
    told.send((began, ended, sum(each.spent for each in inner.values()), started))


@contextmanager
def database(kind: str) -> Iterator[str]:
    """An empty store of this kind, in which the candidates' weights are known."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/stockpot.db"
        else:
            with own_server() as (url, _):
                upgrade(url)
                yield url


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """One ranking and one measuring."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(arguments.processes)
    with database(arguments.database) as url:
        with closing(SqlStore(url)) as store:
            for c in candidates(arguments.candidates):
                known = IngestedSource(c.source.uri, c.source.size, c.source_sha256, c.checkpoint)
                store.remember_ingested(known)
        pipes = [context.Pipe(duplex=False) for _ in range(arguments.processes)]
        processes = [
            context.Process(target=take_part, args=(url, arguments, together, told), daemon=True)
            for _, told in pipes
        ]
        for process in processes:
            process.start()
        results = [results.recv() for results, _ in pipes]
        for process in processes:
            process.join()
    units = arguments.candidates + arguments.points * len(SPLITS)
    assert sum(share for *_, share in results) == units, results
    end = max(end for _, end, *_ in results)
    seconds = sum(end - begin for begin, *_ in results)
    return {"seconds": seconds, "units": units, "passes": sum(spent for *_, spent, _ in results)}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="that an evaluation takes")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--examples", type=int, default=10_000)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
