"""List a long sweep, against MLflow's own paging: one line of JSON, ratios from one process, in turns.

python tests/benchmarks/listing.py [--runs 10000] [--rounds 5]
"""

import argparse
import json
import statistics
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import SourceType
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from sqlalchemy import create_engine, insert

from stockpot.entities import SoupRequest
from stockpot.tracking import MlflowTracker
from stockpot.tracking.mlflow_runs import PAGE
from stockpot.workflow.gathering.shortlist import Shortlist

PARAMS, METRICS = 20, 10
TOP = 50


def plant(uri: str, count: int) -> tuple[str, str]:
    """A parent and so many finished children, written straight into MLflow's tables."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("sweep")
    parent = client.create_run(experiment, run_name="parent").info.run_id
    ids = [f"{number:032x}" for number in range(count)]
    whens = {"start_time": 1_700_000_000_000, "end_time": 1_700_000_000_001}
    common = {
        "experiment_id": int(experiment),
        "status": "FINISHED",
        "lifecycle_stage": "active",
        "user_id": "bench",
        **whens,
    }
    runs = [
        {**common, "run_uuid": i, "name": i, "source_type": SourceType.to_string(SourceType.LOCAL)}
        | {"artifact_uri": f"/artifacts/{i}/artifacts", "start_time": whens["start_time"] + place // 3}
        for place, i in enumerate(ids)
    ]
    params = [
        {"run_uuid": i, "key": f"param.{k}", "value": f"{k}.{i[-6:]}"} for i in ids for k in range(PARAMS)
    ]
    metrics = [
        {"run_uuid": i, "key": f"metric.{k}", "value": (int(i, 16) * 7919 + k) % 10_007 / 10_007}
        | {"timestamp": 1, "step": 0, "is_nan": False}
        for i in ids
        for k in range(METRICS)
    ]
    tags = [{"run_uuid": i, "key": "mlflow.parentRunId", "value": parent} for i in ids]
    engine = create_engine(uri)
    with engine.begin() as connection:
        for table, rows in ((SqlRun, runs), (SqlParam, params), (SqlLatestMetric, metrics), (SqlTag, tags)):
            connection.execute(insert(table), rows)
    engine.dispose()
    return experiment, parent


def bare(client: MlflowClient, experiment: str, parent: str) -> int:
    """MLflow's own paging, which keeps nothing."""
    token, seen = None, 0
    while True:
        page = client.search_runs(
            [experiment],
            f"tags.`mlflow.parentRunId` = '{parent}'",
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        seen, token = seen + len(page), page.token
        if not token:
            return seen


def listed(tracker: MlflowTracker, request: SoupRequest) -> int:
    """Our listing, which keeps nothing either."""
    return 1 + deque(enumerate(tracker.runs(request.selector)), maxlen=1)[0][0]


def shortlisted(tracker: MlflowTracker, request: SoupRequest) -> int:
    """Our listing, and the choice among the runs."""
    shortlist = Shortlist(request)
    for run in tracker.runs(request.selector):
        shortlist.add(run)
    return len(shortlist.chosen()) + len(shortlist.exclusions)


def peak_mib(work: Callable[[], int]) -> float:
    """The most memory that Python held for it at once."""
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        experiment, parent = plant(uri, asked.runs)
        client, tracker = MlflowClient(uri), MlflowTracker(uri)
        every = SoupRequest(model="m", task="t", sweep=parent)
        best = SoupRequest(model="m", task="t", sweep=parent, top=TOP, by="metric.0")
        works: dict[str, Callable[[], int]] = {
            "mlflow": partial(bare, client, experiment, parent),
            "nothing kept": partial(listed, tracker, every),
            "all kept": partial(shortlisted, tracker, every),
            f"top {TOP}": partial(shortlisted, tracker, best),
        }
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(asked.rounds):
            for name, work in works.items():
                begin = time.perf_counter()
                assert work() == asked.runs
                seconds[name].append(time.perf_counter() - begin)
        peaks = {name: round(peak_mib(work), 1) for name, work in works.items()}
    ratios = {
        name: [round(ours / theirs, 3) for ours, theirs in zip(times, seconds["mlflow"], strict=True)]
        for name, times in seconds.items()
        if name != "mlflow"
    }
    figures = {
        "runs": asked.runs,
        "page": PAGE,
        "mlflow_s": round(statistics.median(seconds["mlflow"]), 2),
        "ratios": ratios,
        "peak_mib": peaks,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
