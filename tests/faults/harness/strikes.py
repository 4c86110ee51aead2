"""Faults, each at its moment: a message on a wire that is about to be sent, or was just answered."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from random import Random

from tests.faults.harness.case import Case
from tests.faults.harness.command import LEASE_SECONDS
from tests.faults.harness.wires import Listener, creates

MOST_STRIKES = 4
ANSWERS = ("502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "500 Internal Server Error")
FAULTS = {
    "kill the parent": 10,
    "kill the helper": 3,
    "kill both": 2,
    "suspend the parent": 2,
    "lose the answer": 3,
    "answer 5xx": 4,
    "cut MLflow": 2,
    "cut the store": 3,
    "hold the message": 2,
    "kill MLflow": 1,
    "kill PostgreSQL": 2,
    "stop PostgreSQL": 2,
    "fill the disk": 2,
}
"""Each with how often it is drawn."""


@dataclass(frozen=True)
class Strike:
    """A fault, and its moment."""

    fault: str
    wire: str
    """Whose messages are counted: the store's, MLflow's, Prefect's, or "creates", those that create something
    in MLflow. Or what a flow run becomes, such as "soup-sweep Pending", as Prefect has just answered.
    """
    share: float
    """Which of those that an undisturbed command sends: 0 for the first, 1 for the last."""
    when: str
    """Before the message reaches the server, or after its effect."""
    answer: str
    """The status line of a fault that answers."""

    def __str__(self) -> str:
        return f"{self.fault} {self.when} {self.share:.0%} of {self.wire}"


def drawn(seed: int, only: str | None = None) -> list[Strike]:
    """The strikes of this seed, one after the other; `only` this fault, at the same moments."""
    draw = Random(seed)  # noqa: S311 - the same each time is what is wanted
    strikes = []
    for place in range(draw.randint(1, MOST_STRIKES)):
        (fault,) = draw.choices([*FAULTS], [*FAULTS.values()])
        fault = only or fault
        # What speaks HTTP is MLflow alone.
        wire = draw.choice(["mlflow", "creates"] if fault == "answer 5xx" else ["store", "mlflow", "creates"])
        share = draw.random() / (1 + place)  # who goes on has less to do
        strikes.append(Strike(fault, wire, share, draw.choice(["before", "after"]), draw.choice(ANSWERS)))
    return strikes


class Striker:
    """Strikes a case, and mends what it broke."""

    def __init__(self, case: Case, strikes: Sequence[Strike] = ()) -> None:
        self.left = list(strikes)
        """Those that are still to come, in their order."""
        self.hits: list[str] = []
        """The faults that came to pass."""
        self.lost_evaluations = 0
        """At most: one for each process that was killed, or held up for longer than a lease."""
        self.acknowledged: dict[tuple[str, str], bytes] = {}
        """The scores that were committed before any of them."""
        self._case = case
        self._site = case.site
        self._rivals: list[threading.Thread] = []
        self._acts: dict[str, Callable[[Strike], bytes | None]] = {
            "kill the parent": lambda _: self._kill(case.parent),
            "kill the helper": lambda _: self._kill_helper(),
            "kill both": lambda _: self._kill(case.parent, case.helper),
            "suspend the parent": lambda _: self._suspend(case.parent),
            "lose the answer": lambda _: b"",
            "answer 5xx": _unavailable,
            "cut MLflow": lambda _: self._cut("mlflow"),
            "cut the store": lambda _: self._cut("store"),
            "hold the message": lambda _: self._hold(),
            "kill MLflow": lambda _: self._restart_mlflow(),
            "kill PostgreSQL": lambda _: self._restart_postgres(self._site.kill_postgres),
            "stop PostgreSQL": lambda _: self._restart_postgres(self._site.stop_postgres),
            "fill the disk": lambda _: self._site.fill_disk(),
        }

    def listen(self, listener: Listener | None) -> None:
        """On all wires."""
        for wire in self._site.wires.values():
            wire.listener = listener

    def arm(self, messages: Mapping[str, int]) -> None:
        """For one command: each strike at its moment, counted from the one before it. `messages`: how many an
        undisturbed command sends.
        """
        lock, heard = threading.Lock(), 0

        def listener(wire: str, message: str, when: str) -> bytes | None:
            nonlocal heard
            with lock:
                if not self.left:
                    return None
                strike = self.left[0]
                heard += when == strike.when and self._is_meant(strike, wire, message)
                if heard <= int(strike.share * messages[strike.wire]):
                    return None
                heard = 0
                del self.left[0]
            return self._strike(strike)

        self.listen(listener)

    def heal(self) -> None:
        """All that was broken, before the next command."""
        self.listen(None)
        for rival in self._rivals:
            rival.join()
        self._site.empty_disk()
        for wire in self._site.wires.values():
            wire.refuses = False
        self._site.await_all()

    def _is_meant(self, strike: Strike, wire: str, message: str) -> bool:
        return creates(message) if strike.wire == "creates" else wire == strike.wire

    def _is_possible(self, strike: Strike) -> bool:
        helper = self._case.helper
        return strike.fault != "kill the helper" or (helper is not None and helper.is_alive())

    def _strike(self, strike: Strike) -> bytes | None:
        if not self._is_possible(strike):
            return None
        self.acknowledged |= self._case.scores()
        self.hits.append(strike.fault)
        return self._acts[strike.fault](strike)

    def _kill(self, *processes: BaseProcess | None) -> bytes:
        for process in processes:
            if process is not None and process.is_alive():
                self.lost_evaluations += 1
                process.kill()
        return b""

    def _kill_helper(self) -> None:
        """The message may be the parent's: it passes."""
        self._kill(self._case.helper)

    def _suspend(self, sleeper: BaseProcess | None) -> None:
        """Until another command has answered the request: as a machine that sleeps, and wakes up."""
        assert sleeper is not None
        number = sleeper.pid
        assert number is not None
        self.lost_evaluations += 1
        os.kill(number, signal.SIGSTOP)

        def answer() -> None:
            try:
                self._case.ended(self._case.begin_asking(prints_to="rival"))
            finally:
                with suppress(ProcessLookupError):  # the next strike has killed it
                    os.kill(number, signal.SIGCONT)

        self._rivals.append(threading.Thread(target=answer))
        self._rivals[-1].start()

    def _cut(self, name: str) -> bytes:
        """For a second nobody gets through."""
        wire = self._site.wires[name]
        wire.refuses = True
        wire.cut()
        threading.Timer(1.0, setattr, (wire, "refuses", False)).start()
        return b""

    def _hold(self) -> None:
        """For longer than a lease lasts."""
        self.lost_evaluations += 1
        time.sleep(1.5 * LEASE_SECONDS)

    def _restart_mlflow(self) -> bytes:
        self._site.kill_mlflow()
        self._site.start_mlflow()
        return b""

    def _restart_postgres(self, end: Callable[[], None]) -> bytes:
        end()
        self._site.start_postgres()
        return b""


def _unavailable(strike: Strike) -> bytes:
    return f"HTTP/1.1 {strike.answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
