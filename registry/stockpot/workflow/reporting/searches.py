"""A search as it went: each trial, and what it had to beat."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stockpot.entities import Digest, Selection, SoupReport
from stockpot.prose import counted


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trial of a soup."""

    what: str
    """The candidate that was added, or how many models were averaged."""
    run_id: str
    """Of that candidate; empty where none was added alone."""
    score: float | None
    """None where the trial ended early."""
    bound: float | None
    """What its score is at most then."""
    kept: bool
    incumbent: float
    """The score of the best after it."""


@dataclass(frozen=True, slots=True)
class Search:
    """The trials of a method after its candidates were ranked."""

    method: str
    rule: str
    complete: bool
    start: float
    """The score of the best single candidate, from which it began."""
    start_name: str
    attempts: tuple[Attempt, ...]


def searches(report: SoupReport) -> tuple[Search, ...]:
    """Of each method that tried several soups, in the report's order."""
    names = {one.checkpoint: (one.run_name, one.run_id) for one in report.candidates}
    if report.base is not None:
        names.setdefault(report.base.recipe.checkpoints[0], ("the base", ""))
    best = report.rows[0]
    start = best.scores.get(report.request.select_on)
    if start is None:
        return ()
    name, _ = names.get(best.recipe.checkpoints[0], (best.label, ""))
    found = []
    for one in report.selections:
        attempts = tuple(_attempts(one, start, best.recipe.checkpoints, names))
        if len(attempts) > 1:
            found.append(Search(one.method, one.rule, one.complete, start, name, attempts))
    return tuple(found)


def _attempts(
    selection: Selection,
    incumbent: float,
    held: tuple[Digest, ...],
    names: Mapping[Digest, tuple[str, str]],
) -> Iterator[Attempt]:
    for step in selection.steps:
        if len(step.tried) < 2:
            continue
        *before, last = step.tried
        added = tuple(before) == held
        what, run_id = names.get(last, (last, "")) if added else (counted(len(step.tried), "model"), "")
        if step.kept and step.score is not None:
            incumbent, held = step.score, step.tried
        yield Attempt(what, run_id, step.score, step.bound, step.kept, incumbent)
