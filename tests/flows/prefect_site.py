"""A Prefect server with a pool of process workers, all of them real, in processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from stockpot_flows.deployments import deployments_file

T = TypeVar("T")
SECONDS = 180
"""After which what was waited for is a failure: two cores, on which others work."""
PREFECT = (sys.executable, "-m", "prefect")


def awaited(look: Callable[[], T | None], what: str, seconds: float = SECONDS) -> T:
    """What this finds, as soon as it does."""
    end = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come in {seconds:.0f} s")
        time.sleep(0.2)
    return found


@dataclass
class Site:
    """Where the server is, and what its workers and commands need in their environment."""

    folder: Path
    variables: Mapping[str, str]
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    server: "subprocess.Popen[bytes] | None" = None
    port: int = 0
    """Where the server listens."""

    def run(self, *command: str) -> str:
        """What it prints. Raises CalledProcessError."""
        done = subprocess.run(
            command, env=self._environment(), check=False, text=True, stdout=-1, stderr=subprocess.STDOUT
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, name: str, *command: str, **variables: str) -> "subprocess.Popen[bytes]":
        """A process that ends with the site; what it prints is kept in a file of this name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self._environment() | variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_worker(self, name: str, *, limit: int = 1, **variables: str) -> "subprocess.Popen[bytes]":
        """One that does so many flow runs at a time."""
        command = ("worker", "start", "--pool", "gpu", "--type", "process", "--name", name)
        return self.start(name, *PREFECT, *command, "--limit", str(limit), **variables)

    def start_server(self) -> None:
        """It does not answer yet."""
        where = ("--host", "127.0.0.1", "--port", str(self.port))
        self.server = self.start("server", *PREFECT, "server", "start", *where)

    def await_server(self) -> None:
        """Until it answers."""
        opener = build_opener(ProxyHandler({}))

        def healthy() -> bool | None:
            assert self.server is not None
            assert self.server.poll() is None, (self.folder / "server.log").read_text()
            try:
                with opener.open(f"http://127.0.0.1:{self.port}/api/health", timeout=5):
                    return True
            except (URLError, OSError):
                return None

        awaited(healthy, "Prefect's server")

    def deploy(self, tasks: Path, further: str = "") -> None:
        """The shipped deployments, with this folder as that of tasks, and no schedule that nobody waits for.
        `further`: more of them, as they stand in that file.
        """
        here = deployments_file().read_text()
        for shipped, ours in (
            ("# working_dir: /srv/tasks", f"working_dir: {tasks}"),
            ("active: true", "active: false"),
        ):
            assert shipped in here
            here = here.replace(shipped, ours)
        file = self.folder / "prefect.yaml"
        file.write_text(here + further)
        self.run(*PREFECT, "--no-prompt", "deploy", "--all", "--prefect-file", str(file))

    def close(self) -> None:
        """End all, the server last."""
        for process in reversed(self.processes):
            _end(process)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.variables}


def below(process: int) -> list[int]:
    """What this process has started, and what that has."""
    children: list[int] = []
    with suppress(OSError):
        for told in Path(f"/proc/{process}/task").glob("*/children"):
            children += map(int, told.read_text().split())
    return [*children, *(each for child in children for each in below(child))]


def _end(process: "subprocess.Popen[bytes]") -> None:
    left = below(process.pid)  # a flow run has a session of its own
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                continue
    for child in left:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def free_port() -> int:
    """Of the loopback, where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def prefect_site(
    folder: Path, *, port: int | None = None, through: int | None = None, **further: str
) -> Iterator[Site]:
    """A server with an empty pool `gpu`; what both keep lies in the folder.

    `port`: where the server listens; `through`: that of a proxy before it, which all others go through.
    `further`: variables of all.
    """
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    variables = {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{through or port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_CLI_COLORS": "false",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        **further,
    }
    site = Site(folder, variables, port=port)
    try:
        site.start_server()
        site.await_server()
        site.run(*PREFECT, "work-pool", "create", "gpu", "--type", "process")
        yield site
    finally:
        site.close()
