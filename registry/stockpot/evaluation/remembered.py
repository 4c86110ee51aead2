"""Nothing is evaluated twice."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from stockpot.entities import Bound, Digest, EvaluationProtocol, Outcome, Recipe, Score, Trial
from stockpot.evaluation.rejection.order_dependence import OrderDependent, Reordering
from stockpot.ports import Evaluator, Store
from stockpot.selection import FORESEEN


class RememberingEvaluator:
    """Answers from what was committed, and asks another evaluator for the rest, one trial at a time.

    A committed score answers every trial of its recipe; a committed bound answers those whose threshold
    it puts out of reach. Each outcome is committed as it arrives, so that whatever ends the process loses
    at most the one evaluation under way. Where another process committed first, its score is the answer.

    Raises StoreError besides the inner one's errors. Once the inner one, or another process, knows that
    outputs depend on the batch, mixed bounds under the protocol are withdrawn, everybody's. Where one of them
    was an answer here, that raises OrderDependent: the search starts again.
    """

    def __init__(
        self,
        inner: Evaluator,
        store: Store,
        before: Callable[[Recipe], object] = lambda _: None,
        heed: Callable[[Recipe, Digest, Score], object] = lambda _recipe, _protocol, _score: None,
    ) -> None:
        """`before`: called with each recipe that the inner evaluator is about to be asked for. `heed`: with
        each score that the store answers, and its protocol.
        """
        self.started = 0
        """Evaluations that the inner evaluator was asked for."""
        self._inner = inner
        self._store = store
        self._before = before
        self._heed = heed
        self._doubtful = False
        """Whether an answer was a mixed bound."""

    @property
    def protocol(self) -> EvaluationProtocol:
        """The inner evaluator's."""
        return self._inner.protocol

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order. Of what may come next, the inner one hears only
        what nothing committed answers.
        """
        coming = [*trials, *then]
        return [self._outcome(trial, coming[i : i + FORESEEN]) for i, trial in enumerate(trials, start=1)]

    @property
    def order_dependent(self) -> bool:
        """Whether outputs are known to depend on the batch."""
        return isinstance(self._inner, Reordering) and self._inner.order_dependent

    def keep_batches(self) -> None:
        """Let the inner one re-order no examples any more."""
        if isinstance(self._inner, Reordering):
            self._inner.keep_batches()

    def confirm(self) -> None:
        """Make sure that no answer was a bound that somebody has withdrawn since. Raises OrderDependent."""
        with self._withdrawing():
            if isinstance(self._inner, Reordering):
                self._inner.confirm()
        self._heed_others()

    def _outcome(self, trial: Trial, then: Sequence[Trial]) -> Outcome:
        outcome = self._remembered(trial) or self._evaluated(trial, then)
        self._doubtful |= isinstance(outcome, Bound) and outcome.mixed
        return outcome

    def _remembered(self, trial: Trial) -> Outcome | None:
        key = (trial.recipe.digest, self.protocol.digest)
        score = self._store.score(*key)
        if score is not None:
            self._heed(trial.recipe, key[1], score)
            return score
        if trial.must_reach is None:
            return None
        bound = self._store.bound(*key)
        return None if bound is None or trial.must_reach.met_by(bound.upper) else bound

    def _evaluated(self, trial: Trial, then: Sequence[Trial]) -> Outcome:
        unknown = [later for later in then if self._remembered(later) is None]
        if self.started == 0:
            self._heed_others()
        self._before(trial.recipe)
        self.started += 1
        with self._withdrawing():
            (outcome,) = self._inner.evaluate([trial], then=unknown)
        if isinstance(outcome, Bound):
            return self._store.commit_bound(trial.recipe, self.protocol, outcome)
        return self._store.commit_score(trial.recipe, self.protocol, outcome)

    @contextmanager
    def _withdrawing(self) -> Iterator[None]:
        """Withdraw mixed bounds where the inner evaluator learns meanwhile that they may be false."""
        known = self.order_dependent
        try:
            yield
        except OrderDependent:
            self._store.withdraw_mixed_bounds(self.protocol)
            self._doubtful = False
            raise
        if self.order_dependent and not known:
            self._store.withdraw_mixed_bounds(self.protocol)
            self._require_no_doubt()

    def _heed_others(self) -> None:
        if not self.order_dependent and self._store.mixed_bounds_withdrawn(self.protocol.digest):
            self.keep_batches()
        self._require_no_doubt()

    def _require_no_doubt(self) -> None:
        """Once: what is answered from then on does not rest on withdrawn bounds."""
        if self._doubtful and self.order_dependent:
            self._doubtful = False
            raise OrderDependent(
                "an example's outputs depend on its batch, as was found after bounds were given"
            )
