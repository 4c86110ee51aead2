"""Nothing is evaluated twice."""

from collections.abc import Sequence

from registry.entities import Bound, EvaluationProtocol, Outcome, Trial
from registry.evaluation.order_dependence import OrderDependent
from registry.ports import Evaluator, Store
from registry.selection import FORESEEN


class RememberingEvaluator:
    """Answers from what was committed, and asks another evaluator for the rest, one trial at a time.

    A committed score answers every trial of its recipe; a committed bound answers those whose threshold
    it puts out of reach. Each outcome is committed as it arrives, so that whatever ends the process loses
    at most the one evaluation under way. Where another process committed first, its score is the answer.

    Raises StoreError besides the inner one's errors. As OrderDependent passes, every bound under the
    protocol is withdrawn, other processes' too: they were given under the same assumption.
    """

    def __init__(self, inner: Evaluator, store: Store) -> None:
        self.started = 0
        """Evaluations that the inner evaluator was asked for."""
        self._inner = inner
        self._store = store

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

    def _outcome(self, trial: Trial, then: Sequence[Trial]) -> Outcome:
        return self._remembered(trial) or self._evaluated(trial, then)

    def _remembered(self, trial: Trial) -> Outcome | None:
        key = (trial.recipe.digest, self.protocol.digest)
        score = self._store.score(*key)
        if score is not None or trial.must_reach is None:
            return score
        bound = self._store.bound(*key)
        return None if bound is None or trial.must_reach.met_by(bound.upper) else bound

    def _evaluated(self, trial: Trial, then: Sequence[Trial]) -> Outcome:
        unknown = [later for later in then if self._remembered(later) is None]
        self.started += 1
        try:
            (outcome,) = self._inner.evaluate([trial], then=unknown)
        except OrderDependent:
            self._store.forget_bounds(self.protocol.digest)
            raise
        if isinstance(outcome, Bound):
            return self._store.commit_bound(trial.recipe, self.protocol, outcome)
        return self._store.commit_score(trial.recipe, self.protocol, outcome)
