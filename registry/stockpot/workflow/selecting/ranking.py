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
    Recipe,
    Score,
    Sweep,
    Trial,
)
from stockpot.errors import Altered, BadCheckpoint, BadTask, NotCached
from stockpot.prose import counted, listed
from stockpot.selection import FORESEEN
from stockpot.selection.telling import full_score
from stockpot.workflow.gathering.enough import require_two
from stockpot.workflow.selecting.watched import score_in_full

if TYPE_CHECKING:
    from stockpot.ports import Evaluator, Watcher
    from stockpot.workflow.gathering.arrivals import Arrivals
    from stockpot.workflow.sharing.shared_evaluator import SharedEvaluator

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
    base: Candidate | None = None
    """Where the sweep started, if the request names it: no candidate, and not ranked."""


def rank(
    arrivals: "Arrivals", evaluator: "SharedEvaluator", watch: "Watcher", stop: Callable[[], bool] = _never
) -> Ranking:
    """Score every candidate by itself: the best single is measured here, not trusted from a log.

    Other processes may do the same at the same time: each takes what nobody else evaluates, those first whose
    weights it has. Once `stop` is true and two can be averaged, those that have no score are excluded, and
    that is said. A candidate whose score is NaN is excluded. Raises BadTask when that is every candidate,
    NothingToSoup when it leaves fewer than two, or when fewer arrive.
    """
    watch.start("rank", arrivals.total)
    scores, met = _Scores(arrivals, evaluator, watch, stop), list[Candidate]()
    with closing(arrivals.due()) as batches:
        for due in batches:
            scores.waiting += due
            met += due
            scores.take([c for c in scores.waiting if arrivals.is_here(c)] if due else scores.waiting, met)
            if stop() and len(scores.known) > 1:
                break
    sweep = scores.complete()
    for _ in range(len(scores.known), arrivals.total):
        watch.advance("rank")  # those that turned out to be no candidates
    return _ranked(_without_late(sweep, scores.known, arrivals, watch), scores.known, evaluator)


class _Scores:
    """The candidates' scores, as they are measured here or elsewhere."""

    def __init__(
        self, arrivals: "Arrivals", evaluator: "SharedEvaluator", watch: "Watcher", stop: Callable[[], bool]
    ) -> None:
        self.known: dict[Digest, float] = {}
        self.waiting: list[Candidate] = []
        self._arrivals = arrivals
        self._evaluator = evaluator
        self._watch = watch
        self._stop = stop

    def complete(self) -> Sweep:
        """Wait for all, until it is time to stop. The sweep of those whose weights are good."""
        while True:
            sweep = self._arrivals.sweep()
            self.waiting = [c for c in sweep.candidates if c.checkpoint.digest not in self.known]
            waiting, refused = self._evaluator.pauses(), False
            while self.waiting and not refused and not self._enough(sweep.candidates):
                before = len(self.waiting)
                refused = self.take(self.waiting, sweep.candidates)
                if len(self.waiting) == before:
                    next(waiting)
            if not refused:
                return sweep

    def take(self, candidates: Sequence[Candidate], among: Sequence[Candidate] = ()) -> bool:
        """Score those that nobody else is about to score, until it is time to stop and two `among` these are
        scored. Whether some were refused: their first use told a fault.
        """
        trials = {c.checkpoint.digest: Trial(Recipe.mean([c.checkpoint.digest])) for c in candidates}
        coming, refused = [*trials.values()], set()
        for place, (digest, trial) in enumerate(trials.items(), start=1):
            if self._enough(among or candidates):
                break
            try:
                outcome = self._evaluator.attempt(trial, then=coming[place : place + FORESEEN])
            except (Altered, NotCached):
                raise  # the disk's fault
            except BadCheckpoint as fault:
                self._arrivals.refuse(digest, fault)
                refused.add(digest)
                continue
            if outcome is not None:
                self.known[digest] = full_score(outcome).value
                self._watch.advance("rank")
        done = {*self.known, *refused}
        self.waiting = [c for c in self.waiting if c.checkpoint.digest not in done]
        return bool(refused)

    def _enough(self, candidates: Sequence[Candidate]) -> bool:
        """Whether time is up, and two can be averaged."""
        return self._stop() and sum(c.checkpoint.digest in self.known for c in candidates) > 1


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


def _ranked(sweep: Sweep, scores: Mapping[Digest, float], evaluator: "Evaluator") -> Ranking:
    held_out = {c.checkpoint.digest: scores[c.checkpoint.digest] for c in sweep.candidates}
    unscored = [c for c in sweep.candidates if math.isnan(held_out[c.checkpoint.digest])]
    if len(unscored) == len(sweep.candidates):
        where, mend = f"split {evaluator.protocol.split}", "look at the task's score method with one batch"
        if domains := _unmeasured(_score(unscored[0], evaluator)):
            where = f"the examples of {listed(domains)} in {where}"
            mend = "give these more examples, or leave them out of the mixture with --mix"
        raise BadTask(f"{evaluator.protocol.task} scores NaN for every candidate on {where}", mend=mend)
    scored = [c for c in sweep.candidates if not math.isnan(held_out[c.checkpoint.digest])]
    exclusions = [_not_scored(c, evaluator) for c in unscored]
    sweep = replace(sweep, candidates=tuple(scored), exclusions=(*sweep.exclusions, *exclusions))
    scored.sort(key=lambda c: (-held_out[c.checkpoint.digest], c.run.started, c.run.run_id))
    return Ranking(require_two(sweep), tuple(scored), held_out)


def _not_scored(candidate: Candidate, evaluator: "Evaluator") -> Exclusion:
    score, where = _score(candidate, evaluator), f"split {evaluator.protocol.split}"
    if domains := _unmeasured(score):
        where = f"the examples of {listed(domains)} in {where}"
    elif (first := _first_nan(score)) is not None:
        where = f"example {first} of {where}"
    detail = f"its score on {where} is NaN"
    return Exclusion(candidate.run.run_id, candidate.run.name, ExclusionReason.NOT_SCORED, detail)


def _score(candidate: Candidate, evaluator: "Evaluator") -> Score:
    return score_in_full(Recipe.mean([candidate.checkpoint.digest]), evaluator)


def _first_nan(score: Score) -> int | None:
    return next((i for i, value in enumerate(score.examples) if math.isnan(value)), None)


def _unmeasured(score: Score) -> list[str]:
    """The domains that count whose own metric is NaN, though no score of an example is."""
    if score.aim is None or score.parts is None or _first_nan(score) is not None:
        return []
    return [domain for domain in score.aim.counting if math.isnan(score.parts[domain].value)]
