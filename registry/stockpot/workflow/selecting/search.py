"""Search for recipes on the held-out split."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from stockpot.entities import (
    Candidate,
    Contender,
    Outcome,
    Selection,
    SoupRequest,
    Trial,
)
from stockpot.ports import OrderDependent
from stockpot.prose import counted
from stockpot.selection import FORESEEN, run_selection
from stockpot.workflow.selecting.verification import Verification
from stockpot.workflow.selecting.watched import Heard

if TYPE_CHECKING:
    from stockpot.ports import Evaluator, MakeMethod, SelectionMethod, Watcher
    from stockpot.workflow.selecting.ranking import Ranking
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator


def contenders_of(candidates: Sequence[Candidate]) -> tuple[Contender, ...]:
    """The candidates as selection sees them."""
    return tuple(Contender(c.checkpoint.digest, c.run.run_id, c.run.started) for c in candidates)


def search(
    request: SoupRequest,
    ranking: "Ranking",
    methods: Mapping[str, "MakeMethod"],
    evaluator: "SharedEvaluator",
    stop: Callable[[], bool],
    watch: "Watcher",
    plain: "Evaluator | None" = None,
) -> tuple[Selection, ...]:
    """Run the selection methods, in the request's order, each until it is done or `stop` is true.

    With `plain`, which the request's `verify_exact` asks for, each is run again there: one that remembers
    nothing and scores in full. Raises BadTask or NotExact where anything differs.
    """
    if request.verify_exact and plain is None:
        raise ValueError("verify_exact needs a plain evaluator")
    contenders = contenders_of(ranking.candidates)
    begin = {name: partial(make, contenders, accept=request.accept) for name, make in methods.items()}
    searches = _carried_out(begin, evaluator, stop, watch)
    for name, (selection, _) in searches.items():
        if not selection.complete:
            steps = counted(len(selection.steps), "step")
            watch.say(f"{name}: time is up after {steps}; the best until then is used")
    if plain is not None:
        verification = Verification(plain, evaluator, ranking, watch)
        for name, (selection, outcomes) in searches.items():
            verification.compare(name, selection, outcomes, begin[name]())
    return tuple(selection for selection, _ in searches.values())


_Search = tuple[Selection, Mapping[Trial, Outcome]]
"""What a method found, and all that it was told."""


def _carried_out(
    begin: Mapping[str, Callable[[], "SelectionMethod"]],
    evaluator: "SharedEvaluator",
    stop: Callable[[], bool],
    watch: "Watcher",
) -> dict[str, _Search]:
    """Every method's search; all from the start again where bounds turn out to be doubtful.

    All, since nobody knows which method was told such a bound.
    """
    for attempt in count():
        searches: dict[str, _Search] = {}
        try:
            for name, make in begin.items():
                searches[name] = _search(name, make(), evaluator, stop, watch)
            evaluator.confirm()
        except OrderDependent as found:
            if attempt == FORESEEN:  # more often than processes could each find it once
                raise
            if attempt == 0:
                watch.say(f"{found}; every search starts again, completed scores are remembered")
        else:
            return searches
    raise AssertionError("count() does not end")


def _search(
    name: str,
    method: "SelectionMethod",
    evaluator: "SharedEvaluator",
    stop: Callable[[], bool],
    watch: "Watcher",
) -> _Search:
    stage = f"select: {name}"
    watch.start(stage, method.most_soups)
    heard = Heard(partial(watch.advance, stage))
    return run_selection(method, evaluator, stop=stop, heard=heard), heard.outcomes
