"""Candidates that answer together: the greedy ensemble, from outputs that are remembered."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from stockpot.entities import (
    Composition,
    Ensemble,
    EvaluationProtocol,
    Outcome,
    Score,
    Selection,
    SoupRequest,
    Trial,
)
from stockpot.ports import Wanted, always
from stockpot.prose import counted
from stockpot.selection import run_selection
from stockpot.selection.greedy import GreedyEnsemble
from stockpot.workflow.selecting.search import contenders_of
from stockpot.workflow.selecting.watched import Heard

if TYPE_CHECKING:
    from stockpot.ports import Bench, Watcher
    from stockpot.workflow.selecting.ranking import Ranking
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator


class NotRemembered(Exception):
    """There is no score without a forward pass."""


class Together:
    """An evaluator of a split that makes no forward pass: it answers what is committed, and commits what
    ensembles score by remembered outputs.
    """

    def __init__(self, evaluator: "SharedEvaluator", bench: "Bench", *, compared: bool) -> None:
        """`compared`: as the evaluator was made."""
        self._evaluator = evaluator
        self._bench = bench
        self._compared = compared

    @property
    def protocol(self) -> EvaluationProtocol:
        """The split's."""
        return self._evaluator.protocol

    @property
    def order_dependent(self) -> bool:
        """The split's evaluator's: here nothing is re-ordered."""
        return self._evaluator.order_dependent

    def keep_batches(self) -> None:
        """It keeps them anyway."""

    def evaluate(
        self,
        trials: Sequence[Trial],
        *,
        then: Sequence[Trial] = (),  # noqa: ARG002 - nothing to prepare
        wanted: Wanted = always,  # noqa: ARG002 - takes little time
    ) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order. Raises NotRemembered."""
        scores = [self.score(trial.recipe) for trial in trials]
        known = [score for score in scores if score is not None]
        if len(known) < len(scores):
            raise NotRemembered
        return [*known]

    def score(self, recipe: Composition) -> Score | None:
        """None where a forward pass would be needed."""
        return self._evaluator.committed(recipe, partial(self._from_outputs, recipe))

    def _from_outputs(self, recipe: Composition) -> Score | None:
        if not isinstance(recipe, Ensemble):
            return None
        return self._bench.ensemble(recipe, self.protocol.split, compared=self._compared)


def greedy_ensemble(
    request: SoupRequest,
    ranking: "Ranking",
    evaluator: "SharedEvaluator",
    bench: "Bench",
    stop: Callable[[], bool],
    watch: "Watcher",
) -> tuple[Selection | None, str]:
    """Search for the ensemble that greedy finds among the candidates, until `stop` is true.

    Without one: None, and why there is none.
    """
    method = GreedyEnsemble(contenders_of(ranking.candidates), accept=request.accept)
    if stop():
        return None, f"no row for the {method.name}: time is up"
    stage = f"select: {method.name}"
    watch.start(stage, method.most_soups)
    heard = Heard(partial(watch.advance, stage))
    try:
        found = run_selection(method, Together(evaluator, bench, compared=False), stop=stop, heard=heard)
    except NotRemembered:
        why = f"outputs of candidates on {request.select_on} are not remembered"
        return None, f"no row for the {method.name}: {why}"
    if not found.complete:
        watch.say(f"{method.name}: time is up after {counted(len(found.steps), 'step')}")
    if isinstance(found.recipe, Ensemble):
        return found, ""
    return None, f"no row for the {method.name}: beside the best single no candidate was kept"
