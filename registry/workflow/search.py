"""Rank the candidates on the held-out split, then search for recipes there."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from registry.entities import (
    Candidate,
    Contender,
    Digest,
    Exclusion,
    ExclusionReason,
    Outcome,
    Recipe,
    Score,
    Selection,
    SoupRequest,
    Sweep,
    Trial,
)
from registry.errors import BadTask
from registry.selection import run_selection
from registry.workflow.gather import require_two

if TYPE_CHECKING:
    from registry.ports import Evaluator, MakeMethod, Progress


@dataclass(frozen=True)
class Ranking:
    """A sweep whose candidates all have a held-out score."""

    sweep: Sweep
    candidates: tuple[Candidate, ...]
    """Best first; ties by run start, then run id."""
    held_out: Mapping[Digest, Score]


def contenders_of(candidates: Sequence[Candidate]) -> tuple[Contender, ...]:
    """The candidates as selection sees them."""
    return tuple(Contender(c.checkpoint.digest, c.run.run_id, c.run.started) for c in candidates)


def full_score(recipe: Recipe, evaluator: "Evaluator") -> Score:
    """Score a recipe on the whole split."""
    (outcome,) = evaluator.evaluate([Trial(recipe)])
    if not isinstance(outcome, Score):
        raise TypeError(f"a trial without a threshold came back as {outcome}")
    return outcome


def rank(sweep: Sweep, evaluator: "Evaluator", progress: "Progress") -> Ranking:
    """Score every candidate by itself: the best single is measured here, not trusted from a log.

    A candidate whose score is NaN is excluded. Raises BadTask when that is every candidate,
    NothingToSoup when it leaves fewer than two.
    """
    progress.start("rank", len(sweep.candidates))
    scores: dict[Digest, Score] = {}
    for candidate in sweep.candidates:
        digest = candidate.checkpoint.digest
        scores[digest] = full_score(Recipe.mean([digest]), evaluator)
        progress.advance("rank")
    unscored = [c for c in sweep.candidates if math.isnan(scores[c.checkpoint.digest].value)]
    if len(unscored) == len(sweep.candidates):
        raise BadTask(
            f"{evaluator.protocol.task} scores NaN for every candidate on split {evaluator.protocol.split}",
            mend="look at the task's score method with one batch",
        )
    scored = [candidate for candidate in sweep.candidates if candidate not in unscored]
    exclusions = [_not_scored(c, scores[c.checkpoint.digest], evaluator.protocol.split) for c in unscored]
    sweep = replace(sweep, candidates=tuple(scored), exclusions=(*sweep.exclusions, *exclusions))
    scored.sort(key=lambda c: (-scores[c.checkpoint.digest].value, c.run.started, c.run.run_id))
    return Ranking(require_two(sweep), tuple(scored), scores)


def search(
    request: SoupRequest,
    ranking: Ranking,
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


def _not_scored(candidate: Candidate, score: Score, split: str) -> Exclusion:
    first = next((i for i, value in enumerate(score.examples) if math.isnan(value)), None)
    where = f"split {split}" if first is None else f"example {first} of split {split}"
    detail = f"its score on {where} is NaN"
    return Exclusion(candidate.run.run_id, candidate.run.name, ExclusionReason.NOT_SCORED, detail)
