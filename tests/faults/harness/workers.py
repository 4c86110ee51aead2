"""A site with a Prefect server, a wire to it, and a worker: both are started again after each kill."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen
from threading import Lock, Thread
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from tests.faults.harness.site import Site, fault_site
from tests.faults.harness.wires import Wire
from tests.flows import prefect_site
from tests.flows.prefect_site import SECONDS, awaited, free_port

from stockpot_flows.automations import ours
from stockpot_flows.deployments import HELP, SCAN, SOUP

SILENT_SECONDS = 60
"""After which a run is told to be Crashed; 90 as it is shipped. It gives a sign of life in each 30."""
WAITING_SECONDS = 90
"""After which a run is told to be Crashed that was taken and has not begun; 600 as it is shipped."""
ON_WORKER = "tests.faults.harness.on_worker"


class Workers:
    """The server and its worker, which does two flow runs at a time."""

    def __init__(self, site: Site, prefect: prefect_site.Site) -> None:
        self.site = site
        self.flows: Mapping[str, str] = {}
        """Their names by their ids."""
        self._prefect = prefect
        self._api = f"http://127.0.0.1:{prefect.port}/api"
        self._jobs: Mapping[str, Any] = {}
        self._worker: Popen[bytes] | None = None
        self._number = 0
        self._closing = False
        self._lock = Lock()
        self._keeper = Thread(target=self._keep_worker)

    def open(self) -> None:
        """Deploy what is shipped, and start a worker."""
        self._prefect.deploy(self.site.folder)
        with self.client() as client:
            for automation in ours(SILENT_SECONDS, WAITING_SECONDS):
                client.create_automation(automation)
            self._jobs = {
                name: client.read_deployment_by_name(name).job_variables for name in (SOUP, HELP, SCAN)
            }
        self.flows = {flow["id"]: flow["name"] for flow in self.ask("flows/filter")}
        self._keeper.start()
        self.await_worker()

    def close(self) -> None:
        """No worker is started any more, and what workers started ends."""
        with self._lock:
            self._closing = True
            self.kill_worker()
        if self._keeper.ident is not None:
            self._keeper.join()
        for number in self._processes(f"PREFECT_API_URL={self._prefect.variables['PREFECT_API_URL']}\0"):
            with suppress(ProcessLookupError):
                if os.getpgid(number) != self._server.pid:
                    os.kill(number, signal.SIGKILL)

    def client(self) -> SyncPrefectClient:
        """Past the wire."""
        return SyncPrefectClient(self._api)

    def ask(self, path: str, **question: Any) -> Any:
        """Of Prefect's API, past the wire."""
        return self._answer("POST", path, question)

    def run(self, number: str) -> Any:
        """A flow run, as Prefect has it."""
        return self._answer("GET", f"flow_runs/{number}")

    def _answer(self, method: str, path: str, question: Mapping[str, Any] | None = None) -> Any:
        """Also where another strike has just killed the server: it is being started again."""

        def answer() -> httpx.Response | None:
            with suppress(httpx.TransportError):
                found = httpx.request(
                    method, f"{self._api}/{path}", json=question, trust_env=False, timeout=SECONDS
                )
                return None if found.is_server_error else found
            return None

        return awaited(answer, "Prefect's answer").raise_for_status().json()

    def serve(self, folder: Path) -> None:
        """From now on, flow runs lie in this case's folder, and soups ask for a helper."""
        for name in ("home", "tmp", "cwd"):
            (folder / name).mkdir(exist_ok=True)
        here = {"STOCKPOT_HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        here["TORCHINDUCTOR_CACHE_DIR"] = str(self.site.folder / "torch")  # else below TMPDIR
        with self.client() as client:
            for name, job in self._jobs.items():
                found = client.read_deployment_by_name(name)
                changes: dict[str, Any] = {
                    "job_variables": {
                        **job,
                        "env": {**job["env"], **here},
                        "working_dir": str(folder / "cwd"),
                    }
                }
                if name != SCAN:
                    changes["entrypoint"] = f"{ON_WORKER}.{name.partition('/')[0].replace('-', '_')}"
                if name == SOUP:
                    changes["parameters"] = {"helpers": 1}
                url = f"{self._api}/deployments/{found.id}"
                httpx.patch(url, json=changes, trust_env=False, timeout=SECONDS).raise_for_status()

    def start(self, deployment: str) -> UUID:
        """A run of it, begun by nobody yet."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment).id
            return client.create_flow_run_from_deployment(found).id

    def kill_server(self) -> None:
        """With kill -9, and start it again; it does not answer yet."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        self._prefect.start_server()

    def kill_worker(self) -> None:
        """With kill -9, it alone: another one begins."""
        if self._worker is not None:
            _kill(self._worker.pid)

    def kill_run(self, number: str) -> bool:
        """With kill -9, the processes of this flow run. Returns whether there were any."""
        found = self.processes_of(number)
        for each in found:
            _kill(each)
        return bool(found)

    def processes_of(self, number: str) -> list[int]:
        """Of this flow run."""
        return self._processes(f"PREFECT__FLOW_RUN_ID={number}\0")

    def await_server(self) -> None:
        """Until it answers."""
        self._prefect.await_server()

    def await_worker(self) -> None:
        """Until the server has heard of the newest worker."""

        def there() -> bool | None:
            known = self.ask("work_pools/gpu/workers/filter")
            wanted = f"worker-{self._number}"
            return True if any((w["name"], w["status"]) == (wanted, "ONLINE") for w in known) else None

        awaited(there, "a worker")

    def log(self) -> str:
        """What the workers and their flow runs have printed last."""
        files = sorted(self._prefect.folder.glob("worker-*.log"), key=lambda file: file.stat().st_mtime)
        return "".join(file.read_text() for file in files[-2:])[-8000:]

    @property
    def _server(self) -> "Popen[bytes]":
        assert self._prefect.server is not None
        return self._prefect.server

    def _keep_worker(self) -> None:
        """As whatever keeps services: one that ended is followed by another."""
        while True:
            with self._lock:
                if self._closing:
                    return
                # In no folder of ours: what a killed worker leaves there is Prefect's.
                self._worker = self._prefect.start_worker(
                    f"worker-{self._number + 1}", limit=2, TMPDIR=str(self.site.folder)
                )
                self._number += 1
            self._worker.wait()

    @staticmethod
    def _processes(holding: str) -> list[int]:
        """Those whose environment holds this, but ours."""
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and holding.encode() in (folder / "environ").read_bytes() + b"\0":
                    found.append(int(folder.name))
        return [number for number in found if number != os.getpid()]


def _kill(number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)


@contextmanager
def workers_site(folder: Path) -> Iterator[Workers]:
    """All of it, started; its files lie in the folder."""
    with fault_site(folder) as site:
        port = free_port()
        wire = Wire("prefect", port)
        site.wires["prefect"] = wire
        variables = {**site.variables, "PREFECT_SERVER_DATABASE_CONNECTION_URL": site.prefect_store}
        where = folder / "prefect"
        with prefect_site.prefect_site(where, port=port, through=wire.port, **variables) as prefect:
            site.variables |= prefect.variables
            workers = Workers(site, prefect)
            try:
                workers.open()
                yield workers
            finally:
                workers.close()
