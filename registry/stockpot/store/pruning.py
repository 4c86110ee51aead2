"""What may be pruned, for every store."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stockpot.entities import Digest, Ensemble, Opening, Pruned, Recipe, ReferenceRow, SoupReport


def told_of(report: SoupReport) -> Iterator[Digest]:
    """The recipes whose evaluations this report rests on: a walk that finds it again asks for them."""
    for row in report.table:
        for recipe in row.recipes if isinstance(row, ReferenceRow) else (row.recipe,):
            yield recipe.digest
            if isinstance(recipe, Recipe):
                yield Ensemble.like(recipe).digest
    for left in report.collisions or ():
        if left.recipe is not None:
            yield left.recipe.digest
    for point in report.curve.points if report.curve is not None else ():
        yield point.recipe
    for candidate in report.candidates:
        yield Recipe.mean([candidate.checkpoint]).digest
    for selection in report.selections:
        for step in selection.steps:
            yield step.recipe


def judged_in(decisions: Iterable[Any]) -> Iterator[Digest]:
    """The recipes whose scores these decisions of the gate rest on. In a trail they are documents, perhaps in
    another program's words.
    """
    for decision in decisions:
        for side in ("version", "champion"):
            version = decision.get(side) if isinstance(decision, Mapping) else None
            scores = version.get("scores") if isinstance(version, Mapping) else None
            for score in scores if isinstance(scores, Sequence) else ():
                if isinstance(score, Mapping) and isinstance(recipe := score.get("recipe"), str):
                    yield Digest(recipe)


@dataclass(frozen=True)
class InUse:
    """What jobs need now."""

    protocols: frozenset[Digest] = frozenset()
    """Nothing under these goes."""
    at_work: bool = False
    """Somebody works on a job."""
    unknown: bool = False
    """Nobody knows what one of those needs: nothing goes."""


def in_use(recent: Iterable[Opening | None], at_work: Sequence[Opening | None]) -> InUse:
    """`recent`: how the jobs were opened that are young; `at_work`: those that somebody works on."""
    openings = [opening for opening in (*recent, *at_work) if opening is not None]
    return InUse(
        frozenset(protocol.digest for opening in openings for protocol in opening.protocols),
        bool(at_work),
        any(opening is None or not opening.protocols for opening in at_work),
    )


def told(sizes: dict[str, list[int]]) -> tuple[Pruned, ...]:
    """By kind the sizes of what went."""
    return tuple(Pruned(kind, len(found), sum(found)) for kind, found in sizes.items())
