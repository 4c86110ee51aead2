"""A search as it went: each trial, and what it had to beat."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stockpot.entities import Digest, Selection, SoupReport
from stockpot.prose import counted
from stockpot.workflow.selecting.rows import domain_of


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
    """The score from which it began: of the best single candidate; of a specialist's own search, of its
    domain's best run on the domain's examples alone.
    """
    start_name: str
    attempts: tuple[Attempt, ...]

    @property
    def domain(self) -> str:
        """Of a specialist's search: all scores are of its examples alone."""
        return domain_of(self.method)

    @property
    def start_told(self) -> str:
        """What it began with, in words."""
        return f"the best run of {self.domain}" if self.domain else "the best single candidate"


def searches(report: SoupReport) -> tuple[Search, ...]:
    """Of each method that tried several soups, in the report's order."""
    names = {one.checkpoint: (one.run_name, one.run_id) for one in report.candidates}
    if report.base is not None:
        names.setdefault(report.base.recipe.checkpoints[0], ("the base", ""))
    best = report.rows[0]
    whole = best.scores.get(report.request.select_on)
    found = []
    for one in report.selections:
        held, start = best.recipe.checkpoints, whole
        if domain_of(one.method):  # its scores are of other examples
            held = one.recipe.checkpoints[:1]
            start = next((step.score for step in one.steps if step.tried == held), None)
        if start is None:
            continue
        attempts = tuple(_attempts(one, start, held, names))
        if len(attempts) > 1:
            name, _ = names.get(held[0], (best.label, ""))
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
