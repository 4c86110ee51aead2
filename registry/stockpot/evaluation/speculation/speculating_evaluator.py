"""Evaluates, on several devices at once, what would be asked for if everything until then is rejected."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from stockpot.entities import Bound, Digest, EvaluationProtocol, Outcome, Recipe, Score, Trial
from stockpot.errors import BadRequest
from stockpot.evaluation.rejection.order_dependence import OrderDependent, Reordering
from stockpot.evaluation.speculation.device_threads import DeviceThreads, Evaluation
from stockpot.evaluation.speculation.interruption import Interrupted, Interruptible
from stockpot.evaluation.speculation.width import Width
from stockpot.ports import Evaluator


class SpeculatingEvaluator:
    """An evaluator over one evaluator per device, all of one protocol. Its outcomes are theirs.

    The asked trial is evaluated at once. Devices that are free go on with those that may come next, in
    order, without waiting for each other; several trials asked for together run side by side. A guess is
    dropped or interrupted when a later call, or a trial before it that is accepted, shows it to be needless.

    `keep` is given each completed score that was not asked for; asked for later, it is the answer. A guess's
    error is raised when that trial is asked for, else never; OrderDependent always is, since it is about
    outcomes that were given before.

    For one caller at a time, who closes the threads. Raises BadRequest where the protocols differ.
    """

    def __init__(
        self,
        evaluators: Sequence[Evaluator],
        threads: DeviceThreads,
        *,
        keep: Callable[[Recipe, Score], object] = lambda _recipe, _score: None,
    ) -> None:
        self.protocol = _one_protocol(evaluators)
        self.wasted = 0
        """Guesses that were begun, have ended, and were not asked for."""
        self._evaluators = tuple(evaluators)
        self._threads = threads
        self._keep = keep
        self._width = Width(len(threads))
        self._guesses: dict[Trial, Evaluation] = {}
        self._needless: list[Evaluation] = []
        self._kept: dict[Digest, Score] = {}
        self._order: OrderDependent | None = None
        self._doubtful = False
        """Whether an outcome was a mixed bound."""
        for place, evaluator in enumerate(evaluators):
            if isinstance(evaluator, Interruptible):
                evaluator.interrupted = partial(threads.interrupted, place)

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order.

        Raises what the evaluators raise, and DeviceLost where no device is left.
        """
        try:
            return [self._outcome(trials[place:], then) for place in range(len(trials))]
        except OrderDependent:
            self.keep_batches()
            self._drop_guesses()
            raise
        except BaseException:
            self._drop_guesses()
            raise

    @property
    def order_dependent(self) -> bool:
        """Whether a device knows that outputs depend on the batch."""
        return any(evaluator.order_dependent for evaluator in self._reordering())

    def keep_batches(self) -> None:
        """Re-order no examples any more: what one device has found holds for all, which share the model."""
        for evaluator in self._reordering():
            if not evaluator.order_dependent:
                evaluator.keep_batches()

    def confirm(self) -> None:
        """End what nobody asked for. Raises OrderDependent where bounds that were given are doubtful now."""
        self._drop_guesses()
        self._threads.rest()
        self._require_independent_of_order()

    def settle(self) -> None:
        """Count and keep what was not asked for, as far as it has ended: all, once the threads are closed."""
        self._give_up_guesses()
        self._settle()

    def _settle(self) -> None:
        ended = [e for e in self._needless if e.ended]
        self._needless = [e for e in self._needless if e.begun and not e.ended]
        self.wasted += len(ended)
        for evaluation in ended:
            if isinstance(evaluation.error, OrderDependent):
                self._order = evaluation.error
            if isinstance(evaluation.outcome, Score):
                self._kept[evaluation.trial.recipe.digest] = evaluation.outcome
                self._keep(evaluation.trial.recipe, evaluation.outcome)

    def _drop_guesses(self) -> None:
        """Nothing goes on unseen by whoever handles an error."""
        self._give_up_guesses()
        self._threads.plan([], width=1)

    def _give_up_guesses(self) -> None:
        self._needless += self._guesses.values()
        self._guesses = {}

    def _reordering(self) -> Iterator[Reordering]:
        return (evaluator for evaluator in self._evaluators if isinstance(evaluator, Reordering))

    def _outcome(self, asked: Sequence[Trial], then: Sequence[Trial]) -> Outcome:
        trial, outcome = asked[0], None
        while outcome is None:
            outcome = self._kept.get(trial.recipe.digest) or self._awaited(asked, then)
        if trial.must_reach is not None:
            accepted = isinstance(outcome, Score) and trial.must_reach.met_by(outcome.value)
            self._width.heed(accepted=accepted)
        return outcome

    def _awaited(self, asked: Sequence[Trial], then: Sequence[Trial]) -> Outcome | None:
        """None where it was given up just before it was asked for."""
        self._plan(asked, then)
        evaluation = self._guesses.pop(asked[0])
        try:
            outcome = self._threads.wait(evaluation)
        except Interrupted:
            if evaluation.unwanted:
                return None
            raise
        self._doubtful |= isinstance(outcome, Bound) and outcome.mixed
        try:
            self._require_independent_of_order()
        except OrderDependent:
            if isinstance(outcome, Score):
                self._kept[evaluation.trial.recipe.digest] = outcome
            raise
        return outcome

    def _plan(self, asked: Sequence[Trial], then: Sequence[Trial]) -> None:
        before, self._guesses = self._guesses, {}
        for trial in dict.fromkeys([*asked, *then]):
            if trial.recipe.digest not in self._kept:
                evaluation = before.get(trial)
                if evaluation is None or evaluation.unwanted:
                    evaluation = Evaluation(trial, self._evaluators)
                evaluation.asked = trial in asked
                self._guesses[trial] = evaluation
        self._needless += [e for e in before.values() if self._guesses.get(e.trial) is not e]
        self._threads.plan(list(self._guesses.values()), width=self._width.now)
        self._settle()

    def _require_independent_of_order(self) -> None:
        found = [t for t, e in self._guesses.items() if e.ended and isinstance(e.error, OrderDependent)]
        self._needless += [self._guesses.pop(trial) for trial in found]
        self._settle()
        error, self._order = self._order, None
        if self.order_dependent:
            self.keep_batches()
            if error is None and self._doubtful:
                error = OrderDependent(
                    "outputs depend on the batch, as one device found after bounds were given"
                )
        if error is not None:
            self._doubtful = False
            raise error


def _one_protocol(evaluators: Sequence[Evaluator]) -> EvaluationProtocol:
    first, *others = [evaluator.protocol for evaluator in evaluators]
    faults = [
        f"device {place}: {clause}"
        for place, other in enumerate(others, start=2)
        for clause in other.differences(first)
    ]
    if faults:
        raise BadRequest(
            "the devices would not give the same scores",
            faults=faults,
            mend="name devices of one model in STOCKPOT_DEVICE",
        )
    return first
