"""Scan for finished sweeps, against MLflow's own paging through the same runs: one line of JSON.

python tests/benchmarks/scanning.py [--sweeps 5000] [--size 24] [--rounds 3]

The first scan sees all sweeps for the first time, a later one those that ended since. Both are dry: what is
asked for costs a listing of its own, which its soup needs anyway.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import SourceType
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from sqlalchemy import create_engine, insert

from stockpot.store import SqlStore
from stockpot.tracking import MlflowTracker
from stockpot.tracking.mlflow_runs import PAGE
from stockpot.workflow.scanning.rules import Rule, Rules
from stockpot.workflow.scanning.scan import scan

PARAMS, METRICS = 8, 4
BEGUN, APART = 1_700_000_000_000, 600_000
"""Milliseconds since the epoch, and between two sweeps. A later scan looks an hour back, for slow clocks."""
LATER = 20
"""Sweeps that end after the first scan."""


def plant(uri: str, experiment: str, first: int, count: int, size: int) -> None:
    """Finished sweeps, one in ten minutes, written straight into MLflow's tables."""
    runs, params, metrics, tags = [], [], [], []
    for sweep in range(first, first + count):
        parent = f"{sweep:026x}{0:06x}"
        for place in range(size + 1):
            run_id = f"{sweep:026x}{place:06x}"
            times = {"start_time": BEGUN + sweep * APART, "end_time": BEGUN + sweep * APART + 900}
            runs.append(
                {"run_uuid": run_id, "name": run_id, "experiment_id": int(experiment), "status": "FINISHED"}
                | {"lifecycle_stage": "active", "user_id": "bench", "artifact_uri": f"/artifacts/{run_id}"}
                | {"source_type": SourceType.to_string(SourceType.LOCAL), **times}
            )
            params += [{"run_uuid": run_id, "key": f"p{k}", "value": f"{k}"} for k in range(PARAMS)]
            metrics += [
                {
                    "run_uuid": run_id,
                    "key": f"m{k}",
                    "value": k / 7,
                    "timestamp": 1,
                    "step": 0,
                    "is_nan": False,
                }
                for k in range(METRICS)
            ]
            if place:
                tags.append({"run_uuid": run_id, "key": "mlflow.parentRunId", "value": parent})
    engine = create_engine(uri)
    with engine.begin() as connection:
        for table, rows in ((SqlRun, runs), (SqlParam, params), (SqlLatestMetric, metrics), (SqlTag, tags)):
            connection.execute(insert(table), rows)
    engine.dispose()


def paged(client: MlflowClient, experiment: str) -> int:
    """MLflow's own paging, which keeps nothing."""
    token, seen = None, 0
    while True:
        page = client.search_runs(
            [experiment],
            max_results=PAGE,
            order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
            page_token=token,
        )
        seen, token = seen + len(page), page.token
        if not token:
            return seen


def seconds(work: Callable[[], int], wanted: int) -> float:
    """How long it takes to see so many."""
    begin = time.perf_counter()
    seen = work()
    assert seen == wanted, (seen, wanted)
    return time.perf_counter() - begin


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=5000)
    parser.add_argument("--size", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        client, tracker = MlflowClient(uri), MlflowTracker(uri)
        experiment = client.create_experiment("sweeps")
        plant(uri, experiment, 0, asked.sweeps, asked.size)
        rule = Rule("bench", ("sweeps",), {"model": "m", "task": "t"}, since=0.0)
        dry, none = Rules(Path(folder), (rule,)), Rules(Path(folder), (rule,), budget_per_day=0)
        store = SqlStore(f"sqlite:///{Path(folder) / 'stockpot.db'}")

        def first() -> int:
            return len(scan(dry, tracker, store, lost_after=3600, dry=True).sightings)

        runs = asked.sweeps * (asked.size + 1)
        paging, firsts = [], []
        for _ in range(asked.rounds):
            paging.append(seconds(lambda: paged(client, experiment), runs))
            firsts.append(seconds(first, asked.sweeps))
        kept = seconds(lambda: len(scan(none, tracker, store, lost_after=3600).sightings), asked.sweeps)
        store.keep_scan([replace(row, look_at=None) for row in store.sweeps_due(dry.names)], {})
        plant(uri, experiment, asked.sweeps + 100, LATER, asked.size)
        later = [seconds(first, LATER) for _ in range(asked.rounds)]
        store.close()
    figures = {
        "sweeps": asked.sweeps,
        "runs": runs,
        "mlflow_s": round(statistics.median(paging), 2),
        "first": [round(ours / theirs, 3) for ours, theirs in zip(firsts, paging, strict=True)],
        "kept_s": round(kept, 2),
        "later": [round(ours / theirs, 4) for ours, theirs in zip(later, paging, strict=True)],
        "later_s": round(statistics.median(later), 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
