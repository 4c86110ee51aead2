"""A scheduler that asks the same question many times at once, from many processes: it is answered once."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.store.conftest import KINDS, own_server

from stockpot import SoupOutcome, SoupRequest, soup
from stockpot.store import upgrade
from stockpot.store.schema import connected
from stockpot.store.tables import EvaluationRow, JobRow, LeaseRow, RegistrationRow, Row
from stockpot.watching import Silent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROCESSES, REQUESTS = 8, 100
LOADED = [
    *("mlflow.pytorch", "torch._dynamo"),
    *("stockpot.calls", "stockpot.figure", "stockpot.store", "stockpot.testing.tiny", "stockpot.tracking"),
]
"""By a scheduler, once, before its processes begin: to import them eight times would take a minute."""
TASK = """
import os
from pathlib import Path
from stockpot.testing.tiny import TinyTask

class Counted(TinyTask):
    '''Keeps a tally of its forward passes, each of one batch.'''

    def __init__(self, data):
        super().__init__(kind="dense", n=Path(data).read_text())

    def predict(self, model, batch):
        with open(os.environ["TALLY"], "a") as tally:
            tally.write(".")
        return super().predict(model, batch)
"""


@pytest.fixture(params=KINDS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two stores of the same kind, with nothing in them."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/alone.db", f"sqlite:///{tmp_path}/shared.db"
        return
    with own_server() as (alone, _), own_server() as (shared, _):
        upgrade(alone)
        upgrade(shared)
        yield alone, shared


@pytest.fixture
def request_(tiny_sweep: SoupRequest, tmp_path: Path) -> SoupRequest:
    (tmp_path / "counted_task.py").write_text(TASK)
    (tmp_path / "n.txt").write_text("80")
    return replace(tiny_sweep, task="counted_task:Counted", task_args={"data": str(tmp_path / "n.txt")})


def ask(
    request: SoupRequest, times: int, surroundings: dict[str, str], together: Barrier, told: Connection
) -> None:
    """Ask so many times at once, in a process of its own; send the outcomes."""
    os.environ.update(surroundings)
    os.chdir(Path(request.task_args["data"]).parent)
    with ThreadPoolExecutor(times) as threads:
        together.wait(120)
        told.send(list(threads.map(lambda _: soup(request, flow=False, watch=Silent()), range(times))))


def asked(request: SoupRequest, store: str, shares: list[int]) -> tuple[list[SoupOutcome], int]:
    """What each request got, each share of them in a process; and the number of all their forward passes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    tally = Path(request.task_args["data"]).with_name(f"passes of {request.model}")
    surroundings = {**os.environ, "STOCKPOT_STORE_URL": store, "TALLY": str(tally)}
    together = context.Barrier(len(shares))
    pipes = [context.Pipe(duplex=False) for _ in shares]
    processes = [
        context.Process(target=ask, args=(request, share, surroundings, together, told), daemon=True)
        for share, (_, told) in zip(shares, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    for _, told in pipes:
        told.close()  # so that the end of a process that tells nothing is noticed
    outcomes = [outcome for results, _ in pipes for outcome in results.recv()]
    for process in processes:
        process.join()
    return outcomes, len(tally.read_text())


def counted(store: str, kind: type[Row]) -> int:
    with connected(store) as connection:
        return connection.execute(select(func.count()).select_from(kind)).scalar_one()


def test_a_hundred_requests_at_once_from_eight_processes_are_one_job(
    request_: SoupRequest, mlflow_uri: str, stores: tuple[str, str]
) -> None:
    from mlflow import MlflowClient

    alone, shared = stores
    (single,), passes = asked(replace(request_, model="alone"), alone, [1])
    outcomes, all_passes = asked(
        request_, shared, [len(range(process, REQUESTS, PROCESSES)) for process in range(PROCESSES)]
    )
    assert len(outcomes) == REQUESTS
    assert sum(outcome.evaluations for outcome in outcomes) == single.evaluations
    assert all_passes == passes
    for kind in (EvaluationRow, RegistrationRow):
        assert counted(shared, kind) == counted(alone, kind)
    assert counted(shared, JobRow) == 1
    assert counted(shared, LeaseRow) == 0, "nobody holds anything in the end"
    versions = MlflowClient(mlflow_uri).search_model_versions("name='tiny'")
    assert len(versions) == len(single.soups) == len({v.tags["stockpot.recipe"] for v in versions})
    assert len({tuple(soup.uri for soup in outcome.soups) for outcome in outcomes}) == 1
    assert sum(not soup.adopted for outcome in outcomes for soup in outcome.soups) == len(versions)
