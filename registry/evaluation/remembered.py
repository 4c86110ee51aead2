"""Nothing is evaluated twice."""

from collections.abc import Sequence

from registry.entities import Bound, EvaluationProtocol, Outcome, Trial
from registry.ports import Evaluator, Store


class RememberingEvaluator:
    """Answers with committed scores, and asks another evaluator for the rest, one trial at a time.

    Each score is committed as it arrives, so that whatever ends the process loses at most the one
    evaluation under way. Where another process committed first, its score is the answer. A Bound is
    not remembered: it depends on the threshold. Raises StoreError besides the inner one's errors.
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
        """Score each trial; outcomes in the trials' order."""
        return [self._outcome(trial, [*trials[i:], *then]) for i, trial in enumerate(trials, start=1)]

    def _outcome(self, trial: Trial, then: Sequence[Trial]) -> Outcome:
        remembered = self._store.score(trial.recipe.digest, self.protocol.digest)
        if remembered is not None:
            return remembered
        self.started += 1
        (outcome,) = self._inner.evaluate([trial], then=then)
        if isinstance(outcome, Bound):
            return outcome
        return self._store.commit_score(trial.recipe, self.protocol, outcome)
