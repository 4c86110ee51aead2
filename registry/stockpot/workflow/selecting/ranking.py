"""Rank the candidates on the held-out split: each is scored when its weights arrive."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stockpot.entities import (
    Candidate,
    Digest,
    Exclusion,
    ExclusionReason,
    Outcome,
    Recipe,
    Sweep,
    Trial,
)
from stockpot.errors import Altered, BadCheckpoint, BadTask, NotCached
from stockpot.prose import counted
from stockpot.selection.telling import full_score
from stockpot.workflow.gathering.enough import require_two
from stockpot.workflow.selecting.watched import score_in_full

if TYPE_CHECKING:
    from stockpot.ports import Evaluator, Watcher
    from stockpot.workflow.gathering.arrivals import Arrivals

AT_ONCE = 8
"""Candidates handed to an evaluator together, which may have as many devices."""

_LONGER = "give it more time: a greater --max-seconds; a repeated request goes on from there"


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Ranking:
    """A sweep whose candidates all have a held-out score."""

    sweep: Sweep
    candidates: tuple[Candidate, ...]
    """Best first; ties by run start, then run id."""
    held_out: Mapping[Digest, float]
    """Scores of the whole split: the store has those of the examples."""


def rank(
    arrivals: "Arrivals", evaluator: "Evaluator", watch: "Watcher", stop: Callable[[], bool] = _never
) -> Ranking:
    """Score every candidate by itself: the best single is measured here, not trusted from a log.

    Once `stop` is true and two can be averaged, those that have no score are excluded, and that is said. A
    candidate whose score is NaN is excluded. Raises BadTask when that is every candidate, NothingToSoup when
    it leaves fewer than two, or when fewer arrive.
    """
    watch.start("rank", arrivals.total)
    scores: dict[Digest, float] = {}
    with closing(arrivals.due()) as batches:
        for due in batches:
            _score(due, scores, arrivals, evaluator, watch, stop)
            if stop() and len(scores) > 1:
                break
    sweep = arrivals.sweep()
    while _score(sweep.candidates, scores, arrivals, evaluator, watch, stop):
        sweep = arrivals.sweep()
    for _ in range(len(scores), arrivals.total):
        watch.advance("rank")  # those that turned out to be no candidates
    return _ranked(_without_late(sweep, scores, arrivals, watch), scores, evaluator)


def _without_late(
    sweep: Sweep, scores: Mapping[Digest, float], arrivals: "Arrivals", watch: "Watcher"
) -> Sweep:
    """The sweep without the candidates that time was too short for."""
    scored = tuple(c for c in sweep.candidates if c.checkpoint.digest in scores)
    late = [c.run for c in sweep.candidates if c.checkpoint.digest not in scores]
    late += [run for run in arrivals.unread() if all(run.run_id != e.run_id for e in sweep.exclusions)]
    if not late:
        return sweep
    watch.say(
        f"rank: time is up (--max-seconds); not looked at: {len(late)} of {counted(arrivals.total, 'run')}"
    )
    cut = (
        Exclusion(r.run_id, r.name, ExclusionReason.TIME_IS_UP, "its turn to be ranked did not come", _LONGER)
        for r in late
    )
    return replace(sweep, candidates=scored, exclusions=(*sweep.exclusions, *cut))


def _score(
    candidates: Sequence[Candidate],
    scores: dict[Digest, float],
    arrivals: "Arrivals",
    evaluator: "Evaluator",
    watch: "Watcher",
    stop: Callable[[], bool],
) -> bool:
    """Score those that have no score yet, until `stop` is true and two have one.

    Whether some were refused: their first use told a fault.
    """
    trials = {
        c.checkpoint.digest: Trial(Recipe.mean([c.checkpoint.digest]))
        for c in candidates
        if c.checkpoint.digest not in scores
    }
    refused = False
    digests = [*trials]
    for begin in range(0, len(digests), AT_ONCE):
        if stop() and sum(c.checkpoint.digest in scores for c in candidates) > 1:
            break
        end = begin + AT_ONCE
        batch, then = digests[begin:end], [trials[digest] for digest in digests[end:]]
        outcomes: Sequence[Outcome | None]
        try:
            outcomes = evaluator.evaluate([trials[digest] for digest in batch], then=then)
        except BadCheckpoint:
            outcomes = [_alone(digest, arrivals, evaluator) for digest in batch]  # whose fault it is
        for digest, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                refused = True
            else:
                scores[digest] = full_score(outcome).value
                watch.advance("rank")
    return refused


def _alone(digest: Digest, arrivals: "Arrivals", evaluator: "Evaluator") -> Outcome | None:
    """None for weights that turn out to be faulty: their runs are excluded."""
    try:
        (outcome,) = evaluator.evaluate([Trial(Recipe.mean([digest]))])
    except (Altered, NotCached):
        raise  # the disk's fault
    except BadCheckpoint as fault:
        arrivals.refuse(digest, fault)
        return None
    return outcome


def _ranked(sweep: Sweep, scores: Mapping[Digest, float], evaluator: "Evaluator") -> Ranking:
    held_out = {c.checkpoint.digest: scores[c.checkpoint.digest] for c in sweep.candidates}
    unscored = [c for c in sweep.candidates if math.isnan(held_out[c.checkpoint.digest])]
    if len(unscored) == len(sweep.candidates):
        raise BadTask(
            f"{evaluator.protocol.task} scores NaN for every candidate on split {evaluator.protocol.split}",
            mend="look at the task's score method with one batch",
        )
    scored = [c for c in sweep.candidates if not math.isnan(held_out[c.checkpoint.digest])]
    exclusions = [_not_scored(c, evaluator) for c in unscored]
    sweep = replace(sweep, candidates=tuple(scored), exclusions=(*sweep.exclusions, *exclusions))
    scored.sort(key=lambda c: (-held_out[c.checkpoint.digest], c.run.started, c.run.run_id))
    return Ranking(require_two(sweep), tuple(scored), held_out)


def _not_scored(candidate: Candidate, evaluator: "Evaluator") -> Exclusion:
    score = score_in_full(Recipe.mean([candidate.checkpoint.digest]), evaluator)
    first = next((i for i, value in enumerate(score.examples) if math.isnan(value)), None)
    split = evaluator.protocol.split
    where = f"split {split}" if first is None else f"example {first} of split {split}"
    detail = f"its score on {where} is NaN"
    return Exclusion(candidate.run.run_id, candidate.run.name, ExclusionReason.NOT_SCORED, detail)
