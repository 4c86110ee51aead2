"""A request that is handed to workers, and what strikes Prefect's side of it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from typing import Any

from tests.faults.harness.case import TASK, TOLD, Broken, Case
from tests.faults.harness.prefect_strikes import HELP, NEEDS_PROCESS, SOUP, drawn
from tests.faults.harness.strikes import Strike, Striker
from tests.faults.harness.trial import Told, Undisturbed, counted, tried
from tests.faults.harness.workers import Workers
from tests.flows.prefect_site import awaited

from stockpot_flows.deployments import SCAN
from stockpot_flows.submitting import as_raised

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
UNREACHABLE = 10
"""The exit code that Prefect's side has."""


class HandedOver(Case):
    """The first command hands the request to the deployment, or a scan does; later ones do it or ask plainly.

    `ways`: how each command asks, the last also those after it: "submit", "scan" or "plain". `meets`: whether
    nobody evaluates before a helper has begun.
    """

    seconds = 420
    told = TOLD | {UNREACHABLE}

    def __init__(self, workers: Workers, name: str, ways: Sequence[str], *, meets: bool = False) -> None:
        super().__init__(workers.site, name, with_helper=False)
        self.workers = workers
        self._ways = ways
        self._meets = meets
        self._begun = ""

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Its flow runs end with it."""
        with super().prepared():
            self.workers.serve(self.folder)
            (self.folder / "home" / "rules.toml").write_text(self._rules())
            if self._meets:
                (self.folder / "tally.meet").touch()
            self._begun = datetime.now(UTC).isoformat()
            try:
                yield
            finally:
                for run in self.runs():
                    self.workers.kill_run(run["id"])

    def ask(self) -> int:
        """As the turn is. A scan's request is asked for plainly once its flow run has ended."""
        if self._way() == "scan":
            self.workers.start(SCAN)
            self._await_ends()
        return super().ask()

    def begin_asking(self, *how: str, prints_to: str = ".") -> BaseProcess:
        """The command, begun."""
        mine = ("--submit", "--helpers", "1") if self._way() == "submit" else ("--no-flow",)
        return super().begin_asking(*mine, *how, prints_to=prints_to)

    def settle(self) -> None:
        """Until all flow runs have ended, for Prefect and in truth. Raises Broken, also where one failed of
        what nobody foresaw.
        """
        self._await_ends()
        for run in self.runs():
            message = run["state"]["message"] or ""
            if run["state"]["type"] == "FAILED" and as_raised(message) is None:
                raise Broken(f"the flow run {run['name']} failed: {message}")

    def runs(self) -> list[Any]:
        """All flow runs of this case."""
        since = {"expected_start_time": {"after_": self._begun}}
        found: list[Any] = self.workers.ask("flow_runs/filter", flow_runs=since)
        return found

    def of_flow(self, name: str) -> list[str]:
        """The ids of its runs that have not ended."""
        return [
            run["id"]
            for run in self.runs()
            if self.workers.flows.get(run["flow_id"]) == name and run["state"]["type"] not in ENDED
        ]

    def said(self) -> str:
        """Also what Prefect says of each run, and the workers."""
        states = []
        with suppress(TimeoutError):
            states = [(run["name"], run["state"]["name"], run["state"]["message"]) for run in self.runs()]
        return f"{super().said()}\n--- flow runs\n{states}\n--- workers\n{self.workers.log()}"

    def _way(self) -> str:
        return self._ways[min(len(self.codes), len(self._ways) - 1)]

    def _await_ends(self) -> None:
        def ended() -> bool | None:
            runs = self.runs()
            left = [run for run in runs if run["state"]["type"] not in ENDED]
            return None if left or any(self.workers.processes_of(run["id"]) for run in runs) else True

        try:
            awaited(ended, "the end of the flow runs", self.seconds)
        except TimeoutError as error:
            raise Broken(str(error)) from error

    def _rules(self) -> str:
        return f"""
[[rule]]
name = {json.dumps(self.name)}
experiments = [{json.dumps(self.name)}]
since = 1970-01-01
[rule.request]
model = {json.dumps(self.name)}
task = {json.dumps(TASK)}
task_args = {{ salt = {json.dumps(str(self.folder / "salt.txt"))} }}
shifts = ["shifted"]
margin = "-100"
"""


class PrefectStriker(Striker):
    """Strikes workers, their flow runs and the server, too."""

    def __init__(self, case: HandedOver, strikes: Sequence[Strike] = ()) -> None:
        super().__init__(case, strikes)
        self._handed = case
        self._workers = case.workers
        self._acts |= {
            "kill the worker": lambda _: self._kill_worker(),
            "kill the worker and the run": lambda _: self._kill_worker(SOUP),
            "kill the run": lambda _: self._kill_runs(SOUP),
            "kill the helper's run": lambda _: self._kill_runs(HELP),
            "kill Prefect": lambda _: self._restart_prefect(),
            "cut Prefect": lambda _: self._cut("prefect"),
        }

    def heal(self) -> None:
        """The server answers again, and has a worker."""
        super().heal()
        self._workers.await_server()
        self._workers.await_worker()

    def _is_meant(self, strike: Strike, wire: str, message: str) -> bool:
        flow, _, state = strike.wire.partition(" ")
        if not state:
            return super()._is_meant(strike, wire, message)
        if wire != "prefect" or not message.endswith(("/set_state", "/create_flow_run")):
            return False
        if message.endswith("/create_flow_run"):
            return state == "Scheduled" and bool(self._handed.of_flow(flow))
        run = self._workers.run(message.split("/")[-2])
        return self._workers.flows.get(run["flow_id"]) == flow and run["state"]["name"] == state

    def _is_possible(self, strike: Strike) -> bool:
        if strike.fault not in NEEDS_PROCESS:
            return super()._is_possible(strike)
        flow = HELP if strike.fault == "kill the helper's run" else SOUP
        return any(self._workers.processes_of(run) for run in self._handed.of_flow(flow))

    def _kill_worker(self, *flows: str) -> bytes:
        self._workers.kill_worker()  # first: it would tell Prefect how its runs ended
        return self._kill_runs(*flows)

    def _kill_runs(self, *flows: str) -> bytes:
        for flow in flows:
            for run in self._handed.of_flow(flow):
                self.lost_evaluations += self._workers.kill_run(run)
        return b""

    def _restart_prefect(self) -> bytes:
        self._workers.kill_server()
        return b""


def undisturbed(workers: Workers) -> Undisturbed:
    """Submit once, and count. Raises Broken."""
    case = HandedOver(workers, "undisturbed", ["submit"])
    return counted(case, PrefectStriker(case))


def run(workers: Workers, known: Undisturbed, seed: int, only: str | None = None) -> Told:
    """One trial, to its end. `only`: this fault in place of those that the seed draws."""
    strikes, ways = drawn(seed, only)
    return struck(workers, known, f"handed-{seed}", strikes, ways, seed)


def struck(
    workers: Workers,
    known: Undisturbed,
    name: str,
    strikes: Sequence[Strike],
    ways: Sequence[str],
    seed: int = 0,
) -> Told:
    """How a case went under these strikes, asked in these ways."""
    meets = any(strike.wire.startswith(HELP) or "helper" in strike.fault for strike in strikes)
    case = HandedOver(workers, name, ways, meets=meets)
    return tried(case, PrefectStriker(case, strikes), known, seed)
