"""Whether a fast search did what the plain one does."""

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from stockpot.entities import Bound, Composition, Outcome, Score, Selection, Step, Trial
from stockpot.errors import BadTask, NotExact
from stockpot.prose import counted

NAMED = 10
"""A message names so many faults, and counts the others."""

Name = Callable[[Composition], str]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was compared and found equal."""

    steps: int
    scores: int
    """Recipes that both searches scored in full."""
    examples: int
    """Per-example scores of those, together."""
    bounds: int

    def __str__(self) -> str:
        return (
            f"{counted(self.steps, 'step')} in the same order, {counted(self.scores, 'score')} over "
            f"{counted(self.examples, 'example')} bit for bit, {counted(self.bounds, 'bound')} that hold"
        )


def require_same_scores(pairs: Iterable[tuple[Composition, Score, Score]], name: Name) -> None:
    """Compare what the same recipes scored at first and in a plain pass, example by example, bit for bit.

    Raises BadTask naming the recipe, the example and both scores.
    """
    differences = ((recipe, _difference(first, second)) for recipe, first, second in pairs)
    faults = [f"{name(recipe)}: {difference}" for recipe, difference in differences if difference]
    if faults:
        raise BadTask(
            "the same weights do not get the same scores twice",
            faults=_at_most(faults),
            mend="look for dropout that stays on, random augmentation, a data loader that shuffles: "
            "whatever the task draws anew for each pass, unless from a seeded torch.Generator of its own. "
            "Where it draws nothing: scores were remembered from elsewhere, or Stockpot is at fault; report "
            "it with this message. Nothing was registered",
        )


def require_same_search(
    fast: Selection,
    plain: Selection,
    outcomes: Mapping[Trial, Outcome],
    scores: Mapping[Composition, Score],
    name: Name,
) -> Agreement:
    """Compare a search with its plain counterpart, whose scores agree wherever both have one.

    `outcomes` is what the fast search was told, `scores` what the recipes score in full. Raises NotExact
    where a step, a decision or the result is another, or where a bound does not hold or does not exclude
    acceptance.
    """
    bounded = [(trial, outcome) for trial, outcome in outcomes.items() if isinstance(outcome, Bound)]
    faults = [*_other_steps(fast, plain), *_other_result(fast, plain, name)]
    for trial, bound in bounded:
        faults += _bound_faults(trial, bound, scores[trial.recipe], name)
    if faults:
        raise NotExact(
            f"{fast.method}: the fast search is not the plain one, although every score agrees",
            faults=_at_most(faults),
            mend="report it with this message: it is a fault of Stockpot; nothing was registered",
        )
    full = {trial.recipe: outcome for trial, outcome in outcomes.items() if isinstance(outcome, Score)}
    examples = sum(len(score.examples) for score in full.values())
    return Agreement(len(fast.steps), len(full), examples, len(bounded))


def _other_steps(fast: Selection, plain: Selection) -> Iterator[str]:
    """The first step that differs: what follows from it is no news."""
    for number, (a, b) in enumerate(zip_longest(fast.steps, plain.steps), start=1):
        if a is None or b is None or _told(a) != _told(b) or not _same_value(a, b):
            yield f"step {number}: {_described(a)}; in the plain search {_described(b)}"
            return


def _told(step: Step) -> tuple[object, ...]:
    return step.recipe, step.tried, step.kept


def _same_value(fast: Step, plain: Step) -> bool:
    """A bound is looked at by itself."""
    return fast.score is None or repr(fast.score) == repr(plain.score)


def _described(step: Step | None) -> str:
    if step is None:
        return "there is none"
    value = f"at most {step.bound!r}" if step.score is None else repr(step.score)
    return f"{step.recipe} of {len(step.tried)} is {'kept' if step.kept else 'not kept'} at {value}"


def _other_result(fast: Selection, plain: Selection, name: Name) -> Iterator[str]:
    results = [
        f"{name(s.recipe)} at {s.score!r}, rule {s.rule!r}, {'complete' if s.complete else 'incomplete'}"
        for s in (fast, plain)
    ]
    if fast.recipe != plain.recipe or results[0] != results[1]:
        yield f"the result: {results[0]}; in the plain search {results[1]}"


def _bound_faults(trial: Trial, bound: Bound, score: Score, name: Name) -> Iterator[str]:
    # A score of NaN is above no bound: it would be rejected too, as `rejection/tally.py` says.
    if bound.upper < score.value:
        yield f"{name(trial.recipe)}: bounded by {bound.upper!r}, scores {score.value!r}"
    threshold = trial.must_reach
    if threshold is None or threshold.met_by(bound.upper) or math.isnan(bound.upper):
        yield f"{name(trial.recipe)}: stopped at the bound {bound.upper!r}, with which {threshold} can be met"


def _difference(first: Score, second: Score) -> str:
    """How they differ, bit for bit, every NaN being one; empty if they do not."""
    if array("d", first.examples).tobytes() != array("d", second.examples).tobytes():
        pairs = enumerate(zip_longest(first.examples, second.examples))
        # repr tells zeros of different sign apart, and no NaN from another.
        different = [(place, *map(repr, pair)) for place, pair in pairs if repr(pair[0]) != repr(pair[1])]
        if different:
            place, at_first, later = different[0]
            more = f", and {counted(len(different) - 1, 'more example')}" if different[1:] else ""
            return f"example {place} scores {at_first} at first, {later} in the plain pass{more}"
    if repr(first.value) != repr(second.value):
        return f"the split as a whole scores {first.value!r} at first, {second.value!r} in the plain pass"
    return ""


def _at_most(faults: list[str]) -> list[str]:
    more = len(faults) - NAMED
    return [*faults[:NAMED], *([f"and {more:,} more"] if more > 0 else [])]
