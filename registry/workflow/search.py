"""Search for recipes on the held-out split."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from registry.entities import (
    Candidate,
    Contender,
    Outcome,
    Recipe,
    Score,
    Selection,
    SoupRequest,
    Trial,
)
from registry.selection import run_selection

if TYPE_CHECKING:
    from registry.ports import Evaluator, MakeMethod, Progress
    from registry.workflow.ranking import Ranking


def contenders_of(candidates: Sequence[Candidate]) -> tuple[Contender, ...]:
    """The candidates as selection sees them."""
    return tuple(Contender(c.checkpoint.digest, c.run.run_id, c.run.started) for c in candidates)


def full_score(recipe: Recipe, evaluator: "Evaluator") -> Score:
    """Score a recipe on the whole split."""
    (outcome,) = evaluator.evaluate([Trial(recipe)])
    if not isinstance(outcome, Score):
        raise TypeError(f"a trial without a threshold came back as {outcome}")
    return outcome


def search(
    request: SoupRequest,
    ranking: "Ranking",
    methods: Mapping[str, "MakeMethod"],
    evaluator: "Evaluator",
    stop: Callable[[], bool],
    progress: "Progress",
) -> tuple[Selection, ...]:
    """Run the selection methods, in the request's order, each until it is done or `stop` is true."""
    selections = []
    for name, make in methods.items():
        method = make(contenders_of(ranking.candidates), accept=request.accept)
        stage = f"select: {name}"
        progress.start(stage, method.most_soups)
        watched = _Watched(evaluator, partial(progress.advance, stage))
        selection = run_selection(method, watched, stop=stop)
        if not selection.complete:
            progress.say(
                f"{name}: time is up after {len(selection.steps)} steps; the best until then is used"
            )
        selections.append(selection)
    return tuple(selections)


class _Watched:
    """An evaluator that tells of each soup it has scored."""

    def __init__(self, inner: "Evaluator", advance: Callable[[], None]) -> None:
        self.protocol = inner.protocol
        self._inner = inner
        self._advance = advance

    def evaluate(self, trials: Sequence[Trial], *, then: Sequence[Trial] = ()) -> list[Outcome]:
        """Score each trial; outcomes in the trials' order."""
        outcomes = []
        for place, trial in enumerate(trials, start=1):
            outcomes += self._inner.evaluate([trial], then=[*trials[place:], *then])
            if trial.recipe.is_soup:
                self._advance()
        return outcomes
