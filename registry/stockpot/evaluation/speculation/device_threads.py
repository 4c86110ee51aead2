"""One thread per device: as soon as it is free, it takes the next evaluation that is wanted."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Condition, RLock, Thread
from typing import Self

from stockpot.entities import Outcome, Score, Trial
from stockpot.errors import DeviceLost
from stockpot.ports import Evaluator
from stockpot.soup.waiting import next_from


@dataclass(eq=False)
class Evaluation:
    """A trial for whichever device is free first. What happens to it is written by `DeviceThreads` alone."""

    trial: Trial
    evaluators: Sequence[Evaluator]
    """One per device, in the devices' order."""
    asked: bool = False
    """Needed for sure: no outcome of another one makes it needless."""
    then: Sequence[Trial] = ()
    """What nobody had begun when this was: its device may prepare for the first of them."""
    begun: bool = False
    unwanted: bool = False
    """Begun, and then found to be needless."""
    ended: bool = False
    outcome: Outcome | None = None
    accepted: bool = False
    """Whether the outcome is a score that meets the trial's threshold."""
    error: BaseException | None = None

    @property
    def certain(self) -> bool:
        """Whether it is begun however narrow the width: where nothing is rejected, nothing is a guess."""
        return self.asked or self.trial.must_reach is None

    def run(self, device: int, prepare: Callable[[int], None]) -> None:
        """Evaluate on this device, and take whatever comes of it."""
        try:
            prepare(device)
            (self.outcome,) = self.evaluators[device].evaluate([self.trial], then=self.then)
            self.accepted = self._is_accepted()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            self.error = error

    def _is_accepted(self) -> bool:
        threshold, outcome = self.trial.must_reach, self.outcome
        return threshold is not None and isinstance(outcome, Score) and threshold.met_by(outcome.value)


def _never(_error: BaseException) -> bool:
    return False


