"""PostgreSQL, an MLflow server over it, a wire to each, a small disk; commands in processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from tests.faults.harness.command import run_command
from tests.faults.harness.wires import Wire
from tests.flows.prefect_site import awaited, free_port
from tests.store.conftest import own_server

from stockpot.store import upgrade

LOADED = ["tests.faults.harness.warm"]
DATABASES = ("stockpot", "mlflow", "prefect")
DISK = 32
"""MiB, of which a trial needs less than one."""


class Site:
    """What the trials of one run share."""

    def __init__(self, folder: Path, database: str, control: Callable[..., None], port: int) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        self.has_disk = _mounted(self.disk)
        self._control = control
        self._socket = Path(str(make_url(database).query["host"]))
        self.wires = {"store": Wire("store", port), "mlflow": Wire("mlflow", free_port())}
        direct = make_url("postgresql://postgres@127.0.0.1").set(port=port)
        self._store_direct = direct.set(database="stockpot").render_as_string(hide_password=False)
        self._mlflow_store = direct.set(database="mlflow").render_as_string(hide_password=False)
        for_prefect = direct.set(database="prefect", drivername="postgresql+asyncpg")
        self.prefect_store = for_prefect.render_as_string(hide_password=False)
        self.mlflow_direct = f"http://127.0.0.1:{self.wires['mlflow'].server}"
        through = direct.set(database="stockpot", port=self.wires["store"].port)
        address = f"http://127.0.0.1:{self.wires['mlflow'].port}"
        self.variables = {
            "STOCKPOT_STORE_URL": through.render_as_string(hide_password=False),
            "STOCKPOT_DEVICE": "cpu",
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_REGISTRY_URI": address,
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
        }
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(LOADED)
        self._server: subprocess.Popen[bytes] | None = None
        self.engine = create_engine(self._store_direct, pool_pre_ping=True)

    def open(self) -> None:
        """Make the databases, and start MLflow's server."""
        server = create_engine(self.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            for name in DATABASES:
                connection.execute(text(f"CREATE DATABASE {name}"))
        server.dispose()
        self.start_mlflow()
        upgrade(self._store_direct)
        self.await_mlflow()

    def close(self) -> None:
        """End all."""
        self.kill_mlflow()
        for wire in self.wires.values():
            wire.close()
        self.engine.dispose()
        if self.has_disk:
            subprocess.run(["umount", "--lazy", self.disk], check=True)

    def begin(self, folder: Path, *arguments: str, prints_to: str = ".") -> BaseProcess:
        """A command of ours in a process of its own; what it prints lies in files below the folder."""
        process = self._context.Process(
            target=run_command, args=(folder, folder / prints_to, arguments, self.variables)
        )
        process.start()
        return process

    def start_mlflow(self) -> None:
        """Its server, which is not up yet."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers=1"]
        stores = [f"--backend-store-uri={self._mlflow_store}", f"--artifacts-destination={self.folder}/a"]
        with (self.folder / "mlflow.log").open("ab") as log:
            self._server = subprocess.Popen(
                [*command, *stores, "--port", str(self.wires["mlflow"].server)],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def await_mlflow(self) -> None:
        """Until its server answers."""

        def healthy() -> bool | None:
            assert self._server is not None
            assert self._server.poll() is None, (self.folder / "mlflow.log").read_text()[-4000:]
            try:
                return True if requests.get(f"{self.mlflow_direct}/health", timeout=5).ok else None
            except requests.RequestException:
                return None

        awaited(healthy, "MLflow's server")

    def kill_mlflow(self) -> None:
        """With kill -9, all its processes at once."""
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()

    def kill_postgres(self) -> None:
        """With kill -9: the process that all its others are children of."""
        number = int((self._socket / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(number, signal.SIGKILL)

        def gone() -> bool | None:
            return None if Path(f"/proc/{number}/exe").exists() else True

        awaited(gone, "the end of PostgreSQL")

    def stop_postgres(self) -> None:
        """As `pg_ctl stop -m immediate` does, as in a crash."""
        self._control("stop")

    def start_postgres(self) -> None:
        """Again, as soon as the last of its children is gone; what it recovers takes a moment."""

        def started() -> bool | None:
            try:
                self._control("start")
            except subprocess.CalledProcessError:
                return None
            return True

        awaited(started, "PostgreSQL")

        def answers() -> bool | None:
            try:
                with self.engine.connect() as connection:
                    return True if connection.execute(text("SELECT 1")).scalar_one() else None
            except SQLAlchemyError:
                return None

        awaited(answers, "PostgreSQL's answer")

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Of the store, past the wire."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement), values)]

    def fill_disk(self) -> None:
        """To the last byte."""
        with suppress(OSError), (self.disk / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass

    def await_all(self) -> None:
        """Until whatever was killed answers again. PostgreSQL is awaited by whoever starts it."""
        self.await_mlflow()

    def empty_disk(self) -> None:
        """So far as it was filled."""
        (self.disk / "ballast").unlink(missing_ok=True)


@contextmanager
def fault_site(folder: Path) -> Iterator[Site]:
    """All of it, started; its files lie in the folder."""
    port = free_port()
    with own_server(port) as (database, control):
        site = Site(folder, database, control, port)
        try:
            site.open()
            yield site
        finally:
            site.close()
            shutil.rmtree(folder, ignore_errors=True)


def _mounted(disk: Path) -> bool:
    """A small file system of its own, where this user may make one."""
    disk.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(disk)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
