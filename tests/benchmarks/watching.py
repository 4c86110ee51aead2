"""Look at the aliases of many models, against the bare MLflow calls that it needs: one line of JSON.

python -m tests.benchmarks.watching [--models 100] [--versions 10] [--rounds 5]

A quiet look needs one search. For an alias that moved it needs to know whether the version that it left is
there, and who made the one that it points at; and it writes its anchor.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from stockpot.ports import Store, Tracker, Watcher
from stockpot.store import SqlStore
from stockpot.tracking import MlflowTracker
from stockpot.watching import Silent
from stockpot.workflow.promotion.watching import look


@dataclass
class Place:
    """What a look needs."""

    tracker: Tracker
    store: Store
    watch: Watcher


def seconds(work: Callable[[], int], wanted: int) -> float:
    """How long it takes to see so many."""
    begin = time.perf_counter()
    seen = work()
    assert seen == wanted, (seen, wanted)
    return time.perf_counter() - begin


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--versions", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    names = [f"model {number:03}" for number in range(asked.models)]
    some = names[:: max(asked.models // 10, 1)]
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        client = MlflowClient(uri)
        for name in names:
            client.create_registered_model(name)
            for _ in range(asked.versions):
                client.create_model_version(name, source=f"file://{folder}/nothing")
            client.set_registered_model_alias(name, "champion", "1")
        store = SqlStore(f"sqlite:///{Path(folder) / 'stockpot.db'}")
        place = Place(MlflowTracker(uri), store, Silent())

        def search() -> int:
            return len(client.search_registered_models(max_results=1000))

        def search_and_ask() -> int:
            found = search()
            for name in some:
                for version in ("1", "2"):
                    client.get_model_version(name, version)
                client.set_registered_model_tag(name, "bench", f"{time.time()}")
            return found

        def watch() -> int:
            return look(place, models=names).models

        look(place, models=names)  # the first one makes the trails
        quiet, moved = [], []
        for number in range(asked.rounds):
            quiet.append(seconds(watch, asked.models) / seconds(search, asked.models))
            for name in some:
                client.set_registered_model_alias(name, "champion", str(2 - number % 2))
            ours = seconds(watch, asked.models)
            moved.append(ours / seconds(search_and_ask, asked.models))
        entries = sum(watch.number for watch in store.watches())
        assert entries == asked.models + asked.rounds * len(some), entries
        store.close()
    figures = {"quiet": quiet, "moved": moved, "some": len(some)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