class DeviceThreads:
    """Evaluates on several devices, each with a thread of its own, for one caller at a time.

    `lost` tells whether an error means that the device is gone: then its evaluation goes to another one,
    and `say` hears of it, in the caller's thread. `prepare` is called with the device's place, in its
    thread, before each evaluation. Close it, or use it in a ``with``: the threads start with the first plan
    and end there.
    """

    def __init__(
        self,
        devices: Sequence[str],
        *,
        lost: Callable[[BaseException], bool] = _never,
        prepare: Callable[[int], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._names = tuple(devices)
        self._lost = lost
        self._prepare = prepare
        self._say = say
        # The lock guards all that follows; the condition tells threads of its changes. The caller, who may be
        # interrupted from the keyboard anywhere, uses neither Condition's `with` nor its `wait`, which are
        # written in Python and can be left with the lock taken: it waits for `_news`, one per change.
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._news: SimpleQueue[None] = SimpleQueue()
        self._plan: list[Evaluation] = []
        self._width = len(self._names)
        self._running: list[Evaluation | None] = [None] * len(self._names)
        self._losses: dict[int, str] = {}  # by the device's place, in the order of their ends
        self._said = 0
        self._closed = False
        self._threads: list[Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """The number of devices, those included that are gone."""
        return len(self._names)

    def plan(self, evaluations: Sequence[Evaluation], *, width: int) -> None:
        """Want these, in this order, and nothing else: what is not among them is dropped or interrupted.

        No guess is begun while `width` evaluations that are wanted are under way.
        """
        with self._lock:
            if self._closed:
                raise ValueError("these threads are closed")
            if evaluations and not self._threads:
                self._start()
            self._plan, self._width = list(evaluations), width
            self._interrupt(e for e in self._running if e not in self._plan)
            self._changed.notify_all()

    def wait(self, evaluation: Evaluation) -> Outcome:
        """The outcome of one that is planned. Raises what its evaluator raised, and DeviceLost when no
        device is left.
        """
        while not self._is_settled(evaluation):
            next_from(self._news)
        if evaluation.error is not None:
            raise evaluation.error
        if evaluation.outcome is None:
            raise self._none_left()
        return evaluation.outcome

    def left(self) -> list[int]:
        """The places of the devices that are not gone. Raises DeviceLost where none is left."""
        with self._lock:
            left = [device for device in range(len(self)) if device not in self._losses]
        if not left:
            raise self._none_left()
        return left

    def rest(self) -> None:
        """Interrupt everything; return when no device is busy."""
        self.plan([], width=len(self))
        while any(self._running):
            next_from(self._news)

    def close(self) -> None:
        """Interrupt everything; return when the threads have ended."""
        with self._lock:
            self._closed, self._plan = True, []
            self._interrupt(self._running)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def interrupted(self, device: int) -> bool:
        """Whether nobody wants what this device is evaluating."""
        evaluation = self._running[device]
        return evaluation is not None and evaluation.unwanted

    def _start(self) -> None:
        for device, name in enumerate(self._names):
            # A daemon: a program that fails to close it still ends.
            thread = Thread(target=self._serve, args=(device,), name=f"evaluates on {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, device: int) -> None:
        while self._serve_one(device):
            pass

    def _serve_one(self, device: int) -> bool:
        """False when none is left, or the device is gone. A function, which holds nothing while it waits."""
        evaluation = self._take(device)
        if evaluation is None:
            return False
        evaluation.run(device, self._prepare)
        return self._hand_back(device, evaluation)

    def _take(self, device: int) -> Evaluation | None:
        """Wait for the next one; None when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next())
            evaluation = self._next()
            if evaluation is not None:
                evaluation.begun = True
                evaluation.then = [later.trial for later in self._plan if not later.begun]
                self._running[device] = evaluation
                self._changed.notify_all()
            return evaluation

    def _next(self) -> Evaluation | None:
        under_way = sum(e is not None and not e.unwanted for e in self._running)
        startable = (e for e in self._plan if not e.begun and (e.certain or under_way < self._width))
        return next(startable, None)

    def _hand_back(self, device: int, evaluation: Evaluation) -> bool:
        """Note how it ended. False when the device is gone: then the evaluation is to be begun again."""
        error = evaluation.error
        gone = error is not None and self._lost(error)
        with self._changed:
            self._running[device] = None
            if gone:
                self._losses[device] = f"{self._names[device]}: {_first_line(error)}"
            if gone and not evaluation.unwanted:
                evaluation.begun, evaluation.error = False, None
            else:
                evaluation.ended = True
            if evaluation.accepted and evaluation in self._plan:
                self._drop_guesses_after(evaluation)
            self._changed.notify_all()
        self._news.put(None)
        return not gone

    def _drop_guesses_after(self, accepted: Evaluation) -> None:
        """They were made for the case that it is rejected."""
        place = self._plan.index(accepted) + 1
        guesses = [e for e in self._plan[place:] if not e.certain]
        self._plan = [e for e in self._plan if e not in guesses]
        self._interrupt(e for e in self._running if e in guesses)

    def _none_left(self) -> DeviceLost:
        return DeviceLost("no device is left to evaluate on", faults=list(self._losses.values()))

    @staticmethod
    def _interrupt(evaluations: Iterable[Evaluation | None]) -> None:
        for evaluation in evaluations:
            if evaluation is not None:
                evaluation.unwanted = True

    def _is_settled(self, evaluation: Evaluation) -> bool:
        """Whether it has ended, or cannot any more. Tells of devices that are gone."""
        with self._lock:
            losses, self._said = list(self._losses.values())[self._said :], len(self._losses)
            settled = evaluation.ended or len(self._losses) == len(self._names)
        for loss in losses:
            self._say(f"a device is gone; the others, if any, take over what it was evaluating. {loss}")
        return settled


def _first_line(error: BaseException | None) -> str:
    if isinstance(error, DeviceLost) and error.__cause__ is not None:
        error = error.__cause__  # the device is named already
    return next(filter(None, str(error).splitlines()), type(error).__name__)
