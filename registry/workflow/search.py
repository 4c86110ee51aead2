"""Search for recipes on the held-out split."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from registry.entities import (
    Candidate,
    Contender,
    Outcome,
    Selection,
    SoupRequest,
    Trial,
)
from registry.evaluation.rejection.order_dependence import OrderDependent, Reordering
from registry.selection import FORESEEN, run_selection
from registry.workflow.verification import Verification
from registry.workflow.watched import WatchedEvaluator

if TYPE_CHECKING:
    from registry.ports import Evaluator, MakeMethod, Progress, SelectionMethod
    from registry.workflow.ranking import Ranking


def contenders_of(candidates: Sequence[Candidate]) -> tuple[Contender, ...]:
    """The candidates as selection sees them."""
    return tuple(Contender(c.checkpoint.digest, c.run.run_id, c.run.started) for c in candidates)


def search(
    request: SoupRequest,
    ranking: "Ranking",
    methods: Mapping[str, "MakeMethod"],
    evaluator: "Evaluator",
    stop: Callable[[], bool],
    progress: "Progress",
    plain: "Evaluator | None" = None,
) -> tuple[Selection, ...]:
    """Run the selection methods, in the request's order, each until it is done or `stop` is true.

    With `plain`, which the request's `verify_exact` asks for, each is run again there: one that remembers
    nothing and scores in full. Raises BadTask or NotExact where anything differs.
    """
    if request.verify_exact and plain is None:
        raise ValueError("verify_exact needs a plain evaluator")
    verification = Verification(plain, evaluator, ranking, progress) if plain is not None else None
    selections = []
    for name, make in methods.items():
        begin = partial(make, contenders_of(ranking.candidates), accept=request.accept)
        selection, outcomes = _carried_out(name, begin, evaluator, stop, progress)
        if not selection.complete:
            progress.say(
                f"{name}: time is up after {len(selection.steps)} steps; the best until then is used"
            )
        if verification is not None:
            verification.compare(name, selection, outcomes, begin())
        selections.append(selection)
    return tuple(selections)


def _carried_out(
    name: str,
    begin: Callable[[], "SelectionMethod"],
    evaluator: "Evaluator",
    stop: Callable[[], bool],
    progress: "Progress",
) -> tuple[Selection, Mapping[Trial, Outcome]]:
    """The search, and all that it was told; from the start again where bounds turn out to be doubtful."""
    for attempt in count():
        method, stage = begin(), f"select: {name}"
        progress.start(stage, method.most_soups)
        watched = WatchedEvaluator(evaluator, partial(progress.advance, stage))
        try:
            selection = run_selection(method, watched, stop=stop)
            if isinstance(evaluator, Reordering):
                evaluator.confirm()
        except OrderDependent as found:
            if attempt == FORESEEN:  # more often than there are devices that could each find it once
                raise
            if attempt == 0:
                progress.say(f"{name}: {found}; the search starts again, completed scores are remembered")
        else:
            return selection, watched.outcomes
    raise AssertionError("count() does not end")
