"""Rank the candidates on the held-out split, then search for recipes there."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
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
from registry.evaluation.order_dependence import OrderDependent
from registry.selection import FORESEEN, run_selection
from registry.workflow.gather import require_two
from registry.workflow.verification import Verification
from registry.workflow.watched import WatchedEvaluator

if TYPE_CHECKING:
    from registry.ports import Evaluator, MakeMethod, Progress, SelectionMethod


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
    plain: "Evaluator | None" = None,
) -> tuple[Selection, ...]:
    """Run the selection methods, in the request's order, each until it is done or `stop` is true.

    With `plain`, which the request's `verify_exact` asks for, each is run again there: one that remembers
    nothing and scores in full. Raises BadTask or NotExact where anything differs.
    """
    if request.verify_exact and plain is None:
        raise ValueError("verify_exact needs a plain evaluator")
    verification = Verification(plain, ranking, progress) if plain is not None else None
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
            return run_selection(method, watched, stop=stop), watched.outcomes
        except OrderDependent as found:
            if attempt == FORESEEN:  # more often than there are devices that could each find it once
                raise
            if attempt == 0:
                progress.say(f"{name}: {found}; the search starts again, completed scores are remembered")
    raise AssertionError("count() does not end")


def _not_scored(candidate: Candidate, score: Score, split: str) -> Exclusion:
    first = next(i for i, value in enumerate(score.examples) if math.isnan(value))
    detail = f"its score on example {first} of split {split} is NaN"
    return Exclusion(candidate.run.run_id, candidate.run.name, ExclusionReason.NOT_SCORED, detail)
