"""One sweep, one request for it, and the commands that it is asked by."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from mlflow import MlflowClient
from tests.faults.harness.site import Site

from stockpot.entities import digest_of_bytes
from stockpot.testing.sweeps import plant_sweep
from stockpot.testing.tiny import weights

CANDIDATES = 4
TASK = "tests.faults.harness.counting:Counting"
KILLED = -int(signal.SIGKILL)
TERMINATED = 128 + int(signal.SIGTERM)
TOLD = frozenset({3, 4, 5, 6, 7, 8})
"""Exit codes of errors with a mend: of the request, weights, the task, the store, MLflow."""
SECONDS = 150
"""After which a command hangs: a database is waited for two minutes."""


class Broken(AssertionError):
    """A promise was not kept."""


class Case:
    """All of it has the case's name: the registered model, the experiment, the folder."""

    seconds = SECONDS
    told = TOLD
    """How a command may end that was struck."""

    def __init__(self, site: Site, name: str, *, with_helper: bool) -> None:
        self.site = site
        self.name = name
        self.folder = site.disk / name
        self.client = MlflowClient(site.mlflow_direct)
        self.experiment = ""
        self.parent: BaseProcess | None = None
        self.helper: BaseProcess | None = None
        self.codes: list[int] = []
        """Exit codes of the commands that asked, in their order."""
        self._with_helper = with_helper
        self._sweep = ""
        self._salt = self.folder / "salt.txt"

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """The sweep is logged, and all of it taken away in the end."""
        self.folder.mkdir()
        self._salt.write_text(self.name)
        runs = {f"tune-{seed}": weights("dense", seed=seed) for seed in range(CANDIDATES)}
        self._sweep = plant_sweep(self.client, self.name, runs)
        self.experiment = self.client.get_run(self._sweep).info.experiment_id
        try:
            yield
        finally:
            for process in (self.parent, self.helper):
                if process is not None and process.is_alive():
                    process.kill()
                    process.join()
            self.client.delete_experiment(self.experiment)  # so that listings do not grow
            shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self) -> int:
        """Run the command to its end, with a helper beside it where this case has one. Returns its code."""
        if self._with_helper and (self.helper is None or not self.helper.is_alive()):
            self.helper = self.begin("help", "--model", self.name, "--wait", "60", prints_to="helper")
        (self.folder / "out").unlink(missing_ok=True)
        self.parent = self.begin_asking()
        self.codes.append(self.ended(self.parent))
        return self.codes[-1]

    def settle(self) -> None:
        """Until nobody works on the request any more."""
        if self.helper is not None:
            self.helper.terminate()  # it may wait for further requests
            if self.ended(self.helper) not in {0, KILLED, TERMINATED, *TOLD}:
                raise Broken(f"the helper ended with {self.helper.exitcode}")

    def begin_asking(self, *how: str, prints_to: str = ".") -> BaseProcess:
        """The command, begun, with these further options."""
        task = ("--task", TASK, "--task-arg", f"salt={self._salt}")
        what = ("--model", self.name, "--sweep", self._sweep, "--shift", "shifted", "--margin=-100")
        return self.begin("soup", *what, *task, *how, "--json", prints_to=prints_to)

    def begin(self, *arguments: str, prints_to: str = ".") -> BaseProcess:
        """A command in the case's folder."""
        return self.site.begin(self.folder, *arguments, prints_to=prints_to)

    def ended(self, process: BaseProcess) -> int:
        """Its exit code. Raises Broken where it does not end; then it has told where it stands."""
        process.join(self.seconds)
        if process.exitcode is None:
            assert process.pid
            os.kill(process.pid, signal.SIGUSR1)
            process.join(2)
            process.kill()
            process.join()
            raise Broken(f"a command did not end in {self.seconds} s")
        return process.exitcode

    def outcome(self) -> Any:
        """Of the command that ended last."""
        return json.loads((self.folder / "out").read_text())

    def said(self) -> str:
        """All that the commands told on their way."""
        found = []
        for name in ("err", "helper/err", "rival/err"):
            file = self.folder / name
            if file.exists():
                found.append(f"--- {name}\n{file.read_text()[-6000:]}")
        return "\n".join(found)

    def scores(self) -> dict[tuple[str, str], bytes]:
        """What the store has committed of this case, by recipe and protocol."""
        statement = (
            "SELECT e.recipe, e.protocol, e.examples FROM stockpot_evaluations e "
            "JOIN stockpot_protocols p ON p.digest = e.protocol WHERE p.document::text LIKE :salt"
        )
        rows = self.site.rows(statement, salt=f"%{digest_of_bytes(self.name.encode())}%")
        return {(recipe, protocol): bytes(examples) for recipe, protocol, examples in rows}
